"""The worker's side of an engine: trials come through one pipe, what becomes of them goes back through another.

A worker runs its trials in one warm process: libraries stay loaded, prepared data and resident patches stay. It leaves
when there is nothing more to come, when it is asked to stop, and when its engine is gone: then the trial at work is
saved, or, where it does not stop within ``PATIENCE_S``, left as it is, to be gone on with from its last checkpoint.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import DeviceFailed, DeviceFull, Interrupted, UserError
from . import attempts
from .run import run_trial

PATIENCE_S = 20.0  # between the engine's end and the worker's, at most
PROGRESS_S = 0.5  # between two reports of a trial's progress
LOOK_S = 0.2  # between two looks at whether to stop, while there is nothing to do


def serve(results: Path, requests: int, replies: int, life: int, should_stop: Callable[[], bool]) -> None:
    """Run the trials that are named on the descriptor ``requests``, and report on ``replies``, a JSON line each.

    ``life`` is the end of a pipe whose other end the engine alone holds.
    """
    _watch_over(life)
    waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    engine_is_gone = threading.Event()

    def receive() -> None:
        with os.fdopen(requests, encoding="utf-8") as lines:
            for line in lines:
                waiting.put(json.loads(line)["run"])
        waiting.put(None)
        engine_is_gone.set()

    def reply(**words: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the engine is gone: noticed in a moment, and no method's fault
            os.write(replies, json.dumps(words).encode() + b"\n")

    def stop() -> bool:
        return should_stop() or engine_is_gone.is_set()

    import torch  # noqa: F401 - before the first trial, whose time is limited

    threading.Thread(target=receive, daemon=True).start()
    threading.Thread(target=_say_goodbye, args=(engine_is_gone, results), daemon=True).start()
    reply(ready=True)
    while not should_stop():
        try:
            key = waiting.get(timeout=LOOK_S)
        except queue.Empty:
            continue
        if key is None:
            return
        try:
            reply(started=key)
            run_trial(results, key, _Throttled(reply, key), stop)
            reply(ended=key)
        except Interrupted as pause:
            reply(interrupted=key, reason=str(pause))
            return
        except DeviceFull as full:
            reply(full=key, reason=str(full))
            return
        except DeviceFailed:  # this process is of no use any more; another may be
            raise
        except (UserError, OSError) as error:  # of the place: no trial is to blame
            reply(place=str(error))
            raise


def _watch_over(life: int) -> None:
    """Let a shell end this process and its children some time after the engine went, whatever they hang in.

    This process cannot do that itself: native code may never give Python back its lock, and children may ignore what
    they are asked. The shell is of the same group, so nobody else can have the group's number while it lives.
    """
    script = f"cat >/dev/null; sleep {PATIENCE_S}; kill -KILL 0"
    subprocess.Popen(["/bin/sh", "-c", script], stdin=life)
    os.close(life)


def _say_goodbye(engine_is_gone: threading.Event, results: Path) -> None:
    """Shortly before the end, say of a trial that does not stop that its method is not to blame."""
    engine_is_gone.wait()
    time.sleep(0.9 * PATIENCE_S)
    with contextlib.suppress(Exception):  # whatever the place says now, this process is to end
        attempts.interrupt_own(results, "the engine was gone, and the trial did not stop in time")


class _Throttled:
    """Reports a trial's progress, no more often than somebody looks."""

    def __init__(self, reply: Callable[..., None], key: str) -> None:
        self.reply, self.key, self._last = reply, key, 0.0

    def __call__(self, done: int, total: int, text: str) -> None:
        if time.monotonic() - self._last >= PROGRESS_S:
            self._last = time.monotonic()
            self.reply(progress=self.key, done=done, total=total, text=text)
