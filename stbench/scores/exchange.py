"""What the image contributes: a slide is predicted once more with its patches exchanged between its spots.

Positions, and all else that a method is told of a spot, stay where they are. What the prediction then keeps it does not
owe to the patch of the spot; what it loses it does. The order in which patches are exchanged follows from the trial's
seed, the dataset and the slice alone, so that all methods, folds and targets are asked the same.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ..method import Run, TestSlide
from ..slides.tiles import exchanged
from .metrics import UnscorableError, score_slide
from .pieces import pieces_of_genes

COLUMNS = ("exchanged_move", "exchanged_pcc_acg", "exchanged_strict_pcc_acg")
NOT_MEASURED = dict.fromkeys(COLUMNS, float("nan"))


def order_of_exchange(n_spots: int, rng: np.random.Generator) -> np.ndarray:
    """Which spot's patch each spot is given: one random cycle through all spots.

    Parameters
    ----------
    n_spots : int
        At least two.
    rng : numpy.random.Generator
        Draws the cycle.

    Returns
    -------
    ndarray of shape (n_spots,)
        int64. No spot is given its own patch; every other spot's is equally likely.

    Examples
    --------
    >>> order = order_of_exchange(5, np.random.default_rng(0))
    >>> sorted(order.tolist()), bool((order == np.arange(5)).any())
    ([0, 1, 2, 3, 4], False)
    """
    order = rng.permutation(n_spots)
    given = np.empty(n_spots, dtype=np.int64)
    given[order] = np.roll(order, 1)
    return given


def exchanged_slide(slide: TestSlide, dataset: str, seed: int) -> TestSlide:
    """A slide whose patches are exchanged between its spots.

    Parameters
    ----------
    slide : TestSlide
        Of at least two spots, with its patches where they belong.
    dataset : str
        Name of the dataset; the exchange is seeded by it, by the slide's name and by ``seed``.
    seed : int
        The trial's seed, as in the tables.

    Returns
    -------
    TestSlide
        All else of it is as it was.
    """
    rng = Run(seed=seed).numpy_generator("exchanged patches", dataset, slide.id)
    order = order_of_exchange(slide.n_spots, rng)
    margins = None if slide.margins is None else slide.margins[order]  # what of a patch lies outside the image
    return replace(slide, patches=exchanged(slide.patches, order), margins=margins)


def movement(prediction: np.ndarray, exchanged: np.ndarray) -> float:
    """How far a prediction moves when patches are exchanged, as a share of its spread between spots.

    Parameters
    ----------
    prediction, exchanged : ndarray of shape (n_spots, n_genes)
        P and E, without and with exchange.

    Returns
    -------
    float
        0 if the image is not used. A prediction that follows from the spot's own patch alone moves by about sqrt(2) =
        1.41, as far as any two spots lie apart; one that also looks at neighbouring patches may move further. NaN if no
        gene's prediction varies.

    Notes
    -----
    With m the mean of each gene's P over the spots, and sums over spots and genes::

        sqrt( Σ (E - P)² ) / sqrt( Σ (P - m)² )

    Examples
    --------
    >>> prediction = np.array([[0.0], [1.0], [2.0]])
    >>> movement(prediction, prediction)
    0.0
    >>> round(movement(prediction, prediction[[1, 2, 0]]), 2)
    1.73
    """
    moved = spread = 0.0
    for part in pieces_of_genes(*np.shape(prediction)):
        before, after = (np.asarray(values[:, part], dtype=np.float64) for values in (prediction, exchanged))
        varied = (before != before[:1]).any(axis=0)
        spread += float(np.sum((before[:, varied] - before[:, varied].mean(axis=0)) ** 2))
        moved += float(np.sum((after - before) ** 2))
    return math.sqrt(moved / spread) if spread else float("nan")


def exchange_scores(
    truth: np.ndarray, prediction: np.ndarray, exchanged: np.ndarray, genes: tuple[str, ...]
) -> dict[str, float]:
    """What the image contributes to a prediction.

    Parameters
    ----------
    truth, prediction, exchanged : ndarray of shape (n_spots, n_genes)
        The target, the prediction, and that with exchanged patches.
    genes : tuple of str
        Names of the columns.

    Returns
    -------
    dict of str to float
        ``COLUMNS``: :func:`movement`, and PCC-ACG of the exchanged prediction against the truth, paper and strict.

    Raises
    ------
    UnscorableError
        If the exchanged prediction has another shape or values that are not finite.

    Examples
    --------
    >>> truth = np.array([[0.0], [1.0], [2.0]])
    >>> scores = exchange_scores(truth, truth, truth[[1, 2, 0]], ("CD74",))
    >>> {name: round(value, 2) for name, value in scores.items()}
    {'exchanged_move': 1.73, 'exchanged_pcc_acg': -0.5, 'exchanged_strict_pcc_acg': -0.5}
    """
    score = score_slide(truth, exchanged, genes)
    values = (movement(prediction, exchanged), score.pcc_acg, score.strict_pcc_acg)
    return dict(zip(COLUMNS, values, strict=True))


def scores_of_exchange(
    slide_id: str, truth: np.ndarray, prediction: np.ndarray, exchanged: np.ndarray | None, genes: tuple[str, ...]
) -> tuple[dict[str, float], list[str]]:
    """:func:`exchange_scores` if they are defined, else NaN and the reason.

    Parameters
    ----------
    slide_id : str
        Name of the slice, for the reason.
    truth, prediction : ndarray of shape (n_spots, n_genes)
        The target and the prediction.
    exchanged : ndarray of shape (n_spots, n_genes) or None
        As :func:`stbench.trials.asking.predict_again` returns it.
    genes : tuple of str
        Names of the columns.

    Returns
    -------
    scores : dict of str to float
        ``COLUMNS``.
    notes : list of str
        Why they are NaN, in words; empty if they are defined.
    """
    if exchanged is None:
        return NOT_MEASURED, [
            f"slice {slide_id} has one spot, whose patch cannot be exchanged: what the image contributes is undefined"
        ]
    try:
        return exchange_scores(truth, prediction, exchanged, genes), []
    except UnscorableError as error:
        return NOT_MEASURED, [f"slice {slide_id} with its patches exchanged cannot be scored: {error}"]
