"""Which folder holds the section that is meant: a Visium section, one of the bins of a Visium HD run, or its cells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stbench.errors import UserError
from stbench.system.user_paths import unset_variables
from stbench.system.wording import shortened

from .names import called, files_named, folders_named, listed, prefixes_of, several, subfolders

BINNED, SEGMENTED = "binned_outputs", "segmented_outputs"
USUAL_BIN = "square_016um"
SQUARE = re.compile(r"(?:.*[_.-])?square_(\d+)um")
POSITIONS = ("tissue_positions.parquet", "tissue_positions.csv", "tissue_positions_list.csv")
AGGREGATED = ("aggregation.csv", "aggr_tissue_positions.csv", "aggr_tissue_positions_list.csv")


@dataclass(frozen=True)
class Place:
    """Where one section lies."""

    folder: Path  # holds the matrix
    run: Path  # the output folder that it is part of: itself but for Visium HD
    bin_um: float | None = None  # as the folder of the bins is called
    cells: bool = False  # spots are segmented cells
    prefix: str | None = None  # of the section's files, where those of others lie beside them


@dataclass(frozen=True)
class _HighDefinition:
    """The outputs of a Visium HD run."""

    run: Path
    bins: dict[float, Path]
    cells: Path | None

    def __str__(self) -> str:
        return ", ".join([*(path.name for path in self.bins.values()), *(["segmented cells"] if self.cells else [])])

    @property
    def how_to_choose(self) -> str:
        if not self.bins:
            return "give cells = true (--option cells=true)"
        usual = next((size for size, path in self.bins.items() if path.name == USUAL_BIN), max(self.bins))
        also = "8" if usual != 8 and 8.0 in self.bins else None
        return (
            f"name one of its bins, for example {self.bins[usual]}, or give bin_um = {usual:g} (--bin-um {usual:g}"
            f"{f'; or {also}' if also else ''})" + (", or cells = true (--option cells=true)" if self.cells else "")
        )


def locate(folder: Path, bin_um: float | None = None, cells: bool = False, prefix: str | None = None) -> Place:
    """The section that ``folder`` holds: ``bin_um`` and ``cells`` say which of a Visium HD run,
    ``prefix`` which of several whose files lie side by side.

    Raises ``UserError`` where that is not clear, with what is there, or with the folder near by that was meant.
    """
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else f"is not a folder: it does not exist{unset_variables(folder)}"
        raise UserError(f"{folder} {what} - give the output folder of Space Ranger")
    if cells and bin_um is not None:
        raise UserError(f"{folder}: bin_um = {bin_um:g} and cells = true exclude each other - give one of them")
    if prefix is not None:
        return _beginning_with(folder, prefix)
    run = _high_definition(folder)
    if run is not None:
        return _chosen(folder, run, bin_um, cells)
    place = _part(folder)
    if cells and not place.cells:
        raise UserError(f"{folder} holds no segmented cells (looked for {SEGMENTED}/) - leave cells out")
    if bin_um is not None and place.bin_um != bin_um:
        raise _other_bins(folder, place, bin_um)
    if not is_output(folder):
        _refuse_aggregated(folder)
        _point_to_the_right_folder(folder)
    _refuse_aggregated(folder)
    return place


def _beginning_with(folder: Path, prefix: str) -> Place:
    """One of several sections whose files lie side by side."""
    if any(files_named(folder, name, prefix) for name in POSITIONS) or folders_named(folder, "spatial", prefix):
        return Place(folder, folder, prefix=prefix)
    found = [front for name in POSITIONS for front in prefixes_of(files_named(folder, name), name)]
    found += prefixes_of(folders_named(folder, "spatial"), "spatial")
    there = f"looked for {prefix}_{POSITIONS[1]} and the like; those there begin with {shortened(found, 6)}"
    raise UserError(
        f"{folder} holds no section whose files begin with '{prefix}' "
        + (f"({there}) - correct prefix" if any(found) else f"({there.partition(';')[0]}) - leave prefix out")
    )


def is_output(folder: Path) -> bool:
    """A place of positions and a matrix side by side, whatever they are called in full."""
    if not folder.is_dir():
        return False
    if is_cells(folder):
        return True
    counted = any(folder.glob("*bc_matri*")) or any(folder.glob("*matrix.mtx*")) or any(folder.glob("*count_matrix/"))
    flat = any(files_named(folder, name) for name in POSITIONS)
    return counted and (flat or any(folder.glob("*spatial/")))


def is_high_definition(folder: Path) -> bool:
    """Whether ``folder`` is the output of a Visium HD run, or holds it as ``outs``."""
    return folder.is_dir() and _high_definition(folder) is not None


def is_cells(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*_feature_cell_matri*"))


def _high_definition(folder: Path) -> _HighDefinition | None:
    for place in (folder, folder / "outs"):
        binned = folders_named(place, BINNED) or ([place] if called(place, (BINNED,)) else [])
        found = [path for parent in binned for path in subfolders(parent) if SQUARE.fullmatch(path.name)]
        # its own bins beside it do not make a folder of another kind a run
        outputs = [path for path in found if is_output(path)]
        squares = {_bin_um(path): path for path in outputs}
        segmented = [path for path in folders_named(place, SEGMENTED) if is_cells(path)]
        if len(squares) < len(outputs) or len(segmented) > 1:
            raise several(place, binned if len(binned) > 1 else outputs if len(squares) < len(outputs) else segmented)
        if squares or segmented:
            run = place.parent if squares and binned == [place] else place
            return _HighDefinition(run, dict(sorted(squares.items())), segmented[0] if segmented else None)
    return None


def _bin_um(folder: Path) -> float:
    match = SQUARE.fullmatch(folder.name)
    assert match is not None
    return float(match[1])


def _chosen(folder: Path, run: _HighDefinition, bin_um: float | None, cells: bool) -> Place:
    if cells:
        if run.cells is None:
            raise UserError(f"{folder} holds no segmented cells (but {run}) - {run.how_to_choose}")
        return Place(run.cells, run.run, cells=True)
    if bin_um is None:
        raise UserError(f"{folder} is a Visium HD run ({run}) - {run.how_to_choose}")
    if bin_um not in run.bins:
        raise UserError(f"{folder} holds no bins of {bin_um:g} µm (but {run}) - {run.how_to_choose}")
    return Place(run.bins[bin_um], run.run, bin_um)


def _part(folder: Path) -> Place:
    """``folder`` itself, which may be a part of a Visium HD run."""
    match = SQUARE.fullmatch(folder.name)
    if match is not None:
        binned = folder.parent
        return Place(folder, binned.parent if called(binned, (BINNED,)) else folder, float(match[1]))
    if is_cells(folder):
        return Place(folder, folder.parent if called(folder, (SEGMENTED,)) else folder, cells=True)
    return Place(folder, folder)


def _other_bins(folder: Path, place: Place, bin_um: float) -> UserError:
    if place.bin_um is None:
        return UserError(f"{folder} holds no bins (it is no output of Visium HD) - leave bin_um = {bin_um:g} out")
    beside = next(
        (path for path in subfolders(folder.parent) if SQUARE.fullmatch(path.name) and _bin_um(path) == bin_um), None
    )
    way_out = f"give {beside}" if beside is not None else f"leave bin_um = {bin_um:g} out"
    return UserError(f"{folder} holds bins of {place.bin_um:g} µm, not of {bin_um:g} µm - {way_out}")


def _refuse_aggregated(folder: Path) -> None:
    marks = [path for name in AGGREGATED for place in (folder, folder / "spatial") for path in files_named(place, name)]
    if not marks:
        return
    libraries = [path.name for path in subfolders(folder / "spatial")]
    which = f" of {', '.join(libraries[:6])}" if libraries else ""
    raise UserError(
        f"{folder} is the output of 'spaceranger aggr' ({listed(marks)}): its counts are drawn down to equal depth - "
        f"give the output folder of each section{which}, from before 'aggr'"
    )


def _point_to_the_right_folder(folder: Path) -> None:
    """Refuse a folder that is not one section's output, where the right one lies near it, with its path."""
    inside = [place for place in (folder / "outs", *subfolders(folder)) if is_output(place)]
    inside = inside or [place / "outs" for place in subfolders(folder) if is_output(place / "outs")]
    inside = list(dict.fromkeys(inside)) or [place for place in [folder.absolute().parent] if is_output(place)]
    if len(inside) == 1:
        raise UserError(f"{folder} is not the output folder of Space Ranger - did you mean {inside[0]}?")
    if inside:
        named = shortened(list(map(str, inside)), 3)
        raise UserError(f"{folder} holds {len(inside)} sections ({named}) - name one, or list them in a manifest")
    runs = [place for place in (*subfolders(folder), folder.absolute().parent) if is_high_definition(place)]
    if runs:
        raise UserError(f"{folder} is not the output folder of Space Ranger - did you mean {runs[0]}?")
    packed = [path for end in ("spatial.tar", "outputs.tar", "matrix.tar") for path in folder.glob(f"*{end}*")]
    if packed:
        raise UserError(f"{folder} holds archives ({listed(sorted(packed))}) - unpack them in this folder")
