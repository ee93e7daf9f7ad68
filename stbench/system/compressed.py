"""Opening files that may or may not be gzipped: the first two bytes decide, never the file's name."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ..errors import UserError
from .user_paths import unset_variables

GZIP_MAGIC = b"\x1f\x8b"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")  # UTF-32 begins with the same, or with zeros
HEAD = 4096
# what stands in a clone instead of a large file: its first bytes, who put it there, what fetches the file
POINTERS = (
    (b"version https://git-lfs.github.com/spec/", "Git LFS", "git lfs pull"),
    (b"version https://hawser.github.com/spec/", "Git LFS", "git lfs pull"),  # its name before 2015, still valid
    (b"/annex/objects/", "git-annex", "git annex get"),
)
POINTER_BYTES = 64


def is_gzipped(path: Path) -> bool:
    with existing(path).open("rb") as handle:
        return handle.read(2) == GZIP_MAGIC


def is_parquet(path: Path) -> bool:
    """Whether a file, which may be gzipped, holds Parquet, whatever it is called."""
    with open_binary(existing(path)) as stream:
        return stream.read(4) == b"PAR1"


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
    with open_binary(path) as binary:
        _require_no_utf_16(path, binary.read(HEAD))
        binary.seek(0)
        with io.TextIOWrapper(binary, encoding="utf-8-sig") as text:
            try:
                yield text
            except UnicodeDecodeError as error:
                wrong = error.object[error.start : error.end].hex(" ")
                raise UserError(
                    f"{path} is not text in UTF-8 (it has the byte {wrong}) - if it is text, save it as UTF-8; else it "
                    "is another kind of file"
                ) from error


def _require_no_utf_16(path: Path, head: bytes) -> None:
    """Spreadsheets ("Unicode text") and PowerShell (``>``) write UTF-16, which as UTF-8 is nonsense or an error."""
    even, odd = head[::2].count(0), head[1::2].count(0)  # of a Latin letter in UTF-16 one of the two bytes is zero
    if head.startswith(UTF_16_MARKS) or abs(even - odd) > len(head) / 4:
        raise UserError(f"{path} is text in UTF-16, not UTF-8 - save it as UTF-8")
    if even or odd:
        raise UserError(f"{path} is not text (it holds zero bytes) - it looks like another kind of file")


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
    """``path``, if there is a file with something in it that may be read, and that is no pointer to the file."""
    path = Path(path)
    try:
        if not path.exists():
            raise UserError(f"{path} does not exist{unset_variables(path)} - check the path, or fetch the file")
        if not path.is_file():
            raise UserError(f"{path} is not a file - give the path of a file")
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes) - fetch it again")
        with path.open("rb") as handle:
            start = handle.read(POINTER_BYTES)
    except PermissionError as error:
        raise UserError(f"{path} may not be read (permission denied) - change its permissions") from error
    except OSError as error:  # too long a path, a disk that fails, a network file system that lost the file
        raise UserError(f"{path} cannot be read ({(error.strerror or str(error)).lower()}) - check it") from error
    for magic, kind, command in POINTERS:
        if start.startswith(magic):
            raise UserError(f"{path} is a {kind} pointer, not the file itself - run '{command}' in its repository")
    return path


def locked_hdf5(path: Path) -> UserError:
    """For HDF5's ``BlockingIOError``: nothing is wrong with the file."""
    return UserError(
        f"{path} is open for writing in another program, which holds its lock - close it there, and try again"
    )
