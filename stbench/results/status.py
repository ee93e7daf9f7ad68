"""How far a run is: trials by state, who works on what, what failed and why. Looking writes nothing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..trials.attempts import HISTORY
from ..trials.history import History
from ..trials.owner import owner_of
from ..trials.state import FINAL_STATES, TrialState
from ..trials.survey import states_of
from .record import read_run

ORDER = ("running", "pending", "interrupted", "finished", "failed", "skipped")


@dataclass(frozen=True)
class AtWork:
    """A trial that a process works on now."""

    key: str
    label: str
    since: float  # seconds since the epoch
    epochs: int  # that its history has
    attempt: int
    process: str
    seen_alive: bool | None  # None: that cannot be known from here
    progressed: float | None  # when it last wrote of its progress, by the clock of the file system


@dataclass(frozen=True)
class Failed:
    """A trial that failed, with its reason."""

    key: str
    label: str
    ended: float
    cause: str  # killed, timeout or oom where it came from outside the method, else empty
    reason: str


@dataclass(frozen=True)
class Status:
    """Of the trials that count."""

    directory: Path
    owner: str  # the command that works in the directory, with its process; empty where there is none
    owner_lives: bool | None  # None: that cannot be known from here
    counts: dict[str, int]
    at_work: list[AtWork]
    failed: list[Failed]  # latest first
    ended: list[float] = field(repr=False)  # when trials ended, in order

    @property
    def n_trials(self) -> int:
        return sum(self.counts.values())

    @property
    def n_open(self) -> int:
        return sum(number for state, number in self.counts.items() if state not in FINAL_STATES)

    def per_hour(self, now: float) -> float | None:
        """Trials that ended per hour, of the last twenty or of those of the last hour, if these are more."""
        recent = [end for end in self.ended if now - end <= 3600]
        latest = max(recent, self.ended[-20:], key=len)
        if len(latest) < 2 or now <= latest[0]:
            return None
        return (len(latest) - 1) / (now - latest[0]) * 3600

    def as_json(self) -> dict[str, Any]:
        now = time.time()
        return {
            "directory": str(self.directory),
            "owner": self.owner,
            "owner_lives": self.owner_lives,
            "trials": self.n_trials,
            "counts": self.counts,
            "per_hour": self.per_hour(now),
            "at_work": [asdict(trial) for trial in self.at_work],
            "failed": [asdict(trial) for trial in self.failed],
        }


def status_of(results: Path) -> Status:
    """Read it from the directory. Raises ``UserError`` where it is not one."""
    counts: Counter[str] = Counter()
    at_work, failed, ended = [], [], []
    trials = read_run(results).trials
    for key, state in states_of(results, trials):
        trial = trials[key]
        counts[state.state] += 1
        if state.state == "running":
            at_work.append(_at_work(results, key, trial.label, state))
        if state.ended is not None:
            ended.append(state.ended)
        if state.state == "failed":
            failed.append(Failed(key, trial.label, state.ended or 0.0, state.cause or "", state.reason))
    failed.sort(key=lambda trial: -trial.ended)
    owner = owner_of(results)
    owner_lives = None if owner is None else owner.process.is_alive()
    in_order = {name: counts[name] for name in ORDER if counts[name]}
    return Status(results, str(owner or ""), owner_lives, in_order, at_work, failed, sorted(ended))


def _at_work(results: Path, key: str, label: str, state: TrialState) -> AtWork:
    folder = results / "attempts" / key / (state.token or "")
    process = state.process
    return AtWork(
        key=key,
        label=label,
        since=state.started or 0.0,
        epochs=len(History(folder / HISTORY).rows),
        attempt=state.attempts or 1,
        process=str(process or "another process"),
        seen_alive=None if process is None else process.is_alive(),
        progressed=max((written_at(folder / name) for name in (HISTORY, "log.txt")), default=0.0) or None,
    )


def written_at(path: Path) -> float:
    """When a file was written last; 0 where it is not there."""
    return path.stat().st_mtime if path.is_file() else 0.0
