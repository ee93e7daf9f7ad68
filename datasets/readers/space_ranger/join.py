"""Which rows of a matrix are spots, and where: matrix and positions are joined by barcode, never by order."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from stbench.errors import UserError
from stbench.slides.evidence import OffTissue
from stbench.system.wording import shortened

from ..assemble import unmatched
from .cells import Cells
from .files import SpaceRangerFiles
from .matrix import Matrix
from .positions import Positions

BIN = re.compile(r"s_(\d+)um_.*")


# Share of places off tissue with more counts than half of a typical spot's. Some tissue is missed, and transcripts
# diffuse; but where tissue was sought on another section, tissue and background are mixed.
CROWDED = 0.1


@dataclass(frozen=True)
class Spots:
    """What is a spot: its row in the matrix and its place in the table of positions."""

    rows: np.ndarray
    places: np.ndarray
    off_tissue: OffTissue | None = None  # known of a filtered matrix
    notes: tuple[str, ...] = ()


def spots_under_tissue(matrix: Matrix, positions: Positions, files: SpaceRangerFiles) -> Spots:
    """Spots and bins; all that is left out is counted in the notes."""
    barcodes = matrix.barcodes
    _require_one_section(barcodes, positions, files)
    places, notes = _places(barcodes, positions)
    placed = places >= 0
    _require_placed(barcodes, placed, positions, files)
    under = placed & positions.in_tissue[places]
    rows = np.flatnonzero(under)
    if not len(rows):
        raise UserError(_none_under_tissue(positions, files))
    n = len(barcodes)
    # a matrix of no name lists all places, or those under tissue
    filtered = files.filtered or ("raw_feature" not in files.counts.name and n < len(positions.barcodes))
    if not placed.all():
        notes.append(f"{int((~placed).sum())} of {n} barcodes have no position and are left out")
    if not filtered:
        notes.append(
            f"no matrix is said to be filtered: of the {n} barcodes of {files.counts.name} the {len(rows)} under "
            "tissue by the positions are taken"
        )
        notes += _tissue_elsewhere(matrix, under, placed & ~under)
    uncounted = int(positions.in_tissue.sum()) - len(rows)
    if uncounted:
        notes.append(
            f"{uncounted} spots under tissue have no counts and are left out"
            if uncounted > 1
            else "1 spot under tissue has no counts and is left out"
        )
    off = int((placed & ~under).sum())
    told = OffTissue(off, n, str(files.counts), str(files.positions)) if filtered else None
    return Spots(rows, places[rows], told, tuple(notes))


def _places(barcodes: list[str], positions: Positions) -> tuple[np.ndarray, list[str]]:
    """The row of each barcode in ``positions``, -1 where it has none, and what was done to find them.

    The number behind a barcode tells libraries of one matrix apart, so a library taken out of such a matrix may have
    another number than its positions, and R code often drops it.
    """
    places = positions.places_of(barcodes)
    if (places >= 0).any():
        return places, []
    ours, theirs = _ends(barcodes), _ends(positions.barcodes.to_pylist())
    if len(ours) != 1 or len(theirs) != 1:
        return places, []
    (our,), (their,) = ours, theirs
    places = positions.places_of([barcode.removesuffix(our) + their for barcode in barcodes])
    if not (places >= 0).any():
        return places, []
    note = (
        f"barcodes end in {our or 'no number'} in the matrix, in {their or 'no number'} in the positions: they are "
        "matched without it"
    )
    return places, [note]


def _ends(barcodes: list[str]) -> set[str]:
    """What stands behind barcodes: ``-1``, or nothing."""
    return {f"-{end}" if end.isdecimal() else "" for end in (barcode.rpartition("-")[2] for barcode in barcodes)}


def _tissue_elsewhere(matrix: Matrix, under: np.ndarray, off: np.ndarray) -> list[str]:
    """Whether counts, which a raw matrix has of all places, lie where the positions see no tissue."""
    totals = np.asarray(matrix.counts.sum(axis=1)).ravel()
    typical = float(np.median(totals[under]))
    crowded = int((totals[off] > typical / 2).sum())
    if crowded <= CROWDED * int(off.sum()):
        return []
    return [
        f"{crowded} of {int(off.sum())} places off tissue have more counts than half of what a typical spot under "
        f"it has ({typical:g}): positions are probably of another section - check that both files are of this one"
    ]


def cells_with_outline(barcodes: list[str], cells: Cells, files: SpaceRangerFiles) -> Spots:
    """Segmented cells that have both counts and an outline."""
    try:
        places = cells.places_of(barcodes)
    except ValueError as error:
        raise UserError(
            f"{files.counts} does not count cells ({error}) - give the matrix of segmented cells"
        ) from error
    rows = np.flatnonzero(places >= 0)
    n = len(barcodes)
    if 2 * len(rows) < n or not len(rows):
        raise UserError(
            f"only {len(rows)} of the {n} cells of {files.counts} have an outline in {files.positions} - the two files "
            "do not belong together"
        )
    notes = ["spots are segmented cells, each at the centroid of its outline"]
    if len(rows) < n:
        notes.append(f"{n - len(rows)} of {n} cells have no outline and are left out")
    uncounted = len(cells.numbers) - len(rows)
    if uncounted:
        notes.append(f"{uncounted} of {len(cells.numbers)} outlined cells are not in the matrix and are left out")
    if not files.filtered:
        notes.append(f"there is no filtered matrix: all cells of {files.counts.name} are taken")
    return Spots(rows, places[rows], None, tuple(notes))


def bin_of(barcode: str) -> float | None:
    """The side in µm that a barcode of Visium HD names, as in ``s_008um_00123_00456-1``."""
    match = BIN.fullmatch(barcode)
    return None if match is None else float(match[1])


def _none_under_tissue(positions: Positions, files: SpaceRangerFiles) -> str:
    if positions.in_tissue.any():
        return (
            f"no barcode of {files.counts} is under tissue by {files.positions} - the two are of different sections: "
            "put the files that Space Ranger wrote for one section together"
        )
    return f"{files.positions} has no spot under tissue (in_tissue is never 1) - check that column"


def _require_placed(barcodes: list[str], placed: np.ndarray, positions: Positions, files: SpaceRangerFiles) -> None:
    n_placed = int(placed.sum())
    if 2 * n_placed >= len(barcodes) and n_placed:
        return
    listed = positions.barcodes.to_pylist()
    ours, theirs = unmatched(barcodes, listed)
    bins = bin_of(ours), bin_of(theirs)
    why = "the two files do not belong together"
    if None not in bins and bins[0] != bins[1]:
        why = f"one is of bins of {bins[0]:g} µm, the other of {bins[1]:g} µm: take both from one folder"
    raise UserError(
        f"only {n_placed} of the {len(barcodes)} barcodes of {files.counts} have a position in {files.positions} "
        f"({ours} there, {theirs} here) - {why}"
    )


def _require_one_section(barcodes: list[str], positions: Positions, files: SpaceRangerFiles) -> None:
    """Refuse a matrix of several sections beside the positions of one.

    All sections have the same barcodes, so that the rows of another section would find positions too; ``spaceranger
    aggr`` tells sections apart by the number behind a barcode.
    """
    suffixes = _suffixes(barcodes)
    if len(suffixes) < 2:
        return
    known = _suffixes(positions.barcodes.to_pylist())
    if set(suffixes) <= set(known):
        raise UserError(
            f"{files.counts} and {files.positions} hold several sections (barcodes end in {_listed(suffixes)}) - give "
            "the output folder of one section, from before 'aggr'"
        )
    strange = next(barcode for barcode in barcodes if barcode.rpartition("-")[2] not in known)
    raise UserError(
        f"{files.counts} holds several sections (barcodes end in {_listed(suffixes)}), {files.positions} is of one "
        f"({_listed(known)}; {strange} has no position) - give the matrix of this section, from before 'aggr'"
    )


def _suffixes(barcodes: list[str]) -> list[str]:
    return list(dict.fromkeys(barcode.rpartition("-")[2] for barcode in barcodes if "-" in barcode))


def _listed(suffixes: list[str]) -> str:
    return shortened([f"-{suffix}" for suffix in suffixes], 6) or "nothing"
