"""How far trials are, as far as it can be told from the directory: whether another job was worth its while."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ...attempts import HISTORY, attempts_of
from ...history import History
from ...outcome import read_ended


def epochs_of(results: Path, key: str) -> int:
    """Epochs of the attempt at a trial that got furthest; 0 where its method counts none."""
    return max((len(History(folder / HISTORY).rows) for folder, _ in attempts_of(results, key)), default=0)


def n_attempts(results: Path, key: str) -> int:
    """How often a trial that has not ended was begun."""
    return max((state.attempts or 0 for _, state in attempts_of(results, key)), default=0)


def was_lost(results: Path, key: str) -> bool:
    """Whether the last attempt at a trial did not say how it left; asked where its process is known to be gone."""
    attempts = attempts_of(results, key)
    return bool(attempts) and attempts[-1][1].state == "running"


def progress_of(results: Path, keys: Iterable[str]) -> dict[str, int]:
    """For each trial a number that grows as it gets on; -1 once it has ended."""
    ended = {key for key in keys if read_ended(results / "trials" / key) is not None}
    return {key: -1 if key in ended else epochs_of(results, key) for key in keys}
