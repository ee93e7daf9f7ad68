"""Writing files so that a reader never sees half of one, and naming content by its digest."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DamagedFileError, PlaceError, UserError, text_of

SETTLED_S = 2.0  # the coarsest clock of a file system in use (FAT) ticks this often
_digests: dict[Path, tuple[tuple[int, ...], str]] = {}  # of this process: path to stamp and digest


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success rename it onto ``path``, on any error remove it.

    The temporary name keeps the suffix, so that writers which look at it (pandas, matplotlib, anndata) behave.
    """
    path = Path(path)
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
        # as any other file of the user's: umask and what the folder passes on decide who may read it
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        try:
            with writing_to(path):  # while what was written still takes its room
                yield temporary
            flush(temporary)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or every file below a folder, is on the disk.

    A name may reach the disk before the content: after a power cut a renamed file would be there and empty.
    """
    for file in path.rglob("*") if path.is_dir() else (path,):
        if file.is_file():
            with open(file, "rb") as handle:
                os.fsync(handle.fileno())


@contextlib.contextmanager
def replacing_directory(path: Path) -> Iterator[Path]:
    """As :func:`replacing`, for a directory: an existing ``path`` is replaced only when the new one is complete."""
    path = Path(path)
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        temporary.mkdir()
        try:
            with writing_to(path):
                yield temporary
            if path.exists():
                old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}-old-"))
                os.replace(path, old / path.name)
                os.replace(temporary, path)
                shutil.rmtree(old)
            else:
                os.replace(temporary, path)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


REFUSALS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota (of disk space or of files) is used up",
    errno.EFBIG: "the file is larger than the file system allows",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EROFS: "the file system is read-only",
    errno.EIO: "the disk reports an error (input/output error)",
    errno.ESTALE: "the network file system lost it (stale file handle)",
    errno.EISDIR: "it is a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ELOOP: "the path is a loop of symbolic links",
}
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OF_THE_PLACE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE)  # no program is to blame for these
# as libraries quote the system in errors of their own: safetensors (Rust), HDF5, pyarrow and Python
QUOTED_ERRNO = re.compile(r"os error (\d+)|errno = (\d+)|\[errno (\d+)\]", re.IGNORECASE)
# a write that took less than it was given, of numpy and of torch's writer of zip archives: neither says why
SHORT_WRITE = re.compile(r"\d+ requested and \d+ written|unexpected pos \d+ vs \d+|PytorchStreamWriter failed writing")
PROBE_BYTES = 1 << 20


@contextlib.contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Turn a full disk, a read-only place or a missing permission into one line that names ``path``.

    Also where a library has put the system's error into words of its own.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        number = refused_errno(error, path)
        if number is None:
            raise
        raise PlaceError(f"cannot {_place(error, path)}: {_refusal(number, path)}") from error


def refused_errno(error: BaseException, place: Path) -> int | None:
    """The errno with which the system refused what was written, out of ``error`` or what it was raised from.

    ``None`` where the error is of another kind. ``place`` is asked where a library tells a write cut short and no more.
    """
    for one in _chain(error):
        quoted = QUOTED_ERRNO.search(text_of(one))
        number = getattr(one, "errno", None)
        if not isinstance(number, int) and quoted is not None:
            number = int(next(filter(None, quoted.groups())))
        if number in REFUSALS:
            return number
    if any(SHORT_WRITE.search(text_of(one)) for one in _chain(error)):
        return _probe(place) or errno.ENOSPC
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _probe(place: Path) -> int | None:
    """The errno that writing a little beside ``place`` meets now."""
    folder = next(parent for parent in (place, *place.parents) if parent.is_dir())
    try:
        with tempfile.TemporaryFile(dir=folder) as handle:
            handle.write(bytes(PROBE_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        return error.errno if error.errno in REFUSALS else None
    return None


def _place(error: BaseException, path: Path) -> str:
    """``write PATH``, or the file elsewhere that the system named."""
    named = getattr(error, "filename", None)
    if not isinstance(named, str | os.PathLike):
        return f"write {path}"
    other = Path(named)
    nearby = path in (other, *other.parents) or path.parent == other.parent  # within it, or a temporary name beside it
    return f"write {path}" if nearby else f"use {other}"


def _refusal(number: int, path: Path) -> str:
    """What the place refused, and what to do about it."""
    reason, room = REFUSALS[number], "make room, or " if number in FULL else ""
    if number == errno.ENOSPC and _lacks_inodes(path):
        reason, room = "the file system can hold no more files (its inodes are used up)", "delete files, or "
    return f"{reason} - {room}choose another place (--out, STBENCH_CACHE); the same command then goes on"


def _lacks_inodes(path: Path) -> bool:
    """Whether the file system of ``path`` has room for bytes and for no further file."""
    there = next((place for place in (path, *path.absolute().parents) if os.path.exists(place)), None)
    if there is None:
        return False
    found = os.statvfs(there)
    # f_files is 0 where inodes are made as needed
    return found.f_files > 0 and found.f_favail == 0 and found.f_bavail * found.f_frsize >= 2**20


def write_text(path: Path, text: str) -> None:
    """Write UTF-8, whatever the locale; bytes of a file's name that are no text (lone surrogates) as ``\\udcff``."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, allow_nan=False, default=str) + "\n")


CUT_S, CUT_LOOKS = 0.1, 5  # between two looks at a file that ends early, and how many
ANEW = "restore it, or delete it to have it made again"


def read_json(path: Path, way_out: str = ANEW) -> Any:
    """What a JSON file holds. ``UserError``, which ends in ``way_out``, where it cannot be read.

    One that ends early is looked at again: a network file system may show a file that was replaced just now with its
    new content and its old length.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        for _ in range(CUT_LOOKS):
            if text.endswith("\n") or text.rstrip().endswith(("}", "]")):
                break
            time.sleep(CUT_S)
            text = Path(path).read_text(encoding="utf-8")
        return json.loads(text, parse_constant=_no_number)
    except OSError as error:
        raise DamagedFileError(
            f"{path} cannot be read ({(error.strerror or str(error)).lower()}) - {way_out}"
        ) from error
    except (ValueError, RecursionError) as error:  # what is no text is a ValueError too
        raise DamagedFileError(f"{path} is not valid JSON ({error}) - {way_out}") from error


def read_object(path: Path, way_out: str = ANEW) -> dict[str, Any]:
    """As :func:`read_json`, where the file must hold an object (``{...}``)."""
    content = read_json(path, way_out)
    if not isinstance(content, dict):
        raise DamagedFileError(f"{path} holds {_KINDS.get(type(content), 'a value')}, not an object - {way_out}")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")


_KINDS: dict[type, str] = {list: "a list", str: "a text", int: "a number", float: "a number", type(None): "null"}


@contextlib.contextmanager
def reading_tensors(path: Path) -> Iterator[None]:
    """Turn what a missing, cut or foreign .safetensors file raises into one line that names ``path``."""
    from safetensors import SafetensorError

    try:
        yield
    except (SafetensorError, OSError) as error:
        raise DamagedFileError(
            f"{path} cannot be read ({' '.join(str(error).split())}) - restore it, or train again"
        ) from error


def file_digest(path: Path) -> str:
    """BLAKE2b-128 of a file's content, as hexadecimal.

    A file is read once in a process, for as long as its path, size, and times of change stay what they were. One that
    was changed within the last ``SETTLED_S`` seconds is read every time: another change could fall on the same tick of
    its file system's clock.
    """
    path = Path(path).absolute()
    with open(path, "rb") as handle:
        stamp = _stamp(os.fstat(handle.fileno()))
        known = _digests.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        digest = hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        after = os.fstat(handle.fileno())
    if _stamp(after) == stamp and time.time() - max(after.st_mtime, after.st_ctime) > SETTLED_S:
        _digests[path] = (stamp, digest)
    else:
        _digests.pop(path, None)
    return digest


def _stamp(of: os.stat_result) -> tuple[int, ...]:
    """What changes with a file's content; whoever writes cannot set back the second of its times."""
    return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns


def value_digest(value: Any) -> str:
    """BLAKE2b-128 of a JSON-able value in canonical form (sorted keys, no blanks), as hexadecimal."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
