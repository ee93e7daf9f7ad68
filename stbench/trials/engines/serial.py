"""One trial after the other, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import Interrupted
from ..run import run_trial
from .protocol import Listener


class SerialEngine:
    """Runs every trial in the process that asks for it."""

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        for key in keys:
            if should_stop():
                raise Interrupted("stopped between trials")
            listener.started(key)

            def progress(done: int, total: int, text: str, key: str = key) -> None:
                listener.progress(key, done, total, text)

            listener.ended(key, run_trial(results, key, on_progress=progress, should_stop=should_stop))
