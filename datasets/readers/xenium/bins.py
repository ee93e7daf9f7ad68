"""Transcripts and cells counted in the squares of a grid over the H&E image.

A bundle holds tens of millions of transcripts, so its table is read in batches, of which only sums stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.system.compressed import is_parquet, open_binary

from .alignment import Alignment

LEAST_QUALITY = 20.0  # Phred-scaled; the makers' own matrices count no transcript below it
NEAR_UM = 5.0  # a cell's usual radius: so far beyond a bin's border its centroid may lie for the cell to reach into it
COLUMNS = ("feature_name", "x_location", "y_location", "qv")
BATCH = 1 << 20  # transcripts
PENDING = 1 << 22  # sums that wait to be added up


@dataclass(frozen=True)
class Grid:
    """Squares of ``side`` pixels over an image of ``width`` x ``height``, the first in its top left corner."""

    width: float
    height: float
    side: float

    @property
    def n_columns(self) -> int:
        return math.ceil(self.width / self.side)

    @property
    def n_rows(self) -> int:
        return math.ceil(self.height / self.side)

    def bins(self, pixels: np.ndarray) -> np.ndarray:
        """(n,) int64: the number of the bin, row by row, of each of ``pixels`` (n, 2); -1 beside the grid."""
        column, row = np.floor(pixels / self.side).T
        inside = (column >= 0) & (column < self.n_columns) & (row >= 0) & (row < self.n_rows)
        return np.where(inside, row * self.n_columns + column, -1.0).astype(np.int64)

    def places(self, bins: np.ndarray) -> np.ndarray:
        """(n, 2) int64: column and row of bins."""
        return np.stack([bins % self.n_columns, bins // self.n_columns], axis=1)

    def centres(self, bins: np.ndarray) -> np.ndarray:
        """(n, 2) float64: their middles in pixels."""
        return (self.places(bins) + 0.5) * self.side


@dataclass
class Sums:
    """Counts of (bin, gene), added up as they come; and what was left out."""

    n_genes: int
    n_unsure: int = 0
    n_not_genes: int = 0
    n_outside: int = 0
    n_unplaced: int = 0
    _parts: list[tuple[np.ndarray, np.ndarray]] = field(
        default_factory=list
    )  # keys, sorted, and counts; first: the sum
    _n_pending: int = 0

    def add(self, bins: np.ndarray, genes: np.ndarray, counts: np.ndarray | None = None) -> None:
        """Count ``genes`` in ``bins``, once each or as often as ``counts`` says; all of them (n,)."""
        keys = bins * self.n_genes + genes
        if counts is None:
            keys.sort()
            counts = np.ones(len(keys), dtype=np.int32)
        else:
            order = np.argsort(keys)
            keys, counts = keys[order], counts[order]
        self._parts.append(_added_up(keys, counts))
        self._n_pending += len(self._parts[-1][0])
        # the larger the sum, the more waits: so adding up stays a fraction of the work
        if self._n_pending > max(PENDING, len(self._parts[0][0]) // 2):
            self._total()

    def _total(self) -> tuple[np.ndarray, np.ndarray]:
        """The keys, bin * n_genes + gene, in which there is a count, sorted; and the counts."""
        if not self._parts:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int32)
        if len(self._parts) > 1:
            keys = np.concatenate([keys for keys, _ in self._parts])
            counts = np.concatenate([counts for _, counts in self._parts])
            self._parts.clear()
            order = np.argsort(keys, kind="stable")  # which makes use of parts that are sorted
            self._parts.append(_added_up(keys[order], counts[order]))
        self._n_pending = 0
        return self._parts[0]

    def matrix(self, bins: np.ndarray) -> Any:
        """(len(bins), n_genes) CSR of the bins asked for, which are sorted."""
        from scipy import sparse

        keys, counts = self._total()
        rows, genes = np.divmod(keys, self.n_genes)
        place = np.searchsorted(bins, rows)
        wanted = np.isin(rows, bins)
        return sparse.csr_matrix((counts[wanted], (place[wanted], genes[wanted])), shape=(len(bins), self.n_genes))

    @property
    def counted(self) -> np.ndarray:
        """(n,) int64, sorted: the bins in which something was counted."""
        return np.unique(self._total()[0] // self.n_genes)


def _added_up(keys: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each of ``keys``, which are sorted, once; and the sum of its counts."""
    if not len(keys):
        return keys, counts.astype(np.int32)
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return keys[starts], np.add.reduceat(counts, starts).astype(np.int32)


def transcripts_in(path: Path, genes: Sequence[str], grid: Grid, alignment: Alignment) -> Sums:
    """Transcripts of ``genes`` of at least ``LEAST_QUALITY`` in each bin; the file is never in memory as a whole."""
    sums = Sums(len(genes))
    column = {name: position for position, name in reversed(list(enumerate(genes)))}
    for names, um, quality in _batches(path):
        gene = _columns_of(names, column)
        good = quality >= LEAST_QUALITY  # NaN is not
        sums.n_unsure += int((~good).sum())
        sums.n_not_genes += int((good & (gene < 0)).sum())
        placed = np.isfinite(um).all(axis=1)
        chosen = good & (gene >= 0)
        sums.n_unplaced += int((chosen & ~placed).sum())
        chosen &= placed
        bins = grid.bins(alignment.he_pixels(um[chosen]))
        sums.n_outside += int((bins < 0).sum())
        sums.add(bins[bins >= 0], gene[chosen][bins >= 0])
    return sums


def _columns_of(names: Any, column: dict[str, int]) -> np.ndarray:
    """(n,) int64: the gene's column of each of ``names``, a dictionary array of bytes; -1: none."""
    known = [(name or b"").decode(errors="replace") for name in names.dictionary.to_pylist()]
    of_known = np.array([column.get(name, -1) for name in known] + [-1], dtype=np.int64)  # the last: no name
    return of_known[names.indices.fill_null(len(known)).to_numpy(zero_copy_only=False)]


def _batches(path: Path) -> Iterator[tuple[Any, np.ndarray, np.ndarray]]:
    """Feature names, positions (n, 2) in µm, and qualities of the transcripts in ``path``, batch by batch."""
    import pyarrow as pa
    import pyarrow.compute as pc

    with _opened(path) as batches:
        for batch in batches:
            try:
                names = batch.column("feature_name")
                names = names if pa.types.is_dictionary(names.type) else pc.dictionary_encode(names)
                # bytes: text that is not UTF-8 is no gene's name, and no reason to fail
                names = pa.DictionaryArray.from_arrays(names.indices, names.dictionary.cast(pa.binary()))
                x, y, quality = (
                    pc.cast(batch.column(name), pa.float64()).to_numpy(zero_copy_only=False) for name in COLUMNS[1:]
                )
            except (pa.ArrowException, KeyError, TypeError) as error:
                raise UserError(
                    f"{path} is not a table of transcripts ({reason_of(error)}) - fetch it again"
                ) from error
            yield names, np.column_stack([x, y]), quality


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[Any]]:
    """Record batches of ``path``, parquet or CSV, of the columns that are needed."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    parquet = is_parquet(path)
    with open_binary(path) as stream:
        try:
            if parquet:
                with pyarrow.parquet.ParquetFile(path, read_dictionary=["feature_name"]) as file:
                    _require_columns(path, file.schema_arrow.names)
                    yield _in_words(path, file.iter_batches(BATCH, columns=list(COLUMNS)))
            else:
                options = pyarrow.csv.ConvertOptions(column_types={"feature_name": pa.string()})
                reader = pyarrow.csv.open_csv(stream, convert_options=options)
                _require_columns(path, reader.schema.names)
                yield _in_words(path, reader)
        except (pa.ArrowException, OSError, KeyError) as error:
            raise UserError(f"{path} is not a table of transcripts ({reason_of(error)}) - fetch it again") from error


def _in_words(path: Path, batches: Any) -> Iterator[Any]:
    import pyarrow as pa

    try:
        yield from batches
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path} is damaged ({reason_of(error)}) - fetch it again") from error


def _require_columns(path: Path, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)} - it needs {', '.join(COLUMNS)}")


def cells_in(cell_pixels: np.ndarray, counts: Any, grid: Grid) -> Sums:
    """Counts of cells in the bins that hold their centroids; ``counts`` (n_cells, n_genes) sparse."""
    entries = counts.tocoo()
    sums = Sums(counts.shape[1])
    bins = grid.bins(cell_pixels)
    sums.n_outside = int((bins < 0).sum())
    inside = bins[entries.row] >= 0
    sums.add(bins[entries.row][inside], entries.col[inside], entries.data[inside])
    return sums


def on_tissue(bins: np.ndarray, grid: Grid, cell_pixels: np.ndarray, um_per_px: float) -> np.ndarray:
    """(n,) bool: the bins that a cell reaches into; transcripts alone are found off tissue, too."""
    from scipy.spatial import cKDTree

    reach = grid.side / 2 + NEAR_UM / um_per_px
    distance, _ = cKDTree(cell_pixels).query(grid.centres(bins), k=1, p=np.inf, distance_upper_bound=reach)
    return np.isfinite(distance)


def bins_with_cells(grid: Grid, cell_pixels: np.ndarray) -> np.ndarray:
    """(n,) int64, sorted: the bins that hold a centroid."""
    bins = np.unique(grid.bins(cell_pixels))
    return bins[bins >= 0]
