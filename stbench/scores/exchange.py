"""What the image contributes: a slide is predicted once more with its patches exchanged between its spots.

Positions, and all else that a method is told of a spot, stay where they are. What the prediction then keeps it does not
owe to the patch of the spot; what it loses it does. The order in which patches are exchanged follows from the trial's
seed, the dataset and the slice alone, so that all methods, folds and targets are asked the same.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..method import Method, Run, TestSlide
from .metrics import UnscorableError, score_slide

COLUMNS = ("exchanged_move", "exchanged_pcc_acg", "exchanged_strict_pcc_acg")
NOT_MEASURED = dict.fromkeys(COLUMNS, float("nan"))


def order_of_exchange(n_spots: int, rng: np.random.Generator) -> np.ndarray:
    """(n_spots,) int64: which spot's patch each spot is given, never its own; one random cycle through all spots.

    Every other spot's patch is equally likely. There are two spots at least.
    """
    order = rng.permutation(n_spots)
    given = np.empty(n_spots, dtype=np.int64)
    given[order] = np.roll(order, 1)
    return given


def predict_exchanged(method: Method, slide: TestSlide, dataset: str, seed: int) -> np.ndarray | None:
    """(n_spots, n_genes) float32: ``method``'s prediction with exchanged patches; None where there is one spot only.

    ``seed``: the trial's, as in the tables.
    """
    if slide.n_spots < 2:
        return None
    rng = Run(seed=seed).numpy_generator("exchanged patches", dataset, slide.id)
    order = order_of_exchange(slide.n_spots, rng)
    margins = None if slide.margins is None else slide.margins[order]  # what of a patch lies outside the image
    given = replace(slide, patches=slide.patches[order], margins=margins)
    return np.asarray(method.predict(given), dtype=np.float32)


def movement(prediction: np.ndarray, exchanged: np.ndarray) -> float:
    """How far a prediction moves when the patches are exchanged, as a share of its spread between spots.

    ``prediction`` P and ``exchanged`` E are (n_spots, n_genes); with m the mean of each gene's P over the spots

        sqrt( Σ (E - P)² ) / sqrt( Σ (P - m)² ),  sums over spots and genes

    0: the image is not used. A prediction that follows from the spot's own patch alone moves by about sqrt(2) = 1.41,
    as far as any two spots lie apart; one that looks at neighbouring patches too may move further. NaN where no gene's
    prediction varies.
    """
    prediction, exchanged = np.asarray(prediction, dtype=np.float64), np.asarray(exchanged, dtype=np.float64)
    varied = (prediction != prediction[:1]).any(axis=0)
    if not varied.any():
        return float("nan")
    spread = np.sum((prediction[:, varied] - prediction[:, varied].mean(axis=0)) ** 2)
    return float(np.sqrt(np.sum((exchanged - prediction) ** 2) / spread))


def exchange_scores(
    truth: np.ndarray, prediction: np.ndarray, exchanged: np.ndarray, genes: tuple[str, ...]
) -> dict[str, float]:
    """``COLUMNS``: :func:`movement`, and PCC-ACG of the exchanged prediction against the truth, paper and strict.

    All arrays are (n_spots, n_genes). Raises :class:`stbench.scores.metrics.UnscorableError` for an exchanged
    prediction of another shape, or with values that are not finite.
    """
    score = score_slide(truth, exchanged, genes)
    values = (movement(prediction, exchanged), score.pcc_acg, score.strict_pcc_acg)
    return dict(zip(COLUMNS, values, strict=True))


def scores_of_exchange(
    slide_id: str, truth: np.ndarray, prediction: np.ndarray, exchanged: np.ndarray | None, genes: tuple[str, ...]
) -> tuple[dict[str, float], list[str]]:
    """:func:`exchange_scores` where they are defined, else NaN, and the reason in words."""
    if exchanged is None:
        return NOT_MEASURED, [
            f"slice {slide_id} has one spot, whose patch cannot be exchanged: what the image contributes is undefined"
        ]
    try:
        return exchange_scores(truth, prediction, exchanged, genes), []
    except UnscorableError as error:
        return NOT_MEASURED, [f"slice {slide_id} with its patches exchanged cannot be scored: {error}"]
