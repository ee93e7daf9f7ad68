"""The members of a tar or zip archive one after the other, each with what the archive says of it."""

from __future__ import annotations

import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..errors import UserError, reason_of
from .encrypted import Passwords, WrongPassword, broken_aes, is_aes, open_aes, unlock

LARGEST_HEADER = 16 << 20  # bytes that tarfile may ask for at once: names and attributes, never a file's content
MOST_MEMBERS = 100_000
MOST_RATIO = 300  # unpacked to packed, of archives of tables and pictures
FREE_BYTES = 64 << 20  # unpacked bytes up to which the ratio is not looked at
# what the libraries raise of damaged bytes
BROKEN: tuple[type[Exception], ...] = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, struct.error,
    EOFError, ValueError, LookupError, OverflowError, RuntimeError,
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A member as the archive states it; nothing of it has been read."""

    name: str
    kind: str  # "file", "folder", or what else it is, in words
    size: int  # bytes
    open: Callable[[], IO[bytes]]


def most_bytes(archive: Path) -> int:
    """Bytes that may come out of an archive before it is taken for a bomb."""
    return max(FREE_BYTES, MOST_RATIO * archive.stat().st_size)


def bomb(archive: Path) -> UserError:
    return UserError(
        f"{archive} unpacks to more than {MOST_RATIO} times its size, or to {MOST_MEMBERS:,} files - do not use this "
        "archive; tables and pictures do not"
    )


@contextmanager
def open_archive(archive: Path, passwords: Passwords) -> Iterator[Iterator[Member]]:
    """The members of a tar, tar.gz or zip file; the first bytes say which it is, not the name.

    Raises ``UserError`` where it is none of these or is damaged, at whatever moment that is seen.
    """
    try:
        with open(archive, "rb") as handle:
            start = handle.read(4)
            handle.seek(0)
            if start.startswith(b"PK"):
                with _open_zip(archive, passwords) as members:
                    yield members
            elif start.startswith(b"\x1f\x8b"):
                with gzip.open(handle) as unzipped:
                    yield _tar_members(_Bounded(unzipped, archive), archive)
            else:
                yield _tar_members(handle, archive)
    except WrongPassword as error:
        raise UserError(str(error)) from error
    except NotImplementedError as error:  # of zipfile: a compression that Python has not; it is a RuntimeError too
        raise UserError(f"{archive} is packed in a way that Python cannot read - unpack it with 7-Zip") from error
    except BROKEN + broken_aes() as error:
        raise UserError(
            f"{archive} is damaged, or no tar, tar.gz or zip archive ({reason_of(error, 120)}) - delete it, and the "
            "same command fetches it again"
        ) from error


def _tar_members(stream: Any, archive: Path) -> Iterator[Member]:
    # "r:" and not "r|": a stream collects what it skips and headers of any length in memory
    with tarfile.open(fileobj=stream, mode="r:") as tar:
        for number, info in enumerate(tar):
            if number >= MOST_MEMBERS:
                raise bomb(archive)
            yield Member(info.name, _tar_kind(info), info.size, lambda info=info: _opened(tar, info))  # type: ignore[misc]
            tar.members = []  # type: ignore[attr-defined]  # or every header would stay in memory


def _opened(tar: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    handle = tar.extractfile(info)
    assert handle is not None  # of a regular file
    return handle


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issparse():
        return "file with holes"
    if info.isreg():
        return "file"
    if info.isdir():
        return "folder"
    return "link" if info.issym() or info.islnk() else "device"


class _Bounded:
    """A decompressed stream that refuses to be endless, and to give a header that would fill the memory."""

    def __init__(self, stream: gzip.GzipFile, archive: Path) -> None:
        self._stream, self._archive, self._most = stream, archive, most_bytes(archive)

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= LARGEST_HEADER:
            raise bomb(self._archive)
        data = self._stream.read(size)
        self._require(self._stream.tell())
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        if whence == 0:
            self._require(position)
        return self._stream.seek(position, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _require(self, position: int) -> None:
        if position > self._most:
            raise bomb(self._archive)


@contextmanager
def _open_zip(archive: Path, passwords: Passwords) -> Iterator[Iterator[Member]]:
    with zipfile.ZipFile(archive) as opened:
        aes = any(is_aes(info) for info in opened.infolist())
    with open_aes(archive, passwords) if aes else zipfile.ZipFile(archive) as opened:
        yield _zip_members(opened, archive, passwords)


def _zip_members(opened: zipfile.ZipFile, archive: Path, passwords: Passwords) -> Iterator[Member]:
    if len(opened.infolist()) > MOST_MEMBERS:
        raise bomb(archive)
    for info in opened.infolist():
        if info.header_offset < 0:  # zipfile would seek there, and blame the disk
            raise zipfile.BadZipFile(f"{info.filename} is said to begin before the archive does")

        def open_member(info: zipfile.ZipInfo = info) -> IO[bytes]:
            if info.flag_bits & 1:
                unlock(opened, info, archive, passwords)
            return opened.open(info)

        yield Member(info.filename, _zip_kind(info), info.file_size, open_member)


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.is_dir():
        return "folder"
    if stat.S_IFMT(mode) in (0, stat.S_IFREG):
        return "file"
    return "link" if stat.S_ISLNK(mode) else "device"
