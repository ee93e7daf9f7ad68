"""What is predicted: named functions from a slide's raw counts to the values that methods learn and are scored on.

Errors (MSE, MAE) and, between spot-wise and gene-wise scaling, correlations too depend on this choice, so numbers
are compared within one target only, and every report prints the target's formula.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .target_names import known_target

PIECE = 2**24  # values that are computed at a time
TEN_THOUSAND = 1e4  # counts per ten thousand, as in the published code
MILLION = 1e6  # counts per million, as in mclSTExp's text


@dataclass(frozen=True)
class Target:
    """A named scale of expression. Applied to one slide at a time: nothing of another slide enters."""

    name: str
    formula: str  # plain text, for reports
    function: Callable[[np.ndarray, np.ndarray, int | None], np.ndarray]
    pools_spots: bool = False  # a spot's value depends on the other spots of its slide

    def __call__(self, counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None = None) -> np.ndarray:
        """(n_spots, n_genes) float32: the target of one slide.

        ``counts`` (n_spots, n_genes) are the panel's raw counts, ``total_counts`` (n_spots,) those over all genes of
        the slide, of which there are ``n_measured``. Raises ``ValueError`` where shapes do not match, and where a
        target that needs ``n_measured`` is not told it.
        """
        counts, total_counts = np.asarray(counts), np.asarray(total_counts)
        if counts.ndim != 2 or total_counts.shape != counts.shape[:1]:
            raise ValueError(
                f"counts (spots, genes) {counts.shape} and total counts (spots,) {total_counts.shape} do not match"
            )
        out = np.empty(counts.shape, dtype=np.float32)
        for piece in self.pieces(*counts.shape):
            out[piece] = self.of_piece(counts, total_counts, n_measured, piece)
        return out

    def pieces(self, n_spots: int, n_genes: int) -> Iterator[tuple[slice, slice]]:
        """Spots and genes that are computed at a time: some spots, or some genes where spots are pooled.

        In float64 and with the steps between, all of a slide of hundreds of thousands of spots would take many times
        the memory of its counts. Sums of counts are whole numbers, so that pieces change no bit.
        """
        length, other = (n_genes, n_spots) if self.pools_spots else (n_spots, n_genes)
        step = max(1, PIECE // max(1, other))
        for start in range(0, length, step):
            some = slice(start, min(start + step, length))
            yield (slice(None), some) if self.pools_spots else (some, slice(None))

    def of_piece(
        self, counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None, piece: tuple[slice, slice]
    ) -> np.ndarray:
        """The target of one of :meth:`pieces`."""
        whole, totals = counts[piece].astype(np.float64), total_counts[piece[0]].astype(np.float64)
        return self.function(whole, totals, n_measured).astype(np.float32)


def spot_log10_cp10k(counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None = None) -> np.ndarray:
    """log10(1 + 10000 c / the spot's sum over the panel): what HisToGene, Hist2ST, THItoGene and mclSTExp train on."""
    return np.log10(1 + _shares(counts, counts.sum(axis=1, keepdims=True)))


def gene_log10_cp10k(counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None = None) -> np.ndarray:
    """log10(1 + 10000 c / the gene's sum over the slide's spots): the truth in mclSTExp's released evaluation.

    There a row normalisation is applied to the transposed matrix, so that a spot's sequencing depth stays in the
    target and its level depends on how many spots the slide has.
    """
    return np.log10(1 + _shares(counts, counts.sum(axis=0, keepdims=True)))


def lognorm(counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None = None) -> np.ndarray:
    """ln(1 + 10000 c / the spot's total over all genes): scanpy's normalize_total to 1e4, log1p, then the panel."""
    return np.log1p(_shares(counts, total_counts[:, None]))


def spot_ln_cpm(counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None = None) -> np.ndarray:
    """ln(1 + 1000000 c / the spot's sum over the panel): the recipe of mclSTExp's text, which no released code follows.

    The text (Note 2) chooses the genes first and scales by "the spot's total" then, so the total is the panel's.
    """
    return np.log1p(_shares(counts, counts.sum(axis=1, keepdims=True), MILLION))


def stnet_logfreq(counts: np.ndarray, total_counts: np.ndarray, n_measured: int | None = None) -> np.ndarray:
    """ln((1 + c) / (n + the spot's total over all n genes)): what ST-Net's released code learns.

    A frequency with one count added to every gene, so no value is zero and all are negative. There n is the number of
    genes in the union of all sections; here it is the number of the slide's own, so that no slide enters another's
    target.
    """
    if n_measured is None:
        raise ValueError("stnet-logfreq needs n_measured, the number of genes that were measured on the slide")
    return np.log((1 + counts) / (n_measured + total_counts[:, None]))


def _shares(counts: np.ndarray, totals: np.ndarray, per: float = TEN_THOUSAND) -> np.ndarray:
    """Counts ``per`` ten thousand of ``totals``; where a total is zero there is nothing to share and the zeros stay."""
    totals = np.broadcast_to(totals, counts.shape)
    return np.divide(per * counts, totals, out=np.zeros_like(counts), where=totals > 0)


TARGETS: dict[str, Target] = {
    entry.name: entry
    for entry in (
        Target(
            "spot-log10-cp10k",
            "log10(1 + 10000 × count / the spot's sum over the panel); a spot without panel counts stays zero",
            spot_log10_cp10k,
        ),
        Target(
            "gene-log10-cp10k",
            "log10(1 + 10000 × count / the gene's sum over the slice's spots); a gene without counts stays zero",
            gene_log10_cp10k,
            pools_spots=True,
        ),
        Target(
            "lognorm",
            "ln(1 + 10000 × count / the spot's sum over all measured genes); a spot without counts stays zero",
            lognorm,
        ),
        Target(
            "spot-ln-cpm",
            "ln(1 + 1000000 × count / the spot's sum over the panel); a spot without panel counts stays zero",
            spot_ln_cpm,
        ),
        Target(
            "stnet-logfreq",
            "ln((1 + count) / (number of genes measured on the slice + the spot's sum over all of them))",
            stnet_logfreq,
        ),
    )
}


def target(name: str) -> Target:
    """The target of that name. Raises ``UserError`` with the nearest match otherwise."""
    return TARGETS[known_target(name)]
