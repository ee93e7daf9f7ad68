"""Taking wanted files out of an archive that nobody vouches for.

Nothing is extracted by the archive's own word: names are looked at, links and devices are never made, and what is read
is counted. Only wanted members are written, into a temporary folder, and moved from there when all have come.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ..errors import UserError
from ..system.files import flush, writing_to
from .archives import Member, bomb, most_bytes, open_archive
from .checksums import copy_counting
from .encrypted import Passwords
from .patterns import Pattern
from .room import require_room


@dataclass(frozen=True)
class Unpacked:
    """A member that was put in its place."""

    path: str  # within the archive, and below the folder that it was put into
    slice: str
    bytes: int
    sha256: str


def unpack(
    archive: Path,
    into: Path,
    work: Path,
    patterns: Sequence[Pattern],
    passwords: Passwords | None = None,
    at: Callable[[int, int | None], None] = lambda done, total: None,
) -> list[Unpacked]:
    """Put the members that match a pattern below ``into``, under their own paths.

    Parameters
    ----------
    archive : Path
        tar, tar.gz or zip.
    into : Path
        Where members go: all of them, or none.
    work : Path
        A folder of the same file system, for what is not complete yet.
    patterns : sequence of Pattern
        Those that are required must be matched.
    passwords : Passwords, optional
        For archives that are encrypted.
    at : callable
        Hears of bytes unpacked so far, and ``None`` for how many there will be.

    Raises
    ------
    UserError
        If the archive is damaged or lacks a member, if a name in it leads out of ``into``, if a wanted member is not a
        plain file, or if more comes out than an archive of tables and pictures can hold.
    """
    unpacked: dict[str, Unpacked] = {}
    matched: set[Pattern] = set()
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work, prefix="unpacking-") as name:
        folder = Path(name)
        with open_archive(archive, passwords or Passwords()) as found:
            room, done = most_bytes(archive), 0
            for member in found:
                path = safe_path(member.name, archive)
                hits = [pattern for pattern in patterns if pattern.matches(path)]
                if not hits:
                    continue
                if member.kind != "file":
                    raise UserError(f"{archive}: {path} is a {member.kind}, not a file - do not use this archive")
                if path.casefold() in map(str.casefold, unpacked):
                    raise UserError(f"{archive} holds {path} twice - do not use this archive")
                if done + member.size > room:
                    raise bomb(archive)
                unpacked[path] = _write(member, path, folder, archive, hits[0].slice)
                matched.update(hits)
                done += member.size
                at(done, None)
        lacking = next((pattern for pattern in patterns if pattern.required and pattern not in matched), None)
        if lacking is not None:
            raise UserError(
                f"{archive} holds no {lacking.text}, which slice {lacking.slice} needs - is it the right archive?"
            )
        flush(folder)
        for path in unpacked:
            with writing_to(into / path):
                (into / path).parent.mkdir(parents=True, exist_ok=True)
                os.replace(folder / path, into / path)
    return list(unpacked.values())


def _write(member: Member, path: str, folder: Path, archive: Path, name: str) -> Unpacked:
    require_room(folder, member.size)
    target = folder / path
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with member.open() as source, open(target, "wb") as handle:
            size, sha256 = copy_counting(source, handle, most=member.size)
    if size != member.size:
        raise UserError(
            f"{archive}: {path} has {'more' if size > member.size else 'fewer'} bytes than the {member.size:,} that "
            "the archive states - it is damaged; delete it, and the same command fetches it again"
        )
    return Unpacked(path, name, size, sha256)


def safe_path(name: str, archive: Path) -> str:
    """The path of a member below whatever folder it is put into.

    Raises ``UserError`` for one that leads out of it, on any system: an archive that holds such a name is not used at
    all.
    """
    parts = PurePosixPath(name).parts
    if (
        name.startswith(("/", "\\"))
        or "\\" in name
        or ".." in parts
        or re.match(r"[A-Za-z]:", name)
        or any(ord(character) < 32 for character in name)
    ):
        raise UserError(
            f"{archive} holds a member that would be put elsewhere ({name[:80]!r}) - do not use this archive"
        )
    return "/".join(parts)
