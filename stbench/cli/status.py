"""``stbench status``: how far a run is."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .console import out

if TYPE_CHECKING:
    from ..results.status import AtWork, Status
    from ..trials.engines.slurm.queue import QueuedJob

FAILURES_SHOWN = 5
LOOK_S = 2.0
ASK_SLURM_S = 30.0
SILENT_S = 600.0  # without a word from a trial, before that is worth telling


def status(
    results: Annotated[Path, typer.Argument(metavar="RESULTS")],
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until all trials ended.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """How far a run is: trials by state, what is at work, what failed. Writes nothing and disturbs nobody."""
    from ..results.status import status_of

    found, queue = status_of(results), _Queue(results)
    if as_json:
        out.print_json(json.dumps(found.as_json() | {"slurm": queue.as_json(found)}))
        return
    if not watch:
        for line in _lines(found, queue):
            out.print(line, soft_wrap=True, markup=False, highlight=False)
        return
    if not out.is_terminal:  # a log file: a line whenever something changed
        said = ""
        while True:
            line = _counted(found)
            if line != said:
                out.print(line, soft_wrap=True)
                said = line
            if not found.n_open:
                return
            time.sleep(LOOK_S)
            found = status_of(results)
    from rich.live import Live
    from rich.text import Text

    with Live(Text("\n".join(_lines(found, queue))), console=out, auto_refresh=False) as live:
        while found.n_open:
            time.sleep(LOOK_S)
            found = status_of(results)
            live.update(Text("\n".join(_lines(found, queue))), refresh=True)


class _Queue:
    """Slurm's jobs for a results directory, asked for seldom, and not where nothing is left to run."""

    def __init__(self, results: Path) -> None:
        self.results = results
        self._asked: float | None = None
        self._jobs: list[QueuedJob] = []

    def lines(self, found: Status) -> list[str]:
        from ..trials.engines.slurm.queue import why_waiting

        return why_waiting(self._look(found))

    def as_json(self, found: Status) -> list[dict[str, Any]]:
        return [asdict(job) for job in self._look(found) if not job.has_ended]

    def _look(self, found: Status) -> list[QueuedJob]:
        from ..trials.engines.slurm.queue import jobs_of_run

        now = time.monotonic()
        if found.n_open and (self._asked is None or now - self._asked > ASK_SLURM_S):
            self._asked, self._jobs = now, jobs_of_run(self.results) or []
        return self._jobs


def _counted(found: Status) -> str:
    counts = ", ".join(f"{number} {state}" for state, number in found.counts.items())
    return f"{found.n_trials} trials: {counts}"


def _lines(found: Status, queue: _Queue) -> list[str]:
    now = time.time()
    lines = [_counted(found)]
    rate = found.per_hour(now)
    if rate and found.n_open:
        lines.append(f"{rate:.3g} trials an hour; at that rate the rest takes {_time(found.n_open / rate * 3600)}")
    if found.owner:
        lives = {True: "at work", False: "no longer there", None: "not to be seen from here"}[found.owner_lives]
        lines.append(f"owner ({lives}): {found.owner}")
    lines += queue.lines(found)
    for trial in found.at_work:
        epochs = f", {trial.epochs} epochs" if trial.epochs else ""
        attempt = f", attempt {trial.attempt}" if trial.attempt > 1 else ""
        who = f"{trial.process}{_life(trial, now)}"
        lines.append(f"at work: {trial.label}, for {_time(now - trial.since)}{epochs}{attempt}, {who}")
    for failure in found.failed[:FAILURES_SHOWN]:
        cause = f" ({failure.cause})" if failure.cause else ""
        lines.append(f"failed{cause}: {failure.label}: {failure.reason}")
    if len(found.failed) > FAILURES_SHOWN:
        lines.append(f"and {len(found.failed) - FAILURES_SHOWN} more that failed; --json lists all")
    if found.failed:
        lines.append("failed trials are run again with --retry-failed")
    return lines


def _life(trial: AtWork, now: float) -> str:
    """Life and progress are two things: a process may live and hang."""
    lives = "" if trial.seen_alive else " (whether it lives cannot be seen from here)"
    if trial.progressed is None or now - trial.progressed < SILENT_S:
        return lives
    return f"{lives}, which has written nothing for {_time(now - trial.progressed)}"


def _time(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3 h 20 min``, ``2 d 4 h``"""
    if seconds < 90:
        return f"{max(0, seconds):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
