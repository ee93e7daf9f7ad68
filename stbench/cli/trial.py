"""``stbench trial``: one planned trial, for engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .worker import say_ended


def trial(
    results: Annotated[Path, typer.Argument(metavar="RESULTS")],
    key: Annotated[str, typer.Argument(metavar="KEY")],
) -> None:
    """Run one planned trial, given its key. This is the command that engines call."""
    from ..results.record import read_run
    from ..system.interrupt import stop_on_signals
    from ..trials.run import run_trial

    read_run(results)  # a directory of another layout is refused
    with stop_on_signals() as stop:
        state = run_trial(results, key, should_stop=stop)
    say_ended(key, state)
    if state.state == "failed":
        raise typer.Exit(1)
