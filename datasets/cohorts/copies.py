"""Copies of a section's files, laid out as the originals, so that the same reader reads them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from stbench.errors import UserError
from stbench.system.files import writing_to

from ..own_dataset import source_of
from ..readers.table import READERS


def copied(entry: Mapping[str, Any], home: Path) -> dict[str, Any]:
    """``entry`` with its files copied below ``home``, an empty folder: ``home/KEY/NAME`` for the path of each key.

    Raises ``UserError`` where a file that the slide is read from lies beside none of them.
    """
    files = source_of(entry).files
    places = {key: value for key, value in entry.items() if isinstance(value, Path)}
    result = dict(entry)
    for key, place in places.items():
        result[key] = home / key / place.name
        for file in [place] if place.is_file() else [file for file in files if file.is_relative_to(place)]:
            _copy(file, result[key] if place.is_file() else result[key] / file.relative_to(place))
    reader = READERS[entry["reader"]]
    for file in _elsewhere(files, places):  # found by the reader: the image that an AnnData file names
        if "image" in result or "image" not in reader.paths:
            raise UserError(
                f"{file} lies outside of what was named, and cannot be copied with it - import without --copy"
            )
        result["image"] = home / "image" / file.name
        _copy(file, result["image"])
    found = sorted(path.name for path in source_of(result).files)
    if found != sorted(path.name for path in files):
        raise UserError(f"the files of {entry[reader.source]} cannot be copied as they lie - import without --copy")
    return result


def _elsewhere(files: tuple[Path, ...], places: Mapping[str, Path]) -> Iterator[Path]:
    for file in files:
        if not any(file == place or (place.is_dir() and file.is_relative_to(place)) for place in places.values()):
            yield file


def _copy(source: Path, target: Path) -> None:
    with writing_to(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
