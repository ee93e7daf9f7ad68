"""How far a run is: trials by state, who works on what, what failed and why. Looking writes nothing."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..trials.history import History
from ..trials.outcome import state_of
from ..trials.state import FINAL_STATES, TrialState
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
    pid: int


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
    for key, trial in read_run(results).trials.items():
        state = state_of(results, key)
        counts[state.state] += 1
        if state.state == "running":
            at_work.append(_at_work(results, key, trial.label, state))
        if state.ended is not None:
            ended.append(state.ended)
        if state.state == "failed":
            failed.append(Failed(key, trial.label, state.ended or 0.0, state.cause or "", state.reason))
    failed.sort(key=lambda trial: -trial.ended)
    return Status(results, {name: counts[name] for name in ORDER if counts[name]}, at_work, failed, sorted(ended))


def _at_work(results: Path, key: str, label: str, state: TrialState) -> AtWork:
    history = History(results / "running" / key / "history.jsonl")
    return AtWork(key, label, state.started or 0.0, len(history.rows), state.attempts or 1, state.pid or 0)
