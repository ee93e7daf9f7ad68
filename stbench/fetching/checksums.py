"""Checksums in the forms in which they are published."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import UserError

CHUNK = 1 << 20
HEX_DIGITS = {"md5": 32, "sha1": 40, "git-blob": 40, "sha256": 64, "sha512": 128}


@dataclass(frozen=True)
class Checksum:
    """A digest and how it is computed.

    ``git-blob`` is the name under which git keeps a file: SHA-1 of ``blob SIZE``, a zero byte and the content.

    Examples
    --------
    >>> print(Checksum.parse("md5:D41D8CD98F00B204E9800998ECF8427E"))
    md5:d41d8cd98f00b204e9800998ecf8427e
    """

    kind: str
    digest: str

    @classmethod
    def parse(cls, text: str) -> Checksum:
        kind, _, digest = text.partition(":")
        digest = digest.strip().lower()
        if kind not in HEX_DIGITS or not re.fullmatch(rf"[0-9a-f]{{{HEX_DIGITS.get(kind, 0)}}}", digest):
            raise UserError(f"'{text[:80]}' is no checksum - write {', '.join(HEX_DIGITS)}, a colon and its digits")
        return cls(kind, digest)

    def __str__(self) -> str:
        return f"{self.kind}:{self.digest}"


@dataclass(frozen=True)
class Digests:
    """Of one reading of a file."""

    bytes: int
    sha256: str  # which the record keeps of every file
    published: Checksum | None  # in the form in which the publisher states it


def digests(file: Path, expected: Checksum | None = None, on_progress: Callable[[int], None] | None = None) -> Digests:
    """Read a file once; ``expected`` says which form is wanted beside SHA-256, ``on_progress`` hears of bytes."""
    size = file.stat().st_size
    kind = None if expected is None or expected.kind == "sha256" else expected.kind
    sha256 = hashlib.sha256()
    other = None if kind is None else hashlib.new("sha1" if kind == "git-blob" else kind, usedforsecurity=False)
    if other is not None and kind == "git-blob":
        other.update(b"blob %d\0" % size)
    done = 0
    with open(file, "rb") as handle:
        while chunk := handle.read(CHUNK):
            sha256.update(chunk)
            if other is not None:
                other.update(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done)
    published = None
    if expected is not None:
        published = Checksum(expected.kind, sha256.hexdigest() if other is None else other.hexdigest())
    return Digests(done, sha256.hexdigest(), published)


def copy_counting(source: IO[bytes], target: IO[bytes], most: int) -> tuple[int, str]:
    """Copy a stream; its bytes and SHA-256. One byte more than ``most`` is read at the utmost."""
    sha256, done = hashlib.sha256(), 0
    while chunk := source.read(min(CHUNK, most - done + 1)):
        done += len(chunk)
        if done > most:
            break
        sha256.update(chunk)
        target.write(chunk)
    return done, sha256.hexdigest()
