"""Where a dataset's files may lie below the place that the user named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path


def bases(root: Path | None, *folders: str) -> list[Path]:
    """``root`` and those of ``folders`` that exist below it, whatever their case; a folder may be nested (``a/b``)."""
    if root is None:
        return []
    found = [root]
    for folder in folders:
        found += [place for place in _below([root], folder.split("/")) if place not in found]
    return found


def _below(places: list[Path], parts: Sequence[str]) -> list[Path]:
    for part in parts:
        places = [
            child
            for place in places
            for child in sorted(place.iterdir())
            if child.name.lower() == part.lower() and child.is_dir()
        ]
    return places


def first_file(places: Iterable[Path], *names: str) -> Path | None:
    """The first of ``names`` (which may hold folders) that is a file under one of ``places``, tried in order."""
    return next((place / name for place in places for name in names if (place / name).is_file()), None)


def first_folder(places: Iterable[Path], *names: str) -> Path | None:
    return next((place / name for place in places for name in names if (place / name).is_dir()), None)


def only_picture(folder: Path) -> Path | None:
    """The one visible file of ``folder``; ``None`` where there is none, or more than one to choose from."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return files[0] if len(files) == 1 else None
