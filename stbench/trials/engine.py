"""Engines run planned trials. They know nothing but "run trial KEY of RESULTS"."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from ..errors import Interrupted
from .run import run_trial
from .state import TrialState


class Listener(Protocol):
    """Who hears of what an engine does; the one collecting process. Called in any order of trials."""

    def started(self, key: str) -> None: ...

    def progress(self, key: str, done: int, total: int, text: str) -> None: ...

    def ended(self, key: str, state: TrialState) -> None: ...


class Engine(Protocol):
    """Runs trials until all are done or ``should_stop()``; raises ``Interrupted`` if it stopped before that."""

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None: ...


class LocalEngine:
    """One trial after the other in this process."""

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        for key in keys:
            if should_stop():
                raise Interrupted("stopped between trials")
            listener.started(key)

            def progress(done: int, total: int, text: str, key: str = key) -> None:
                listener.progress(key, done, total, text)

            listener.ended(key, run_trial(results, key, on_progress=progress, should_stop=should_stop))
