"""Running a command of somebody else's to its end, and nothing of it beyond: its processes are ended with it.

Its processes are a group. A shell that watches over them is the group's first member, so that nobody else can have the
group's number; it ends the group when the harness is gone, however that went, as a pipe tells it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from ..errors import MethodFailed, reason_of
from ..system.process_family import family, resident_bytes
from .environment import Launch

GRACE_S = 8.0  # between being asked to end and being ended
LOOK_S = 0.1  # between two looks at whether to stop
MEMORY_S = 1.0  # between two looks at the memory
DRAIN_S = 5.0  # for what the ended processes had still written
WAITING = 1000  # pieces of output that wait to be looked at; then the command waits
PIECE = 1 << 16  # bytes


@dataclass(frozen=True)
class Ending:
    """How a command ended. ``status``: its exit status, negative for the signal that ended it."""

    status: int
    was_stopped: bool  # since it was asked to
    peak_bytes: int  # resident, of all its processes together; 0 where they were not seen


def run_command(
    launch: Launch, folder: Path, on_output: Callable[[bytes], None], should_stop: Callable[[], bool]
) -> Ending:
    """Run a command in ``folder``, which hears its standard output and error as they come, in pieces.

    Once ``should_stop()`` is true it gets SIGTERM and, ``GRACE_S`` later, SIGKILL. Nothing of its processes is left,
    whether it ends well, fails, or an exception passes through here. Raises ``MethodFailed`` where it cannot be
    started.
    """
    with _watched_group(launch.end) as group:
        try:
            process = subprocess.Popen(
                launch.words,
                cwd=folder,
                env=dict(launch.variables),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=group,
            )
        except OSError as error:
            raise MethodFailed(
                f"the command {shlex.join(launch.words)[:200]} cannot be started: {reason_of(error)}"
            ) from error
        assert process.stdout is not None
        pieces: queue.Queue[bytes] = queue.Queue(WAITING)
        reader = threading.Thread(target=_read, args=(process.stdout, pieces), daemon=True)
        reader.start()
        try:
            return _followed(process, group, launch, reader, pieces, on_output, should_stop)
        finally:
            _end(group, launch.end)
            process.wait()
            for _ in _until_drained(reader, pieces):  # whom a full queue may keep waiting
                pass
            if not reader.is_alive():  # else somebody who left the group holds the other end, unseen
                process.stdout.close()


def _followed(
    process: subprocess.Popen[bytes],
    group: int,
    launch: Launch,
    reader: threading.Thread,
    pieces: queue.Queue[bytes],
    on_output: Callable[[bytes], None],
    should_stop: Callable[[], bool],
) -> Ending:
    """Listen to a command until it ends, or has to."""
    asked_at: float | None = None
    looked_at, peak = 0.0, 0
    seen: set[psutil.Process] = set()
    while process.poll() is None:
        with contextlib.suppress(queue.Empty):
            on_output(pieces.get(timeout=LOOK_S))
        now = time.monotonic()
        if now - looked_at >= MEMORY_S:
            processes = family(process.pid)
            looked_at, peak = now, max(peak, resident_bytes(processes))
            seen.update(processes)
        if asked_at is None and should_stop():
            asked_at = now
            os.killpg(group, signal.SIGTERM)
        elif asked_at is not None and now - asked_at > GRACE_S:
            _end(group, launch.end)
            process.wait()
    _end(group, launch.end)  # what it left running holds the pipe open, and the group
    for each in seen:  # what has left the group
        with contextlib.suppress(psutil.Error):
            each.kill()
    for piece in _until_drained(reader, pieces):
        on_output(piece)
    return Ending(process.returncode, asked_at is not None, peak)


@contextmanager
def _watched_group(end: tuple[str, ...]) -> Iterator[int]:
    """The number of a new process group, which ends with this block, and with this process."""
    last = f"{shlex.join(end)} >/dev/null 2>&1; " if end else ""
    # what the command is told, the shell is not to hear
    script = f"trap '' TERM INT HUP; cat >/dev/null; {last}kill -KILL 0"
    watcher = subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, process_group=0)
    assert watcher.stdin is not None
    try:
        yield watcher.pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(watcher.pid, signal.SIGKILL)
        watcher.wait()
        watcher.stdin.close()


def _end(group: int, end: tuple[str, ...]) -> None:
    """End every process of a group at once, and what the command ``end`` ends."""
    if end:
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):  # the program was there to start it
            subprocess.run(end, stdin=subprocess.DEVNULL, capture_output=True, timeout=GRACE_S, check=False)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _read(stream: IO[bytes], pieces: queue.Queue[bytes]) -> None:
    with contextlib.suppress(OSError, ValueError):  # closed
        while piece := os.read(stream.fileno(), PIECE):
            pieces.put(piece)


def _until_drained(reader: threading.Thread, pieces: queue.Queue[bytes]) -> Iterator[bytes]:
    """What ended processes had still written, for ``DRAIN_S`` at most."""
    until = time.monotonic() + DRAIN_S
    while (reader.is_alive() or not pieces.empty()) and time.monotonic() < until:
        with contextlib.suppress(queue.Empty):
            yield pieces.get(timeout=LOOK_S)
