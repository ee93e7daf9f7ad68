"""One trial after the other, in this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import Interrupted
from ..run import run_trial
from .protocol import Listener
from .waiting import Waiting

LOOK_S = 0.5  # where all that is left may be at work elsewhere


class SerialEngine:
    """Runs every trial in the process that asks for it."""

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        waiting = Waiting(Path(results).absolute(), keys, listener)
        while waiting.open:
            if should_stop():
                raise Interrupted("stopped between trials")
            key = waiting.next()
            if key is None:
                time.sleep(LOOK_S)
                continue
            listener.started(key)

            def progress(done: int, total: int, text: str, key: str = key) -> None:
                listener.progress(key, done, total, text)

            state = run_trial(results, key, on_progress=progress, should_stop=should_stop)
            waiting.settle(key)
            listener.ended(key, state)
