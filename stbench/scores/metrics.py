"""How well a prediction of one slice agrees with its truth: PCC (ACG), PCC (HEG), MSE, MAE, and r and p for each gene.

Two packs of definitions answer two questions. ``paper`` is what the published evaluation computes (mclSTExp,
supplementary note 5 and its released code): comparable with printed numbers, but undefined wherever one gene's
correlation is, and its top-50 genes are chosen by looking at the test slice. ``strict`` is what can be believed:
genes chosen on the training slices, a method punished for a constant prediction, genes that cannot be scored
counted.

A gene is *constant* on a slice when all its values are equal (:mod:`stbench.scores.correlation`). Everything is
computed in float64, whatever the inputs' type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError
from ..system.finite import not_finite
from .correlation import Correlation, joined, per_gene
from .pieces import pieces_of_genes

if TYPE_CHECKING:
    import pandas as pd

N_HEG = 50  # the "highly expressed genes" of the paper


class UnscorableError(UserError, ValueError):
    """A prediction (or truth) that cannot be scored: its shape is wrong or a value is not finite. One line."""


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

    Parameters
    ----------
    truth, prediction : ndarray of shape (n_spots, n_genes)
        On the same target's scale.
    genes : sequence of str
        Names of the columns.
    train_mean : ndarray of shape (n_genes,), optional
        Mean target of each gene over all spots of the training slices. Without it ``strict_pcc_heg`` is NaN.

    Returns
    -------
    SliceScore
        All scores of the slice, and those of its genes.

    Raises
    ------
    UnscorableError
        If shapes do not match or values are not finite; the message names spot and gene.
    ValueError
        If ``train_mean`` is not one finite number per gene.

    Notes
    -----
    ========  ===================================================  =====================================================
    ..        ``paper``                                            ``strict``
    ========  ===================================================  =====================================================
    r         NaN where truth or prediction is constant            the same, but 0 where only the prediction is constant
    PCC-ACG   mean of r over all genes, NaN dropped                mean of r over genes that vary in truth
    PCC-HEG   mean of r over the 50 genes of highest mean truth    as ACG, over the 50 genes of highest ``train_mean``
              on this slice; one NaN makes it NaN
    ========  ===================================================  =====================================================

    MSE and MAE are means over all spot and gene entries and the same in both. A panel of fewer than 50 genes is its own
    HEG.

    Examples
    --------
    >>> truth = np.array([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0]])
    >>> prediction = np.array([[0.5, 2.0], [1.0, 2.0], [1.5, 2.0]])  # the second gene is predicted by a constant
    >>> score = score_slide(truth, prediction, ["CD74", "FASN"])
    >>> [round(value, 3) for value in (score.pcc_acg, score.strict_pcc_acg, score.mse)]
    [1.0, 0.5, 0.417]
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
        raise UnscorableError(f"{len(genes)} gene names for {n_genes} columns - give one name per column, in order")
    _require_finite("truth", truth, genes)
    _require_finite("prediction", prediction, genes)
    parts = [_agreement(truth[:, part], prediction[:, part]) for part in pieces_of_genes(n_spots, n_genes)]
    correlation = joined([part.correlation for part in parts])
    r = correlation.r
    only_prediction_constant = correlation.constant_prediction & ~correlation.constant_truth
    strict_r = np.where(only_prediction_constant, 0.0, r)
    mean_truth = np.concatenate([part.mean_truth for part in parts])
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
                f"train_mean must be {n_genes} finite numbers, one per gene; it has shape {train_mean.shape}"
            )
        strict_heg = highest(train_mean)
    return SliceScore(
        n_spots=n_spots,
        n_genes=n_genes,
        pcc_acg=_mean_of_known(r),
        pcc_heg=float(r[heg].mean()),
        mse=sum(part.squared for part in parts) / truth.size,
        mae=sum(part.absolute for part in parts) / truth.size,
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
            mean_prediction=np.concatenate([part.mean_prediction for part in parts]),
            heg=heg,
            strict_heg=strict_heg,
        ),
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Agreement:
    """Of some genes."""

    correlation: Correlation
    mean_truth: np.ndarray
    mean_prediction: np.ndarray
    squared: float  # sums over spots and genes
    absolute: float


def _agreement(truth: np.ndarray, prediction: np.ndarray) -> _Agreement:
    truth, prediction = truth.astype(np.float64), prediction.astype(np.float64)
    difference = prediction - truth
    return _Agreement(
        per_gene(truth, prediction),
        truth.mean(axis=0),
        prediction.mean(axis=0),
        float(np.sum(difference**2)),
        float(np.sum(np.abs(difference))),
    )


def gene_table(slice_id: str, score: SliceScore) -> pd.DataFrame:
    """A slice's gene records as a table.

    Parameters
    ----------
    slice_id : str
        Name of the slice.
    score : SliceScore
        As :func:`score_slide` returns it.

    Returns
    -------
    pandas.DataFrame
        One row per gene: slice, gene, r, p, strict_r, mean_truth, mean_prediction, heg, strict_heg.
    """
    import pandas as pd

    return pd.DataFrame({"slice": slice_id, **vars(score.genes)})


def highest(mean: np.ndarray, count: int = N_HEG) -> np.ndarray:
    """Which genes have the highest mean.

    The published code takes the last 50 of ``np.argsort``, which leaves ties to the sorting routine. The sort is stable
    here: of equal genes the later one in the panel is taken, on every machine.

    Parameters
    ----------
    mean : ndarray of shape (n_genes,)
        Mean of each gene.
    count : int, default=50
        Number of genes; all if there are not that many.

    Returns
    -------
    ndarray of shape (n_genes,)
        bool.

    Examples
    --------
    >>> highest(np.array([0.1, 2.0, 1.0]), count=2).tolist()
    [False, True, True]
    """
    chosen = np.zeros(len(mean), dtype=bool)
    chosen[np.argsort(mean, kind="stable")[-count:]] = True
    return chosen


def _mean_of_known(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _require_finite(what: str, values: np.ndarray, genes: Sequence[str]) -> None:
    bad = not_finite(values)
    if bad is not None:
        more = f" and {bad.count - 1} more" if bad.count > 1 else ""
        value = values[bad.row, bad.column]
        raise UnscorableError(
            f"the {what} is not a finite number at spot {bad.row}, gene {genes[bad.column]} ({value}){more}"
            " - every spot and gene needs a number"
        )
