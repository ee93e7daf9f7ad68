"""What a file system can do that results and the cache rest upon, found out by trying."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path


def abilities(folder: Path) -> list[str]:
    """What can be said of the file system of ``folder``, a phrase each: room, locks, renames. Leaves nothing there.

    Of a folder that is not there yet, the nearest one above it is tried.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())
    try:
        trial = Path(tempfile.mkdtemp(prefix=".stbench-doctor-", dir=there))
    except OSError as error:
        return [f"nothing can be written to {there}: {(error.strerror or str(error)).lower()}"]
    try:
        room = shutil.disk_usage(trial).free / 2**30
        return [f"{room:.1f} GiB free", _locks(trial), _renames(trial)]
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _locks(folder: Path) -> str:
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"no file locks ({(error.strerror or str(error)).lower()}): marker files stand for them in the cache"
    finally:
        os.close(handle)
    return "file locks"


def _renames(folder: Path) -> str:
    """Attempts become trials, and commands own a directory, by renames that fail where something is already."""
    for name in ("one", "other"):
        (folder / name).mkdir()
        (folder / name / "file").touch()
    try:
        os.rename(folder / "one", folder / "other")
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return "renames that fail where something is"
        return f"renames of folders fail ({(error.strerror or str(error)).lower()}): keep results elsewhere"
    return "renames replace folders that are not empty: keep results elsewhere, or run one process at a time"
