"""How well a prediction of one slice agrees with its truth: PCC (ACG), PCC (HEG), MSE, MAE, and r and p for each gene.

Two packs of definitions answer two questions. ``paper`` is what the published evaluation computes (mclSTExp,
supplementary note 5 and its released code): comparable with printed numbers, but undefined wherever one gene's
correlation is, and its top-50 genes are chosen by looking at the test slice. ``strict`` is what can be believed:
genes chosen on the training slices, a method punished for a constant prediction, genes that cannot be scored
counted.

A gene is *constant* on a slice when all its values are equal (largest minus smallest is zero), as in
``scipy.stats.pearsonr``. Everything is computed in float64, whatever the inputs' type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from ..errors import UserError

if TYPE_CHECKING:
    import pandas as pd

N_HEG = 50  # the "highly expressed genes" of the paper


class UnscorableError(UserError, ValueError):
    """A prediction (or truth) that cannot be scored: its shape is wrong or a value is not finite. One line."""


@dataclass(frozen=True)
class Correlation:
    """Pearson correlation of each gene across the spots of a slice; all arrays are (n_genes,)."""

    r: np.ndarray  # float64; NaN where the truth or the prediction is constant
    p: np.ndarray  # float64, two-sided; NaN where r is; 0 below about 1e-308: see neg_log10_p
    constant_truth: np.ndarray  # bool
    constant_prediction: np.ndarray  # bool


@dataclass(frozen=True)
class GeneScores:
    """One record for each gene of a slice; all arrays are (n_genes,), in the panel's order."""

    gene: tuple[str, ...]
    r: np.ndarray  # float64; paper pack: NaN where the truth or the prediction is constant
    p: np.ndarray  # float64, two-sided; NaN where r is
    strict_r: np.ndarray  # float64; 0 where only the prediction is constant, NaN where the truth is
    mean_truth: np.ndarray  # float64
    mean_prediction: np.ndarray  # float64
    heg: np.ndarray  # bool: among the genes of highest mean truth on this slice
    strict_heg: np.ndarray  # bool: among those of highest mean on the training slices; all False where that is unknown


@dataclass(frozen=True)
class SliceScore:
    """The scores of one prediction of one slice.

    The constant genes are counted so that the two numbers add up: ``n_constant_truth`` genes are constant in truth
    (excluded by both packs), ``n_constant_prediction`` further genes vary in truth but not in the prediction (NaN
    in ``paper``, 0 in ``strict``).
    """

    n_spots: int
    n_genes: int
    pcc_acg: float
    pcc_heg: float
    mse: float
    mae: float
    strict_pcc_acg: float
    strict_pcc_heg: float  # NaN where the training slices' mean target was not given
    n_constant_truth: int
    n_constant_prediction: int
    genes: GeneScores
    notes: tuple[str, ...] = ()  # what a reader of the numbers must know, in plain words


def score_slide(
    truth: np.ndarray, prediction: np.ndarray, genes: Sequence[str], train_mean: np.ndarray | None = None
) -> SliceScore:
    """Score one slice under both packs.

    ``truth`` and ``prediction`` are (n_spots, n_genes) on the same target's scale, ``genes`` names the columns, and
    ``train_mean`` (n_genes,) is each gene's mean target over all spots of the training slices.

    ========  ===================================================  =====================================================
    ..        ``paper``                                            ``strict``
    ========  ===================================================  =====================================================
    r         NaN where truth or prediction is constant            the same, but 0 where only the prediction is constant
    PCC-ACG   mean of r over all genes, NaN dropped                mean of r over genes that vary in truth
    PCC-HEG   mean of r over the 50 genes of highest mean truth    as ACG, over the 50 genes of highest ``train_mean``
              on this slice; one NaN makes it NaN
    ========  ===================================================  =====================================================

    MSE and MAE are means over all spot and gene entries and the same in both. A panel of fewer than 50 genes is its
    own HEG.

    Raises :class:`UnscorableError` for shapes that do not match and for values that are not finite, naming spot and
    gene.
    """
    truth, prediction = np.asarray(truth), np.asarray(prediction)
    if truth.ndim != 2 or truth.shape[0] == 0 or truth.shape[1] == 0:
        raise UnscorableError(
            f"the truth has shape {truth.shape} - a matrix of spots by genes, one of each at least, is needed"
        )
    if prediction.shape != truth.shape:
        raise UnscorableError(
            f"the prediction has shape {prediction.shape}, the truth {truth.shape} - predict every spot and gene once"
        )
    n_spots, n_genes = truth.shape
    if len(genes) != n_genes:
        raise UnscorableError(f"{len(genes)} gene names for {n_genes} columns - give one name a column, in order")
    _require_finite("truth", truth, genes)
    _require_finite("prediction", prediction, genes)
    truth, prediction = truth.astype(np.float64), prediction.astype(np.float64)

    correlation = per_gene(truth, prediction)
    r = correlation.r
    only_prediction_constant = correlation.constant_prediction & ~correlation.constant_truth
    strict_r = np.where(only_prediction_constant, 0.0, r)
    mean_truth = truth.mean(axis=0)
    heg = highest(mean_truth)
    notes = []
    if n_genes < N_HEG:
        notes.append(f"PCC (HEG) is over all {n_genes} genes: the panel has fewer than {N_HEG}")
    if train_mean is None:
        strict_heg = np.zeros(n_genes, dtype=bool)
        notes.append("strict PCC (HEG) is not given: it needs the mean target of the training slices")
    else:
        train_mean = np.asarray(train_mean, dtype=np.float64)
        if train_mean.shape != (n_genes,) or not np.isfinite(train_mean).all():
            raise ValueError(
                f"train_mean must be {n_genes} finite numbers, one a gene; it has shape {train_mean.shape}"
            )
        strict_heg = highest(train_mean)
    difference = prediction - truth
    return SliceScore(
        n_spots=n_spots,
        n_genes=n_genes,
        pcc_acg=_mean_of_known(r),
        pcc_heg=float(r[heg].mean()),
        mse=float(np.mean(difference**2)),
        mae=float(np.mean(np.abs(difference))),
        strict_pcc_acg=_mean_of_known(strict_r),
        strict_pcc_heg=_mean_of_known(strict_r[strict_heg]),
        n_constant_truth=int(correlation.constant_truth.sum()),
        n_constant_prediction=int(only_prediction_constant.sum()),
        genes=GeneScores(
            gene=tuple(map(str, genes)),
            r=r,
            p=correlation.p,
            strict_r=strict_r,
            mean_truth=mean_truth,
            mean_prediction=prediction.mean(axis=0),
            heg=heg,
            strict_heg=strict_heg,
        ),
        notes=tuple(notes),
    )


def gene_table(slice_id: str, score: SliceScore) -> pd.DataFrame:
    """A slice's gene records as a table: slice, gene, r, p, strict_r, mean_truth, mean_prediction, heg, strict_heg."""
    import pandas as pd

    return pd.DataFrame({"slice": slice_id, **vars(score.genes)})


def per_gene(truth: np.ndarray, prediction: np.ndarray) -> Correlation:
    """Pearson's r and its two-sided p for each column of two (n_spots, n_genes) matrices of finite numbers.

    The same as ``scipy.stats.pearsonr`` column by column, also for inputs near either end of float64's range.
    (Where a column's spread is close to the rounding of its mean, both are noise, and scipy warns; float32 inputs
    are never there.) Of two spots r is exactly 1 or -1 and p is 1; a single spot is constant.
    """
    truth, prediction = np.array(truth, dtype=np.float64), np.array(prediction, dtype=np.float64)  # copies, to work on
    constant_truth = (truth == truth[:1]).all(axis=0)
    constant_prediction = (prediction == prediction[:1]).all(axis=0)
    truth, prediction = _centred_columns(truth), _centred_columns(prediction)
    lengths = np.sqrt(_dot_columns(truth, truth)) * np.sqrt(_dot_columns(prediction, prediction))
    with np.errstate(invalid="ignore"):  # 0 / 0 of a constant column, replaced below
        r = np.clip(_dot_columns(truth, prediction) / lengths, -1.0, 1.0)
    n_spots = len(truth)
    if n_spots == 2:
        r = np.round(r)
    r[constant_truth | constant_prediction] = np.nan
    return Correlation(r, _two_sided_p(r, n_spots), constant_truth, constant_prediction)


def neg_log10_p(r: np.ndarray | float, n: int) -> np.ndarray:
    """-log10 of the two-sided p of Pearson's ``r`` (any shape) over ``n`` spots, also where p itself underflows to 0.

    NaN where r is; infinite where \\|r\\| is 1 (and n above 2). This is the ranking quantity of the paper's tables
    S2 and S3.

    With a = n/2 - 1 and x = 1 - r², p is the regularised incomplete beta function I_x(a, 1/2). In its defining
    integral over t, put t = x·exp(-u/a): I_x(a, 1/2) = x^a / (a·B(a, 1/2)) · ∫ exp(-u)·(1 - x·exp(-u/a))^(-1/2) du
    over u > 0. Where p underflows, the second factor hardly changes over the integral's range, so that a few
    Gauss-Laguerre nodes give it to full precision.
    """
    r = np.asarray(r, dtype=np.float64)
    p = _two_sided_p(r, n)
    with np.errstate(divide="ignore"):
        result = np.asarray(np.abs(np.log10(p)))  # abs: p = 1 gives 0, not -0; p never exceeds 1
    tiny = (p < 1e-290) & (np.abs(r) < 1)  # close to the end of float64 p has lost digits already
    if tiny.any():
        size = np.abs(r[tiny])
        a = n / 2 - 1
        log_x = np.log1p(-size) + np.log1p(size)
        nodes, weights = np.polynomial.laguerre.laggauss(24)
        integral = weights @ (1 / np.sqrt(-np.expm1(log_x[None, :] - nodes[:, None] / a)))
        log_p = a * log_x - np.log(a) - special.betaln(a, 0.5) + np.log(integral)
        result[tiny] = -log_p / np.log(10)
    return result


def highest(mean: np.ndarray, count: int = N_HEG) -> np.ndarray:
    """(n_genes,) bool: the ``count`` genes of highest ``mean``, or all where there are not that many.

    The published code takes the last 50 of ``np.argsort``, which leaves ties to the sorting routine; here the sort
    is stable, so that of equal genes the later one in the panel is taken, on every machine.
    """
    chosen = np.zeros(len(mean), dtype=bool)
    chosen[np.argsort(mean, kind="stable")[-count:]] = True
    return chosen


def _centred_columns(values: np.ndarray) -> np.ndarray:
    """Columns less their means, times a power of two where their squares would leave float64's range; in place."""
    values = _in_range(values)
    values -= values.mean(axis=0)
    values -= values.mean(axis=0)  # what rounding of the first mean left over
    return _in_range(values)


def _in_range(values: np.ndarray) -> np.ndarray:
    """Where a column's largest size is not moderate, columns times the powers of two that bring theirs into [1/2, 1):
    exact."""
    size = np.maximum(values.max(axis=0), -values.min(axis=0))
    if ((size == 0) | (size > 1e-60) & (size < 1e60)).all():
        return values
    _, exponent = np.frexp(size)
    return np.ldexp(values, -exponent, out=values)


def _dot_columns(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("sg,sg->g", a, b)


def _two_sided_p(r: np.ndarray, n: int) -> np.ndarray:
    """Chance that ``n`` independent normal pairs correlate at least so far from 0 in either direction."""
    if n < 2:
        return np.full_like(r, np.nan)
    if n == 2:  # no degree of freedom is left: every pair of spots lies on a line
        return np.where(np.isnan(r), np.nan, 1.0)
    a = n / 2 - 1
    size = np.abs(r)
    # Each form where it is exact: 1 - r² holds too few digits of a small r, and 1 - p those of a small p. 0.45 / n is
    # about the median of r² (that of a chi-squared variable is 0.455).
    small = size * size < 0.45 / n
    p = np.empty_like(size)
    p[small] = 1 - special.betainc(0.5, a, size[small] ** 2)
    p[~small] = special.betainc(a, 0.5, (1 - size[~small]) * (1 + size[~small]))
    return p


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _require_finite(what: str, values: np.ndarray, genes: Sequence[str]) -> None:
    bad = ~np.isfinite(values)
    if bad.any():
        spot, gene = (int(index) for index in np.argwhere(bad)[0])
        more = f" and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
        raise UnscorableError(
            f"the {what} is not a finite number at spot {spot}, gene {genes[gene]} ({values[spot, gene]}){more}"
            " - every spot and gene needs a number"
        )
