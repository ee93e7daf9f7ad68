"""Choosing genes from the statistics of some slides: the most variable, or the most spatially structured."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from ..errors import UserError
from .gene_statistics import GeneStatistics

LEAST_EXPRESSED = 1000 / 11548  # share of all spots that must have a count of a gene: the published panels' threshold
N_BINS = 20  # of mean expression, as in Seurat and scanpy


def normalised_dispersion(mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """How much each gene varies for its mean: Seurat's dispersion, as in scanpy's ``highly_variable_genes``.

    The logarithm of variance over mean, less its mean and divided by its standard deviation over genes in the same one
    of 20 bins of ln(1 + mean). A bin of one gene gives it 1. NaN for a gene that does not vary.

    Parameters
    ----------
    mean, variance : (n_genes,) ndarray
        Of scaled counts, not of their logarithms.
    """
    if not np.isfinite(mean).any():  # of a slide without counts
        return np.full(len(mean), np.nan)
    mean = np.where(mean == 0, 1e-12, mean)
    with np.errstate(divide="ignore", invalid="ignore"):
        dispersion = np.log(np.where(variance > 0, variance / mean, np.nan))
    table = pd.DataFrame({"dispersion": dispersion, "bin": pd.cut(np.log1p(mean), bins=N_BINS)})
    binned = table.groupby("bin", observed=True)["dispersion"]
    centre, spread = binned.transform("mean"), binned.transform("std")
    alone = spread.isna()
    centre, spread = centre.mask(alone, 0), spread.mask(alone, centre)
    return np.asarray((table["dispersion"] - centre) / spread, dtype=np.float64)


def _variability(of: GeneStatistics, places: np.ndarray) -> np.ndarray:
    return normalised_dispersion(of.mean[places], of.variance[places])


def _autocorrelation(of: GeneStatistics, places: np.ndarray) -> np.ndarray:
    return of.moran[places]


CRITERIA: dict[str, Callable[[GeneStatistics, np.ndarray], np.ndarray]] = {
    "hvg": _variability,
    "svg": _autocorrelation,
}


def select_genes(slides: Sequence[GeneStatistics], criterion: str, n_genes: int) -> tuple[str, ...]:
    """At most ``n_genes`` genes, the best first; the order of ``slides`` and of their genes does not matter.

    Of the genes that every slide lists, each slide names its ``n_genes`` best. Those with a count in at least 8.7 % of
    all spots are ordered by how many slides name them, then by their mean rank over the slides, then by name.

    Parameters
    ----------
    slides : sequence of GeneStatistics
        One at least. Nothing of any other slide is looked at.
    criterion : str
        ``hvg`` (:func:`normalised_dispersion`) or ``svg`` (Moran's I).
    n_genes : int
        How many, at most.

    Raises
    ------
    UserError
        If the slides have no gene in common, or none is expressed widely enough.
    """
    common = sorted(set.intersection(*(set(of.genes) for of in slides)))
    if not common:
        raise UserError(
            f"{len(slides)} slices have no gene in common ({', '.join(of.slice for of in slides[:3])}, ...) - use the "
            "same kind of gene names in all"
        )
    n_named = np.zeros(len(common), dtype=np.int64)
    rank_sum = np.zeros(len(common), dtype=np.int64)
    n_expressed = np.zeros(len(common), dtype=np.int64)
    for of in slides:
        place = {gene: number for number, gene in enumerate(of.genes)}
        places = np.array([place[gene] for gene in common])
        rank = _ranks(CRITERIA[criterion](of, places))
        n_named += rank < min(n_genes, len(common))  # one without a score is never named
        rank_sum += rank
        n_expressed += of.n_expressed[places]
    least = LEAST_EXPRESSED * sum(of.n_spots for of in slides)
    kept = np.flatnonzero((n_named > 0) & (n_expressed >= least) & (n_expressed > 0))
    if not len(kept):
        raise UserError(
            f"no gene that {len(slides)} slices have in common varies and is expressed in {LEAST_EXPRESSED:.1%} of "
            "their spots - give a panel by name or as a file"
        )
    order = np.lexsort((kept, rank_sum[kept], -n_named[kept]))  # names are sorted, so the last key is their order
    return tuple(common[number] for number in kept[order][:n_genes])


def _ranks(score: np.ndarray) -> np.ndarray:
    """0 for the greatest; of equal ones the first stands first. One without a score is ranked behind all."""
    n = len(score)
    rank = np.full(n, n, dtype=np.int64)
    order = np.argsort(-score, kind="stable")  # NaN last
    known = order[: int(np.count_nonzero(~np.isnan(score)))]
    rank[known] = np.arange(len(known))
    return rank
