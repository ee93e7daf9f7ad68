"""What a dataset's TOML file says of where its files are published."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from ..errors import UserError, first_problem, unknown
from .checksums import Checksum
from .patterns import Pattern


def _relative(path: str) -> str:
    """A path that stays below the folder that it is relative to."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path:
        raise ValueError(f"'{path}' is no path below the dataset's folder")
    return path


RelativePath = Annotated[str, AfterValidator(_relative)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedFile(_Table):
    """A file, or an archive of which ``members`` are wanted: patterns in which ``{slice}`` stands for a slice."""

    path: RelativePath
    slices: tuple[str, ...] = ()  # that need it; empty: all slices of its part
    bytes: int | None = None
    checksum: str | None = None  # "sha256:...", "md5:...", "git-blob:..."; absent where nobody publishes one
    members: tuple[str, ...] = ()  # each must be there for every slice
    optional_members: tuple[str, ...] = ()
    into: RelativePath | None = None  # folder in which members are put, below the part's; default: the part's


class Part(_Table):
    """Files that one publisher gives out under one address and licence."""

    title: str
    page: str  # for people
    licence: str
    base: str  # what the files' paths are appended to
    files: tuple[PublishedFile, ...]
    folder: RelativePath | None = None  # below the dataset's, where the files are put; a mirror has it too
    record: str | None = None  # a Zenodo record, which states sizes and checksums when asked
    passwords: str | None = None  # where those of encrypted archives are printed
    slices: tuple[str, ...] = ()  # empty: all of the dataset


class Source(_Table):
    """One complete way to the data."""

    name: str
    part: tuple[Part, ...]


class ByHand(_Table):
    """What no program can fetch: a login, a form, a page."""

    what: str
    slices: tuple[str, ...]
    page: str
    why: str
    put: str  # where


class Catalogue(_Table):
    source: tuple[Source, ...]
    by_hand: tuple[ByHand, ...] = ()

    def named(self, name: str | None) -> Source:
        """The source of a name; the first is the default."""
        if name is None:
            return self.source[0]
        for source in self.source:
            if source.name == name:
                return source
        raise unknown("source", name, [source.name for source in self.source])


@dataclass(frozen=True)
class Wanted:
    """A file to be fetched, for the slices that were asked for."""

    path: str  # below the dataset's folder, and below a mirror
    url: str
    part: Part
    file: PublishedFile
    bytes: int | None
    checksum: Checksum | None
    slices: tuple[str, ...]
    all_slices: tuple[str, ...]  # of the dataset that have something in it
    into: str  # folder of an archive's members, below the dataset's; "" is that itself

    @property
    def is_archive(self) -> bool:
        return bool(self.file.members or self.file.optional_members)

    def patterns(self, slices: Sequence[str]) -> list[Pattern]:
        """What is to be taken out of an archive for some slices."""
        kinds = ((self.file.members, True), (self.file.optional_members, False))
        return [
            Pattern(text.replace("{slice}", name), name, required)
            for texts, required in kinds
            for name in slices
            for text in texts
        ]


def load(file: Traversable) -> Catalogue:
    """The catalogue in a TOML file; ``UserError`` where it is not one."""
    try:
        return Catalogue.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        reason = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise UserError(f"{file} does not say where the dataset is published ({reason}) - correct it") from error


def wanted_files(source: Source, all_slices: Sequence[str], slices: Sequence[str]) -> list[Wanted]:
    """The files of a source that ``slices`` of ``all_slices`` need, in the catalogue's order."""
    wanted = []
    for part in source.part:
        of_part = part.slices or tuple(all_slices)
        for file in part.files:
            of_file = file.slices or of_part
            needed = tuple(name for name in slices if name in of_file)
            if not needed:
                continue
            if file.optional_members and not file.members:  # whether a slice has some is seen in the archive alone
                needed = of_file
            folder = PurePosixPath(part.folder or "")
            wanted.append(
                Wanted(
                    path=str(folder / file.path),
                    url=part.base + file.path,
                    part=part,
                    file=file,
                    bytes=file.bytes,
                    checksum=None if file.checksum is None else Checksum.parse(file.checksum),
                    slices=needed,
                    all_slices=of_file,
                    into=str(folder / (file.into or "")).removeprefix("."),
                )
            )
    return wanted
