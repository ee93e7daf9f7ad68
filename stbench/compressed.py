"""Opening files that may or may not be gzipped: the first two bytes decide, never the file's name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .errors import UserError

GZIP_MAGIC = b"\x1f\x8b"


def is_gzipped(path: Path) -> bool:
    with existing(path).open("rb") as handle:
        return handle.read(2) == GZIP_MAGIC


@contextmanager
def open_binary(path: Path) -> Iterator[IO[bytes]]:
    """A seekable binary stream of the file's content, decompressed where it is gzipped."""
    with corrupt_gzip(path):
        if is_gzipped(path):
            with gzip.open(path, "rb") as unzipped:
                yield unzipped  # type: ignore[misc]  # GzipFile is an IO[bytes] in all but name
        else:
            with path.open("rb") as plain:
                yield plain


@contextmanager
def open_text(path: Path) -> Iterator[IO[str]]:
    """As :func:`open_binary`, as UTF-8 text; a byte-order mark is swallowed and universal newlines apply."""
    with open_binary(path) as binary, io.TextIOWrapper(binary, encoding="utf-8-sig") as text:
        try:
            yield text
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path} is not text (byte {error.start} of a block is not UTF-8) - it looks like another kind of file"
            ) from error


@contextmanager
def corrupt_gzip(path: Path) -> Iterator[None]:
    """Turn what a damaged gzip stream raises, at whatever moment, into one line that names the file."""
    try:
        yield
    except (gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path} is a damaged gzip file ({error}) - fetch it again") from error
    except EOFError as error:
        raise UserError(f"{path} ends too early (a truncated gzip file) - fetch it again") from error


def existing(path: Path) -> Path:
    """``path``, if there is a file with something in it."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path} does not exist - check the path, or fetch the file")
    if not path.is_file():
        raise UserError(f"{path} is not a file - give the path of a file")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes) - fetch it again")
        with path.open("rb"):
            return path
    except PermissionError as error:
        raise UserError(f"{path} may not be read (permission denied) - change its permissions") from error
