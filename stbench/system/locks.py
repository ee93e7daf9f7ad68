"""One process at a time: locks of the operating system, and a marker file where a file system has none.

NFS without its lock daemon, some FUSE and parallel file systems refuse locks. There a second file stands for the lock:
that it exists says that the lock is taken, and it names the holder's process and host (``filelock.SoftFileLock``). One
that a process of this host left when it died is taken over; one of another host cannot be judged from here, so whoever
waits says after a while what to delete.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from ..errors import PlaceError

log = logging.getLogger("stbench")

NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS})
MARKER_WAIT_S = 600.0  # longer than any slide takes to be prepared

__all__ = ["Timeout", "is_locked", "locked"]


@contextmanager
def locked(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold the lock ``path``, waiting for it up to ``timeout`` seconds (negative: as long as it takes).

    Raises ``filelock.Timeout`` after that time; ``PlaceError`` where the file system has no locks and the marker that
    stands for one stays where it is.
    """
    lock = _acquired(path, timeout)
    try:
        yield
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock ``path``. Writes nothing, so it can be asked of a place that is read-only."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return _is_marked(path)
    try:
        return _try(handle, fcntl.LOCK_SH) == errno.EWOULDBLOCK or _is_marked(path)  # shared: open for reading alone
    finally:
        os.close(handle)


def _try(handle: int, kind: int) -> int | None:
    """Ask for a lock and give it back: ``None`` where it was given, EWOULDBLOCK, or one of ``NO_LOCKS``."""
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return errno.EWOULDBLOCK
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return error.errno
    fcntl.flock(handle, fcntl.LOCK_UN)
    return None


def _acquired(path: Path, timeout: float) -> BaseFileLock:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        refusal = _try(handle, fcntl.LOCK_EX)  # the kind that is wanted: some file systems give the shared one alone
    finally:
        os.close(handle)
    if refusal in NO_LOCKS:
        _say_once(path.parent, os.strerror(refusal))
        return _marked(path, timeout)
    lock = FileLock(path, timeout=timeout)
    lock.acquire()
    return lock


def _marked(path: Path, timeout: float) -> BaseFileLock:
    marker = SoftFileLock(_marker(path), timeout=timeout if timeout >= 0 else MARKER_WAIT_S)
    try:
        marker.acquire()
    except Timeout:
        if timeout >= 0:
            raise
        holder = " ".join(_marker(path).read_text(encoding="utf-8", errors="replace").split())
        raise PlaceError(
            f"waited {MARKER_WAIT_S:.0f} s for {_marker(path)}, which stands for a lock of process {holder} - if that "
            "process is no more, delete the file; or choose a place with locks (--out, STBENCH_CACHE)"
        ) from None
    return marker


def _is_marked(path: Path) -> bool:
    marker = _marker(path)
    if not marker.exists():
        return False
    try:
        with SoftFileLock(marker, timeout=0):  # takes over what a dead process of this host left
            return False
    except (Timeout, OSError):
        return True


def _marker(path: Path) -> Path:
    """Not the lock's own name: an attempt to lock that is refused leaves an empty file there."""
    return path.with_name(f"{path.name}.marker")


@cache
def _say_once(folder: Path, reason: str) -> None:
    log.warning("note: %s has no file locks (%s); marker files stand for them", folder, reason)
