"""``stbench worker``: trials of a results directory, one after the other, in one process; what engines start."""

from __future__ import annotations

import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError
from .console import out

if TYPE_CHECKING:
    from ..trials.state import TrialState


def worker(
    results: Annotated[Path, typer.Argument(metavar="RESULTS")],
    trials: Annotated[
        Path | None, typer.Option("--trials", metavar="FILE", help="Keys of planned trials, one per line.")
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option("--time-limit", metavar="3h50m", help="Save the trial at work after this time, and leave."),
    ] = None,
    trial_time: Annotated[
        str | None, typer.Option("--trial-time", metavar="2h30m", help="End a trial that runs for longer: failed.")
    ] = None,
    trial_memory: Annotated[
        str | None, typer.Option("--trial-memory", metavar="16G", help="End a trial that takes more memory: failed.")
    ] = None,
    left: Annotated[Path | None, typer.Option(hidden=True)] = None,
    requeue: Annotated[bool, typer.Option("--requeue", hidden=True)] = False,
    requests: Annotated[int, typer.Option(hidden=True)] = -1,
    replies: Annotated[int, typer.Option(hidden=True)] = -1,
    life: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Run planned trials, listed in a file, in one process that stays warm."""
    from ..results.record import read_run
    from ..system.interrupt import stop_on_signals
    from .engine_options import local_engine

    planned = read_run(results).trials
    with stop_on_signals() as stop:
        if trials is None:
            if requests < 0 or replies < 0:
                raise UserError("there is nothing to run - list keys of planned trials in a file: --trials FILE")
            from ..trials.worker import serve

            serve(results, requests, replies, life, stop)
            return
        from ..trials.engines.slurm.node import Leaving

        listener, until = _Lines(), _deadline(time_limit)
        keys, engine = _listed(trials, planned), local_engine(trial_time, trial_memory)
        with Leaving(left, results, keys, stop, requeue):
            engine.run(results, keys, listener, lambda: stop() or time.monotonic() > until)
    if listener.states["failed"]:
        raise typer.Exit(1)


def _deadline(time_limit: str | None) -> float:
    from ..trials.engines.limits import seconds_of

    return math.inf if time_limit is None else time.monotonic() + seconds_of(time_limit)


def _listed(path: Path, planned: object) -> list[str]:
    try:
        keys = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}) - list keys of planned trials, one per line") from error
    unknown_keys = [key for key in keys if key not in planned]  # type: ignore[operator]
    if unknown_keys:
        raise UserError(f"{path} lists {unknown_keys[0]}, which is not planned - see run.json for the keys")
    return keys


class _Lines:
    """A line for every trial that ended."""

    def __init__(self) -> None:
        self.states: Counter[str] = Counter()

    def started(self, key: str) -> None:
        pass

    def progress(self, key: str, done: int, total: int, text: str) -> None:
        pass

    def again(self, key: str, reason: str) -> None:
        pass

    def note(self, text: str) -> None:
        out.print(text, soft_wrap=True, markup=False)

    def ended(self, key: str, state: TrialState) -> None:
        self.states[state.state] += 1
        say_ended(key, state)


def say_ended(key: str, state: TrialState) -> None:
    """Print in one line what became of a trial."""
    out.print(f"{key}: {state.state}{f' - {state.reason}' if state.reason else ''}", soft_wrap=True)
