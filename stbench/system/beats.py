"""Signs of life in a file, and who looks for them.

No clock of one machine is held against that of another: a holder counts in its file, and whoever looks measures, with
its own monotonic clock, for how long the count has not moved. A clock that is wrong, or set, changes nothing.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal

from .processes import Process

log = logging.getLogger("stbench")

BEAT_S = 10.0  # between two signs of life
PATIENCE_S = 90.0  # without one until the holder counts as dead: longer than network file systems cache (60 s)
WIDTH = 12  # of the count, so that a beat changes no file's length

Sight = Literal["alive", "dead", "unknown"]


class Beat:
    """Context manager: counts in the file ``path``, which is gone afterwards.

    ``is_lost()``: somebody took the file away, who thought its holder dead. A beat never makes it again.
    """

    def __init__(self, path: Path, interval_s: float = BEAT_S) -> None:
        self.path, self.interval_s = path, interval_s
        self._count = 0
        self._end = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._go_on, name="beat", daemon=True)

    def __enter__(self) -> Beat:
        self.path.write_bytes(_counted(0))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def is_lost(self) -> bool:
        return self._lost.is_set()

    def _go_on(self) -> None:
        told = False
        while not self._end.wait(self.interval_s):
            self._count += 1
            try:
                handle = os.open(self.path, os.O_WRONLY)
                try:
                    os.write(handle, _counted(self._count))
                finally:
                    os.close(handle)
            except FileNotFoundError:
                self._lost.set()
                return
            except OSError as error:
                if not told:
                    log.warning("no sign of life can be written (%s): others may take this process for dead", error)
                told = True


class Observer:
    """Judges holders by what it sees of them itself, from look to look; one observer for as long as one looks."""

    def __init__(self, patience_s: float = PATIENCE_S, clock: Callable[[], float] = time.monotonic) -> None:
        self.patience_s, self.clock = patience_s, clock
        self._seen: dict[Path, tuple[bytes, float, bool]] = {}  # the count, when it was first seen, whether it moved

    def sees(self, process: Process | None, beat: Path) -> Sight:
        """Whether a holder lives, by its process where that can be seen from here, else by its beat.

        ``unknown`` until its beat has moved, or has not for ``patience_s``. A beat that is not there is one that does
        not move: a network file system may not show it yet.
        """
        known = None if process is None else process.is_alive()
        if known is not None:
            return "alive" if known else "dead"
        count, now = _read(beat), self.clock()
        before = self._seen.get(beat)
        if before is None or before[0] != count:
            moved = before is not None and count != b""
            self._seen[beat] = count, now, moved
            return "alive" if moved else "unknown"
        if now - before[1] >= self.patience_s:
            return "dead"
        return "alive" if before[2] else "unknown"


def _counted(number: int) -> bytes:
    return f"{number:0{WIDTH}d}\n".encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
