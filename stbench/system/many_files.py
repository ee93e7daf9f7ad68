"""Many small files in one folder: none is seen half-written, and the disk is waited for once instead of once a file."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any


class ManyFiles:
    """Reads and writes files of one folder.

    When the context ends without an error all of them are on the disk: only then may something name them that is
    itself waited for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = os.fspath(folder)
        self._temporary = os.path.join(self.folder, f".{secrets.token_hex(4)}.json")
        self._wrote = False

    def __enter__(self) -> ManyFiles:
        os.makedirs(self.folder, exist_ok=True)
        self._there = set(os.listdir(self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if os.path.exists(self._temporary):
            os.unlink(self._temporary)
        if self._wrote and error is None:
            sync_file_system(self.folder)

    def read(self, name: str) -> str | None:
        """What the file ``name`` holds; ``None`` where it was not there at the beginning, or is no ASCII."""
        if name not in self._there:
            return None
        with open(os.path.join(self.folder, name), "rb") as there:
            content = there.read()
        return content.decode("ascii") if content.isascii() else None

    def write(self, name: str, text: str) -> None:
        """Write ``text``, which must be ASCII, into the file ``name``."""
        content, path = text.encode("ascii"), os.path.join(self.folder, name)
        if name in self._there:
            _write(self._temporary, content)
            os.replace(self._temporary, path)
        else:  # nothing names it before all are written; what is left of a writer that died is replaced, as above
            _write(path, content)
            self._there.add(name)
        self._wrote = True


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        if file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)


def sync_file_system(folder: str | os.PathLike[str]) -> None:
    """Wait until everything that was written to the file system of ``folder`` is on its disk."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "syncfs"):  # not Linux
        os.sync()
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        if libc.syncfs(handle) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), os.fspath(folder))
    finally:
        os.close(handle)


def laid_out(value: Any, levels: int) -> str:
    """JSON with one field, or entry, on a line down to ``levels``, and each value below on the line of its field.

    Much faster than an indent at every level, which Python's own encoder, not the one in C, has to make.
    """
    return _laid_out(value, levels, "\n") + "\n"


def _laid_out(value: Any, levels: int, newline: str) -> str:
    deeper = newline + "  "
    if levels and value and isinstance(value, Mapping):
        fields = (f"{compact(str(name))}: {_laid_out(each, levels - 1, deeper)}" for name, each in value.items())
        return "{" + deeper + ("," + deeper).join(fields) + newline + "}"
    if levels and value and isinstance(value, list | tuple):
        return "[" + deeper + ("," + deeper).join(_laid_out(each, levels - 1, deeper) for each in value) + newline + "]"
    return compact(value)


compact = json.JSONEncoder(allow_nan=False, default=str).encode
