"""Where data are looked for, where cohorts of the user's own are, and where prepared data are kept."""

from __future__ import annotations

import os
import re
from pathlib import Path

import platformdirs

from ..errors import UserError
from .files import writing_to
from .user_paths import expanded, unset_variables

COHORTS, MANIFEST = "cohorts", "cohort.toml"  # <data>/cohorts/NAME/cohort.toml
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")  # of a cohort or slice: becomes part of file names


def data_root(option: Path | None = None) -> Path | None:
    """The folder of the data: ``option`` (--data), else STBENCH_DATA, else the user's data folder if there is one.

    ``None`` when no place was named and there is no such folder. A named folder that does not exist is a ``UserError``.
    """
    if option is not None:
        return _folder(option, "--data")
    named = os.environ.get("STBENCH_DATA")
    if named:
        return _folder(Path(named), "STBENCH_DATA")
    usual = user_data_folder()
    return usual.resolve() if usual.is_dir() else None


def new_data_root(option: Path | None = None, make: bool = True) -> Path:
    """As :func:`data_root`, for what is about to be put there: a folder that does not exist yet is made.

    Raises ``UserError`` where the place is something else than a folder, or cannot be written to.
    """
    named = os.environ.get("STBENCH_DATA")
    place = expanded(option) if option is not None else expanded(named) if named else user_data_folder()
    if place.exists() and not place.is_dir():
        raise UserError(f"{place} is not a folder - give the folder that holds the datasets (--data)")
    if make:
        with writing_to(place):
            place.mkdir(parents=True, exist_ok=True)
    return place.resolve()


def user_data_folder() -> Path:
    """Where data are found without being told: ``~/.local/share/stbench`` on Linux."""
    return Path(platformdirs.user_data_dir("stbench", appauthor=False))


def data_root_to_write(option: Path | None = None) -> Path:
    """As :func:`data_root`; where no place was named and the user has no data folder, the place where it would be."""
    return data_root(option) or user_data_folder()


def cohort_manifest(root: Path | None, name: str) -> Path | None:
    """The manifest of the cohort ``name`` below ``root``; ``None`` where there is none."""
    if root is None or not NAME.fullmatch(name):
        return None
    manifest = root / COHORTS / name / MANIFEST
    return manifest if manifest.is_file() else None


def cohort_names(root: Path | None) -> list[str]:
    """The cohorts below ``root``, in alphabetical order."""
    folder = None if root is None else root / COHORTS
    if folder is None or not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if cohort_manifest(root, path.name) is not None)


def cache_root() -> Path:
    """Where prepared data are kept: STBENCH_CACHE, else the user's cache folder. It need not exist."""
    named = os.environ.get("STBENCH_CACHE")
    if named:
        return expanded(named).resolve()
    return Path(platformdirs.user_cache_dir("stbench", appauthor=False))


def _folder(path: Path, source: str) -> Path:
    place = expanded(path)
    if not place.is_dir():
        what = "is not a folder" if place.exists() else f"does not exist{unset_variables(place)}"
        raise UserError(f"{source} names {place}, which {what} - give the folder that holds the datasets")
    return place.resolve()
