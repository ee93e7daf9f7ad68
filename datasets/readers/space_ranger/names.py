"""Finding a file by its maker's name, whatever its owner put in front of it or behind.

Space Ranger writes ``tissue_positions.csv``; 10x Genomics publishes ``V1_Human_Brain_tissue_positions.csv``, GEO
``GSM5420749_P1_tissue_positions.csv.gz``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from stbench.errors import UserError
from stbench.system.wording import shortened

SEPARATORS = "_-."  # between what was put in front and the maker's name


def files_named(folder: Path, name: str, prefix: str | None = None) -> list[Path]:
    """The files of ``folder`` called ``name``, with ``.gz`` behind or not; those with a prefix where there is none.

    With ``prefix`` only those that begin with it.
    """
    return _named((path for path in _inside(folder) if path.is_file()), (name, f"{name}.gz"), prefix)


def folders_named(folder: Path, name: str, prefix: str | None = None) -> list[Path]:
    """The same of folders."""
    return _named((path for path in _inside(folder) if path.is_dir()), (name,), prefix)


def file_named(folder: Path, names: Sequence[str], prefix: str | None = None) -> Path | None:
    """The file called by the first of ``names`` that there is; ``UserError`` where there are several of one name."""
    for name in names:
        found = files_named(folder, name, prefix)
        if len(found) > 1:
            raise several_prefixes(folder, found, name)
        if found:
            return found[0]
    return None


def begins_with(path: Path, prefix: str | None) -> bool:
    """Whether a file has this prefix: ``GSM5420749_P1`` is none of ``GSM5420749_P12_matrix.mtx.gz``."""
    return prefix is None or path.name.startswith(tuple(f"{prefix}{mark}" for mark in SEPARATORS))


def prefixes_of(paths: Iterable[Path], name: str) -> list[str]:
    """What stands in front of the maker's ``name`` in each of ``paths``, which were found by it."""
    fronts = (path.name.removesuffix(".gz").removesuffix(name) for path in paths)
    return list(dict.fromkeys(front[:-1] for front in fronts))


def several_prefixes(folder: Path, found: Sequence[Path], name: str) -> UserError:
    """As series of GEO are given out: the files of all samples side by side."""
    prefixes = prefixes_of(found, name)
    return UserError(
        f"{folder} holds the files of several sections ({shortened(prefixes, 6)}) - choose one by what its files begin "
        f"with (--option prefix={prefixes[0]}; in a manifest: prefix), and import each as a slice of its own"
    )


def several(folder: Path, found: Sequence[Path]) -> UserError:
    return UserError(
        f"{folder} holds the files of several sections ({listed(found)}) - keep one section's files, or give each "
        "section a folder of its own"
    )


def called(path: Path, names: Iterable[str]) -> bool:
    """Whether a file has one of ``names``, which are without their ends (``.png``), with a prefix or not."""
    stem = path.name.lower().split(".")[0]
    return any(stem == name or stem.endswith(tuple(f"{mark}{name}" for mark in SEPARATORS)) for name in names)


def subfolders(folder: Path) -> list[Path]:
    return [path for path in _inside(folder) if path.is_dir()]


def listed(paths: Sequence[Path], at_most: int = 6) -> str:
    return shortened([path.name for path in paths], at_most)


def _inside(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder} may not be read ({(error.strerror or str(error)).lower()}) - check it") from error


def _named(paths: Iterable[Path], names: tuple[str, ...], prefix: str | None) -> list[Path]:
    ends = tuple(f"{mark}{name}" for mark in SEPARATORS for name in names)
    exact, prefixed = [], []
    for path in paths:
        if not begins_with(path, prefix):
            continue
        if path.name in names:
            exact.append(path)
        elif path.name.endswith(ends):
            prefixed.append(path)
    # plain before gzipped: the same file, unpacked beside itself
    return sorted(exact, key=lambda path: names.index(path.name))[:1] or _unpacked(prefixed)


def _unpacked(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not (path.suffix == ".gz" and path.with_suffix("") in paths)]
