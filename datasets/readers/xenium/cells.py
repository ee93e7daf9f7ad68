"""Cells of a Xenium bundle: where they are, and what was counted in them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.system.compressed import is_parquet, open_text

from ..assemble import unmatched
from ..space_ranger.features import note_of_others
from .matrix import read_matrix

COLUMNS = ("cell_id", "x_centroid", "y_centroid")


@dataclass(frozen=True)
class Cells:
    """Cells that have both a place and counts, in the order of the matrix."""

    names: list[str]
    um: np.ndarray  # (n_cells, 2) float64: x and y of the centroids, in µm
    counts: Any  # CSR, n_cells x n_genes
    genes: list[str]  # as the bundle names them: transcripts do so, too
    gene_ids: list[str] | None
    notes: list[str]


def read_cells(matrix_path: Path, cells_path: Path) -> Cells:
    """Raises ``UserError`` for files that are malformed or do not belong together."""
    matrix = read_matrix(matrix_path)
    names, um = read_centroids(cells_path)
    row = {name: position for position, name in enumerate(names)}
    rows = [position for position, name in enumerate(matrix.cells) if name in row]
    if 2 * len(rows) < len(matrix.cells) or not rows:
        ours, theirs = unmatched(matrix.cells, names)
        raise UserError(
            f"only {len(rows)} of the {len(matrix.cells)} cells of {matrix_path} stand in {cells_path} ({ours} there, "
            f"{theirs} here) - the two files do not belong together"
        )
    notes = note_of_others(matrix.not_genes)
    if len(rows) < len(matrix.cells):
        notes.append(f"{len(matrix.cells) - len(rows)} of {len(matrix.cells)} cells have no position and are left out")
    if len(rows) < len(names):
        notes.append(f"{len(names) - len(rows)} cells have a position but no counts and are left out")
    kept = [matrix.cells[position] for position in rows]
    places = um[[row[name] for name in kept]]
    return Cells(kept, places, matrix.counts[rows], matrix.genes, matrix.gene_ids, notes)


def read_centroids(path: Path) -> tuple[list[str], np.ndarray]:
    """Names of cells and their centroids (n_cells, 2) in µm."""
    import pandas as pd
    import pyarrow
    import pyarrow.parquet

    parquet = is_parquet(path)
    try:
        if parquet:
            known = pyarrow.parquet.read_schema(path).names
            columns = [name for name in COLUMNS if name in known]
            # what pandas wrote beside the columns, an index for example, is not looked at
            frame = pyarrow.parquet.read_table(path, columns=columns).to_pandas(ignore_metadata=True)
        else:
            with open_text(path) as text:
                frame = pd.read_csv(text, converters={"cell_id": str}, keep_default_na=False, low_memory=False)
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        raise UserError(f"{path} is not a table of cells ({reason_of(error)}) - fetch it again") from error
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)} - it needs {', '.join(COLUMNS)}")
    if frame.empty:
        raise UserError(f"{path} lists no cells - fetch it again")
    names = [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in frame["cell_id"]]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise UserError(f"{path} names the cell {twice} more than once - each must stand there once")
    um = np.column_stack([pd.to_numeric(frame[name], errors="coerce") for name in COLUMNS[1:]]).astype(np.float64)
    unplaced = ~np.isfinite(um).all(axis=1)
    if unplaced.any():
        raise UserError(
            f"{path}: {unplaced.sum()} of {len(um)} cells have no centroid, the first is "
            f"{names[int(np.argmax(unplaced))]} - leave them out, or complete the columns"
        )
    return names, um
