"""What was fetched: a file beside the data, by which the next fetch knows them again.

Where nobody publishes a checksum, the one that is written here at the first fetch is what later ones are held against.
"""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import DamagedFileError, UserError, first_problem
from ..system.files import read_object, write_json
from .checksums import Checksum, Digests, digests

RECORD = "fetched.json"
WAY_OUT = "restore it, or delete it: what is there is then looked at anew"


@dataclass(frozen=True)
class Entry:
    """One file that was put in its place, or an archive that was unpacked."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    bytes: int
    sha256: str
    changed_ns: int  # time of the last change when it was verified
    origin: str  # address, path, or the archive that it came in
    published: str | None  # the checksum that it was held against
    date: str


ENTRIES = TypeAdapter(dict[str, Entry])


class Record:
    """The entries of one dataset's folder, by path below it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / RECORD
        self.entries: dict[str, Entry] = {}
        if self.file.exists():
            try:
                self.entries = ENTRIES.validate_python(read_object(self.file, WAY_OUT).get("files"))
            except ValidationError as error:
                raise DamagedFileError(
                    f"{self.file} is no record of what was fetched ({first_problem(error)}) - {WAY_OUT}"
                ) from error

    def add(self, path: str, found: Digests, origin: str) -> None:
        """Take up a file; the record is on the disk afterwards."""
        self.add_all({path: (found.bytes, found.sha256)}, origin, found.published)

    def add_all(self, files: dict[str, tuple[int, str]], origin: str, published: Checksum | None = None) -> None:
        """As :meth:`add`, of (bytes, SHA-256) by path; a file may be gone already, such as an unpacked archive."""
        today = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        for path, (size, sha256) in files.items():
            place = self.folder / path
            changed = place.stat().st_mtime_ns if place.exists() else 0
            words = None if published is None else str(published)
            self.entries[path] = Entry(size, sha256, changed, origin, words, today)
        content: dict[str, Any] = {"files": {path: asdict(entry) for path, entry in sorted(self.entries.items())}}
        write_json(self.file, content)

    def is_verified(self, path: str, again: bool = False) -> bool:
        """Whether a file is there and is what was fetched; ``again``: by reading it, not by its size and time.

        Raises ``UserError`` where it is there and has changed.
        """
        place, entry = self.folder / path, self.entries.get(path)
        if entry is None or not place.is_file():
            return False
        found = place.stat()
        if not again and found.st_size == entry.bytes and found.st_mtime_ns == entry.changed_ns:
            return True
        if found.st_size == entry.bytes:
            seen = digests(place)
            if seen.sha256 == entry.sha256:
                self.add_all(
                    {path: (seen.bytes, seen.sha256)},
                    entry.origin,
                    None if entry.published is None else Checksum.parse(entry.published),
                )
                return True
        raise UserError(
            f"{place} has changed since it was fetched on {entry.date[:10]} - move it away, and the same command "
            f"fetches it again; to keep it as it is, delete {self.file}"
        )

    def require_same(self, path: str, found: Digests, origin: str) -> None:
        """``UserError`` where what has come differs from what was fetched the first time."""
        entry = self.entries.get(path)
        if entry is not None and entry.sha256 != found.sha256:
            raise UserError(
                f"{origin} is not what it was on {entry.date[:10]} ({found.bytes:,} bytes with SHA-256 "
                f"{found.sha256[:12]}..., then {entry.bytes:,} with {entry.sha256[:12]}...) - it was replaced there, "
                f"or is damaged; to take the new one, delete {self.file}"
            )
