"""Where a file is taken from: its publisher, a mirror, or a folder that already has it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from ..errors import UserError
from ..system.files import writing_to
from .catalogue import Wanted
from .checksums import Checksum, Digests, digests
from .room import require_room
from .transfer import Download, Limits

if TYPE_CHECKING:
    import httpx

Say = Callable[[str], None]
At = Callable[[int, "int | None"], None]


class Origin(Protocol):
    """A place that gives out files."""

    def where(self, file: Wanted) -> str:
        """The address or path of a file."""
        ...

    def bring(self, file: Wanted, part: Path, say: Say, at: At) -> tuple[Path, Digests]:
        """Get a file, and verify it: where it now lies (``part``, or where it was), and what was read of it."""
        ...


@dataclass
class Web:
    """The publisher's server, or a mirror that has the files under the paths that they get here."""

    client: httpx.Client
    limits: Limits
    mirror: str | None = None

    def where(self, file: Wanted) -> str:
        return file.url if self.mirror is None else f"{self.mirror.rstrip('/')}/{quote(file.path)}"

    def bring(self, file: Wanted, part: Path, say: Say, at: At) -> tuple[Path, Digests]:
        url = self.where(file)
        page = file.part.page if self.mirror is None else self.mirror
        download = Download(
            self.client, url, part, self.limits, page, file.bytes, file.checksum is not None, say=say, at=at
        )
        for last in (False, True):
            download.run()
            found = digests(part, file.checksum)
            wrong = mismatch(file.checksum, found)
            if wrong is None:
                return part, found
            part.unlink()
            if last:
                raise UserError(
                    f"{url} brought something else than is published, twice ({wrong}) - the file was replaced or is "
                    f"damaged there; see {page}"
                )
            say(f"what came is damaged ({wrong}); once more from the beginning")
        raise AssertionError


@dataclass
class Folder:
    """A folder on this machine or a mounted share; nothing in it is changed."""

    folder: Path
    dataset: str
    link: bool = False

    def find(self, file: Wanted) -> Path | None:
        names = (file.path, f"{self.dataset}/{file.path}", Path(file.path).name)
        return next((self.folder / name for name in names if (self.folder / name).is_file()), None)

    def where(self, file: Wanted) -> str:
        return str(self.find(file) or self.folder / file.path)

    def bring(self, file: Wanted, part: Path, say: Say, at: At) -> tuple[Path, Digests]:
        there = self.find(file)
        if there is None:
            raise UserError(f"{self.folder} has no {file.path} - complete it")
        size = there.stat().st_size
        found = digests(there, file.checksum, lambda done: at(done, size))
        wrong = mismatch(file.checksum, found)
        if wrong is not None:
            raise UserError(f"{there} is not the file that is published ({wrong}) - copy it there again")
        if file.is_archive:  # it is unpacked from where it is
            return there, found
        part.unlink(missing_ok=True)
        if self.link:
            with writing_to(part):
                os.symlink(there.resolve(), part)
            return part, found
        require_room(part.parent, size)
        with writing_to(part):
            shutil.copyfile(there, part)
        if digests(part).sha256 != found.sha256:
            part.unlink()
            raise UserError(f"{there} changed while it was copied, or the copy is damaged - run the same command again")
        return part, found


def mismatch(expected: Checksum | None, found: Digests) -> str | None:
    """What is wrong with what was read, in words; ``None`` where nothing is, or nobody knows."""
    if expected is None or expected == found.published:
        return None
    assert found.published is not None  # it was asked for
    return f"{found.bytes:,} bytes with {expected.kind} {found.published.digest}, not {expected.digest}"
