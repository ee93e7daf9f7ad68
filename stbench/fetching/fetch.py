"""A published dataset, file by file: what is here already, what is fetched, what is unpacked, what is left to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..dataset import Dataset
from ..errors import UserError, unknown
from ..system.files import flush, writing_to
from ..system.locks import Timeout, locked
from ..system.wording import counted, shortened
from .catalogue import ByHand, Catalogue, Source, Wanted, wanted_files
from .checksums import digests
from .encrypted import Passwords
from .published import with_record
from .record import Record
from .room import in_words, require_room
from .sources import Folder, Origin, Web, mismatch
from .transfer import Limits, open_client
from .unpacking import unpack

WORK = ".fetching"  # in the dataset's folder: parts, and the lock
FOUND_HERE = "found here"  # origin of a file that the user put there


class Watch(Protocol):
    """Who is told how it goes."""

    def say(self, text: str) -> None: ...

    def at(self, path: str, done: int, total: int | None) -> None: ...


@dataclass
class Fetching:
    """What is asked for.

    Parameters
    ----------
    dataset : Dataset
        Opened with the data folder that it is to be found in afterwards.
    catalogue : Catalogue
    root : Path
        The data folder; files go into a folder of the dataset's name in it.
    source : str, optional
        Which of the catalogue's sources; the first.
    origin : str, optional
        Address of a mirror, or a folder.
    slices : sequence of str, optional
        Only what these need.
    link : bool
        Of a folder: point at its files instead of copying them.
    verify : bool
        Read what is here already, instead of looking at sizes and times.
    """

    dataset: Dataset
    catalogue: Catalogue
    root: Path
    watch: Watch
    source: str | None = None
    origin: str | None = None
    slices: Sequence[str] | None = None
    link: bool = False
    verify: bool = False
    passwords: Passwords = field(default_factory=Passwords)
    limits: Limits = field(default_factory=Limits)


@dataclass
class Outcome:
    """What a fetch did."""

    n_fetched: int = 0
    n_verified: int = 0
    elsewhere: list[str] = field(default_factory=list)  # slices whose files are found under other names
    lacking: list[str] = field(default_factory=list)  # paths that the folder to copy from does not have
    by_hand: list[ByHand] = field(default_factory=list)


def fetch(asked: Fetching) -> Outcome:
    """Bring what is asked for; every complete file stays, whatever happens to the next.

    Raises
    ------
    UserError
        One line: what could not be had, where it was looked for, and what to do.
    """
    folder = asked.root / asked.dataset.name
    work = folder / WORK
    with writing_to(folder):
        work.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(work / "lock", timeout=0))
        except Timeout:
            asked.watch.say(f"another fetch is at work in {folder}; waiting for it")
            stack.enter_context(locked(work / "lock"))
        return _Fetch(asked, folder, work, stack).run()


class _Fetch:
    def __init__(self, asked: Fetching, folder: Path, work: Path, stack: ExitStack) -> None:
        self.asked, self.folder, self.work, self.stack = asked, folder, work, stack
        self.record = Record(folder)
        self.outcome = Outcome()
        self.say = asked.watch.say

    def run(self) -> Outcome:
        names = list(self.asked.dataset.slices)
        slices = names if self.asked.slices is None else list(self.asked.slices)
        for name in slices:
            if name not in names:
                raise unknown("slice", name, names)
        web = self._web()
        origin: Origin
        if web is not None:
            origin, source = web, self.asked.catalogue.named(self.asked.source)
        else:
            origin, source = self._folder(names, slices)
        slices = self._not_elsewhere(source, names, slices)
        wanted = [file for file in wanted_files(source, names, slices) if not self._is_here(file)]
        if wanted and web is not None and web.mirror is None:
            wanted = with_record(wanted, web.client, self.work, web.limits)
        self._announce(wanted, origin)
        for file in wanted:
            self._bring(file, origin)
        self.outcome.by_hand = [hint for hint in self.asked.catalogue.by_hand if set(hint.slices) & set(slices)]
        return self.outcome

    def _web(self) -> Web | None:
        origin = self.asked.origin
        mirror = origin if origin is not None and origin.startswith(("http://", "https://")) else None
        if origin is not None and mirror is None:
            return None
        client = self.stack.enter_context(open_client(self.asked.limits))
        return Web(client, self.asked.limits, mirror)

    def _folder(self, names: Sequence[str], slices: Sequence[str]) -> tuple[Folder, Source]:
        """The folder, and the source whose files it holds."""
        assert self.asked.origin is not None
        place = Path(self.asked.origin)
        if not place.is_dir():
            raise UserError(f"--from {place} is no folder and no address - give a folder, or https://...")
        folder = Folder(place, self.asked.dataset.name, self.asked.link)
        catalogue = self.asked.catalogue
        sources = catalogue.source if self.asked.source is None else (catalogue.named(self.asked.source),)
        for source in sources:
            if any(folder.find(file) is not None for file in wanted_files(source, names, slices)):
                return folder, source
        looked_for = wanted_files(sources[0], names, slices)[0].path
        raise UserError(
            f"{place} has none of the published files (looked for {looked_for} and others) - see --list for their "
            "paths; if they are unpacked there, give that folder with --data to the other commands, and fetch nothing"
        )

    def _not_elsewhere(self, source: Source, names: Sequence[str], slices: Sequence[str]) -> list[str]:
        """The slices that are not complete already in files that this fetch would not bring."""
        found = {present.id: present.files for present in self.asked.dataset.find()[0]}
        paths = {file.path for file in wanted_files(source, names, names)} | set(self.record.entries)
        ours = {(self.folder / path).absolute() for path in paths}
        elsewhere = [
            name for name in slices if found.get(name) and not any(file.absolute() in ours for file in found[name])
        ]
        self.outcome.elsewhere = elsewhere
        if elsewhere:
            self.say(f"{', '.join(elsewhere)}: complete already, in files of another layout ({found[elsewhere[0]][0]})")
        return [name for name in slices if name not in elsewhere]

    def _is_here(self, file: Wanted) -> bool:
        if file.is_archive:
            here = all(self._has(file, name) for name in file.slices)
            self.outcome.n_verified += here
            return here
        here = self.record.is_verified(file.path, self.asked.verify) or self._adopt(file)
        self.outcome.n_verified += here
        return here

    def _has(self, file: Wanted, name: str) -> bool:
        """Whether all that one slice needs of an archive is unpacked."""
        members = [path for path, entry in self.record.entries.items() if entry.origin == file.path]
        below = f"{file.into}/" if file.into else ""
        for pattern in file.patterns([name]):
            hits = [path for path in members if path.startswith(below) and pattern.matches(path.removeprefix(below))]
            if not all(self.record.is_verified(path, self.asked.verify) for path in hits):
                return False
            if pattern.required and not hits:
                return False
        return file.path in self.record.entries

    def _adopt(self, file: Wanted) -> bool:
        """Take up a file that lies in its place without a word in the record: downloaded or cloned by the user."""
        place = self.folder / file.path
        if not place.is_file():
            return False
        found = digests(place, file.checksum)
        wrong = mismatch(file.checksum, found)
        if wrong is None and file.checksum is None and file.bytes not in (None, found.bytes):
            wrong = f"{found.bytes:,} bytes, not {file.bytes:,}"
        if wrong is not None:
            raise UserError(f"{place} is not the file that is published ({wrong}) - move it away")
        self.record.add(file.path, found, FOUND_HERE)
        self.say(
            f"{file.path}: it was here already ({'verified' if file.checksum else 'its checksum is recorded now'})"
        )
        return True

    def _announce(self, wanted: Sequence[Wanted], origin: Origin) -> None:
        if not wanted:
            return
        known = sum(file.bytes or 0 for file in wanted)
        n_unknown = sum(file.bytes is None for file in wanted)
        sizes = [in_words(known)] if known else []
        sizes += [f"{counted(n_unknown, 'size')} not published"] if n_unknown else []
        self.say(f"fetching {counted(len(wanted), 'file')} ({' and '.join(sizes)}) into {self.folder}")
        for part in {file.part.title: file.part for file in wanted}.values():
            self.say(f"{part.title}; licence: {part.licence}")
        unchecked = [file.path for file in wanted if file.checksum is None]
        if unchecked:
            self.say(
                f"checksum not published of {counted(len(unchecked), 'file')} ({shortened(unchecked, 1)}): recorded at "
                "the first fetch, compared at the next"
            )
        require_room(self.folder, known)

    def _bring(self, file: Wanted, origin: Origin) -> None:
        if isinstance(origin, Folder) and origin.find(file) is None:
            self.outcome.lacking.append(file.path)
            return
        place = self.folder / file.path
        if file.is_archive and (self.record.is_verified(file.path, self.asked.verify) or self._adopt(file)):
            self._unpack(file, place)
            return
        part = self.work / f"{file.path.replace('/', '__')}.part"
        lies, found = origin.bring(
            file, part, lambda text: self.say(f"{file.path}: {text}"), lambda *at: self.asked.watch.at(file.path, *at)
        )
        self.record.require_same(file.path, found, origin.where(file))
        self.outcome.n_fetched += 1
        if lies != part:
            self.record.add(file.path, found, origin.where(file))
            self._unpack(file, lies)
            return
        with writing_to(place):
            place.parent.mkdir(parents=True, exist_ok=True)
            if not part.is_symlink():
                flush(part)
            os.replace(part, place)
        part.with_name(f"{part.name}.json").unlink(missing_ok=True)
        self.record.add(file.path, found, origin.where(file))
        if file.is_archive:
            self._unpack(file, place)

    def _unpack(self, file: Wanted, archive: Path) -> None:
        into = self.folder / file.into
        self.asked.passwords.printed = file.part.passwords
        unpacked = unpack(
            archive,
            into,
            self.work,
            file.patterns(file.slices),
            self.asked.passwords,
            lambda *at: self.asked.watch.at(f"unpacking {file.path}", *at),
        )
        paths = {str((into / one.path).relative_to(self.folder)): (one.bytes, one.sha256) for one in unpacked}
        self.record.add_all(paths, file.path)
        ours = archive.parent == (self.folder / file.path).parent
        if not ours or self.record.entries[file.path].origin == FOUND_HERE:
            return
        if all(self._has(file, name) for name in file.all_slices):
            archive.unlink()
        else:
            self.say(f"{file.path} is kept for the other slices")
