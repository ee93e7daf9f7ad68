"""All commands in the order in which ``stbench --help`` lists them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .. import __version__
from .ablate import ablate
from .audit import audit
from .console import out
from .data import data_app
from .data_fetch import data_fetch
from .doctor import doctor
from .encoders import encoders_app
from .evaluate import evaluate
from .leaderboard import leaderboard
from .methods import methods_app
from .new import new_app
from .predict import predict
from .report import report
from .run import run
from .score import score
from .status import status
from .track import track
from .trial import trial
from .worker import worker

ORDER = (
    "run", "status", "report", "leaderboard", "ablate", "audit", "predict", "evaluate", "score", "data", "methods",
    "encoders", "new", "doctor", "track", "trial", "worker",  # what engines call
)  # fmt: skip


class CommandsInOrder(TyperGroup):
    """Lists groups of commands among the commands; typer's own order puts every group last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(self.commands, key=ORDER.index)


app = typer.Typer(
    name="stbench",
    cls=CommandsInOrder,
    help="From an H&E image, which method predicts spatial gene expression best, by how much, and can it be believed?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (
    run,
    status,
    report,
    leaderboard,
    ablate,
    audit,
    predict,
    evaluate,
    score,
    doctor,
    track,
    trial,
    worker,
):
    app.command()(command)
data_app.command("fetch")(data_fetch)
app.add_typer(data_app, name="data")
app.add_typer(methods_app, name="methods")
app.add_typer(encoders_app, name="encoders")
app.add_typer(new_app, name="new")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        out.print(f"stbench {__version__}")
        raise typer.Exit
