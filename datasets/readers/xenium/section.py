"""A section of a Xenium run as a slide: cells at their centroids, or bins of a grid over the H&E image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from stbench.errors import UserError
from stbench.slides.image import SlideImage
from stbench.slides.pixel_size import stated_pixel_size
from stbench.slides.slide import Slide

from ..array_indices import indices_of_positions
from ..assemble import assemble, unique_symbols
from . import bins as binning
from .alignment import Alignment, directed, read_alignment
from .cells import Cells, read_cells
from .files import XeniumFiles, dapi_um_per_px


@dataclass(frozen=True)
class _Spots:
    names: list[str]
    places: np.ndarray  # (n, 2) int64: on the array
    centres: np.ndarray  # (n, 2) float64: pixels of the H&E image
    counts: Any  # CSR, n x genes
    diameter_px: float | None
    notes: list[str]


def read(slide_id: str, patient: str, files: XeniumFiles, *, grid_um: float | None = None) -> Slide:
    """Read one section; spots are its cells in the order of the matrix, or with ``grid_um`` bins of so many µm.

    Bins count transcripts of a quality of at least 20, in cells or not, where the table of transcripts is there; else
    the counts of the cells in them. Spots beside the H&E image, and bins without a cell, are left out with a note.
    Raises ``UserError`` for a file that is missing or malformed, or when the files do not belong together.
    """
    notes: list[str] = []
    dapi_um = dapi_um_per_px(files.manifest, notes)
    image = SlideImage.from_file(files.image)
    cells = read_cells(files.matrix, files.cells)
    notes += cells.notes
    stated = stated_pixel_size(image)
    alignment, said = directed(read_alignment(files.alignment, dapi_um), files.alignment, cells.um, image, stated)
    notes += said
    spots = (
        _cells_as_spots(cells, alignment, image)
        if grid_um is None
        else _bins_as_spots(files, cells, alignment, image, grid_um)
    )
    genes, repeated = unique_symbols(cells.genes)
    notes += repeated
    return assemble(
        slide_id,
        patient,
        counts=spots.counts,
        genes=genes,
        spot_ids=spots.names,
        array_xy=spots.places,
        centres=spots.centres,
        image=image,
        um_per_px=alignment.um_per_px,
        um_per_px_from="alignment of the H&E image",
        gene_ids=cells.gene_ids,
        spot_diameter_px=spots.diameter_px,
        notes=[*notes, *spots.notes],
    )


def _cells_as_spots(cells: Cells, alignment: Alignment, image: SlideImage) -> _Spots:
    centres = alignment.he_pixels(cells.um)
    inside = ~image.outside(centres)
    notes = _left_out(int((~inside).sum()), len(inside), "cells lie beside the H&E image")
    kept = np.flatnonzero(inside)
    names = [cells.names[cell] for cell in kept]
    # cells are of all sizes: no diameter is that of a spot
    return _Spots(names, indices_of_positions(centres[kept]), centres[kept], cells.counts[kept], None, notes)


def _bins_as_spots(files: XeniumFiles, cells: Cells, alignment: Alignment, image: SlideImage, grid_um: float) -> _Spots:
    width, height = image.full_resolution_size
    side = grid_um / alignment.um_per_px
    if not 1 <= side <= max(width, height):
        raise UserError(
            f"grid_um = {grid_um:g} makes bins of {side:.3g} pixels of {files.image} ({alignment.um_per_px:.4g} µm/px, "
            f"{width:.0f} x {height:.0f} px) - choose bins of at least a pixel that fit on the image, 55 for example"
        )
    grid = binning.Grid(width, height, side)
    cell_pixels = alignment.he_pixels(cells.um)
    if files.transcripts is not None:
        sums = binning.transcripts_in(files.transcripts, cells.genes, grid, alignment)
        notes = _on_transcripts(sums)
    else:
        sums = binning.cells_in(cell_pixels, cells.counts, grid)
        notes = ["transcripts.parquet is not there: bins count what the cells in them hold, each cell at its centroid"]
        notes += _left_out(sums.n_outside, len(cell_pixels), "cells lie beside the H&E image")
    candidates = np.union1d(sums.counted, binning.bins_with_cells(grid, cell_pixels))
    off_tissue = ~binning.on_tissue(candidates, grid, cell_pixels, alignment.um_per_px)
    outside = image.outside(grid.centres(candidates)) & ~off_tissue
    notes += _left_out(
        int(off_tissue.sum()), len(candidates), "bins that hold transcripts have no cell in or beside them"
    )
    notes += _left_out(int(outside.sum()), len(candidates), "bins have their middle beside the H&E image")
    kept = candidates[~off_tissue & ~outside]
    if not len(kept):
        raise UserError(f"no bin of {grid_um:g} µm lies on both tissue and {files.image} - choose smaller bins")
    places = grid.places(kept)
    notes.append(f"spots are bins of {grid_um:g} µm ({side:.4g} px) in a grid over the H&E image")
    names = [f"{grid_um:g}um_{row:05d}_{column:05d}" for column, row in places.tolist()]
    return _Spots(names, places, grid.centres(kept), sums.matrix(kept), side, notes)


def _on_transcripts(sums: binning.Sums) -> list[str]:
    notes = []
    if sums.n_unsure:
        notes.append(f"{sums.n_unsure} transcripts of a quality below {binning.LEAST_QUALITY:g} are left out")
    if sums.n_not_genes:
        notes.append(f"{sums.n_not_genes} transcripts of control probes and code words are left out")
    if sums.n_unplaced:
        notes.append(f"{sums.n_unplaced} transcripts have no position and are left out")
    if sums.n_outside:
        notes.append(f"{sums.n_outside} transcripts lie beside the H&E image and are left out")
    return notes


def _left_out(n: int, of: int, what: str) -> list[str]:
    return [f"{n} of {of} {what} and are left out"] if n else []
