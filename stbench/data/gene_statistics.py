"""What is computed of every gene of one slide to choose genes by: of that slide alone, so that no other can leak in.

Genes of a fold are then chosen from the statistics of its training slices (:mod:`stbench.data.gene_selection`), without
counts being read again.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataset import SlideSource
from ..errors import about_slice
from ..slides.checks import validate
from ..slides.lattice import direct_neighbours
from ..system.files import replacing, writing_to
from .source_key import source_key

if TYPE_CHECKING:
    from scipy.sparse import csc_array, csr_array

    from ..slides.slide import Slide

VERSION = 1  # raise it whenever what is computed below changes
GENES_AT_A_TIME = 1000
ARRAYS = ("genes", "n_spots", "n_expressed", "mean", "variance", "moran")


@dataclass(frozen=True)
class GeneStatistics:
    """Of one slide; arrays are (n_genes,).

    Spots without counts are left out. Counts are scaled to the median total of the spots that are left, as scanpy's
    ``normalize_total`` does.
    """

    slice: str
    genes: tuple[str, ...]
    n_spots: int
    n_expressed: np.ndarray  # int64: spots with a count of the gene
    mean: np.ndarray  # float64, of the scaled counts
    variance: np.ndarray  # float64, of the scaled counts, with n - 1
    moran: np.ndarray  # float64: Moran's I of ln(1 + scaled count) over direct neighbours; NaN where it is undefined


def gene_statistics(slide: Slide) -> GeneStatistics:
    """Compute them."""
    from scipy import sparse

    counts = sparse.csr_array(slide.adata.X, dtype=np.float64)
    totals = np.asarray(counts.sum(axis=1)).ravel()
    counted = totals > 0
    counts, totals = counts[counted], totals[counted]
    if not len(totals):
        nothing = np.full(len(slide.genes), np.nan)
        none = np.zeros(len(slide.genes), dtype=np.int64)
        return GeneStatistics(slide.id, tuple(slide.genes), 0, none, nothing, nothing, nothing)
    scaled = sparse.csc_array(sparse.diags_array(np.median(totals) / totals) @ counts)
    n_spots = len(totals)
    mean = np.asarray(scaled.sum(axis=0)).ravel() / n_spots
    squares = np.asarray(scaled.multiply(scaled).sum(axis=0)).ravel()
    variance = np.maximum(squares - n_spots * mean**2, 0) / max(n_spots - 1, 1)
    neighbours = direct_neighbours(slide.centres[counted])
    return GeneStatistics(
        slide.id,
        tuple(slide.genes),
        n_spots,
        np.diff(sparse.csc_array(counts > 0).indptr).astype(np.int64),
        mean,
        variance,
        morans_i(scaled.log1p(), neighbours),
    )


def morans_i(values: csc_array, neighbours: csr_array) -> np.ndarray:
    """Moran's I of every column of (n_spots, n_genes) sparse values.

    ``n / W * sum_ij w_ij z_i z_j / sum_i z_i**2`` with z the deviations from the column's mean and W the sum of all
    weights. ``neighbours`` (n_spots, n_spots) are the weights, symmetric. NaN for a constant column, and where no two
    spots are neighbours.
    """
    n_spots, n_genes = values.shape
    total, degree = float(neighbours.sum()), np.asarray(neighbours.sum(axis=1)).ravel()
    result = np.full(n_genes, np.nan)
    if not total:
        return result
    for start in range(0, n_genes, GENES_AT_A_TIME):  # of each gene the sums over neighbours are nearly dense
        part = values[:, start : start + GENES_AT_A_TIME]
        mean = np.asarray(part.sum(axis=0)).ravel() / n_spots
        squares = np.asarray(part.multiply(part).sum(axis=0)).ravel()
        spread = squares - n_spots * mean**2
        products = np.asarray(part.multiply(neighbours @ part).sum(axis=0)).ravel()
        products += mean**2 * total - 2 * mean * (degree @ part)
        known = spread > 1e-9 * squares  # what is less is rounding
        result[start : start + len(mean)][known] = (n_spots / total * products / np.where(known, spread, 1))[known]
    return result


def cached_statistics(source: SlideSource, cache: Path) -> GeneStatistics:
    """:func:`gene_statistics` of a slide, which is read only where ``cache`` does not have them yet."""
    path = cache / "gene-statistics" / f"{source_key(source, VERSION)}.npz"
    known = _read(path, source.id)
    if known is not None:
        return known
    with about_slice(source.id):
        slide = source.read()
        validate(slide)
        found = gene_statistics(slide)
    with writing_to(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, open(temporary, "wb") as handle:
            values: dict[str, Any] = {name: np.asarray(getattr(found, name)) for name in ARRAYS}
            np.savez(handle, allow_pickle=False, **values)
    return found


def _read(path: Path, name: str) -> GeneStatistics | None:
    """``None`` where there are none, or the file is damaged: they are made again then."""
    try:
        with np.load(path, allow_pickle=False) as file:
            genes, n_spots, *arrays = (file[each] for each in ARRAYS)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if any(array.shape != genes.shape for array in arrays):
        return None
    return GeneStatistics(name, tuple(genes.tolist()), int(n_spots), *arrays)
