"""What an engine is, and who hears of what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..state import TrialState


class Listener(Protocol):
    """Hears of what an engine does; the one collecting process. Called in any order of trials."""

    def started(self, key: str) -> None: ...

    def progress(self, key: str, done: int, total: int, text: str) -> None: ...

    def again(self, key: str, reason: str) -> None:
        """An attempt was lost, and the trial is tried once more."""

    def ended(self, key: str, state: TrialState) -> None: ...

    def note(self, text: str) -> None:
        """Something of the whole that whoever waits should know, in one line."""


class Quiet:
    """A listener that does nothing with what it hears; others are made of it, and heed what they care for."""

    def started(self, key: str) -> None:
        pass

    def progress(self, key: str, done: int, total: int, text: str) -> None:
        pass

    def again(self, key: str, reason: str) -> None:
        pass

    def ended(self, key: str, state: TrialState) -> None:
        pass

    def note(self, text: str) -> None:
        pass


class Engine(Protocol):
    """Runs trials until all are done or ``should_stop()``; raises ``Interrupted`` if it stopped before that.

    One that gives trials out of its hands raises ``LeftToOthers``.
    """

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None: ...
