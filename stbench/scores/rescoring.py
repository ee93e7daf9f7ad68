"""One prediction against the truth on every named target: does the order of methods depend on the scale of the truth?

Pearson's r does not change when a gene's prediction is shifted or stretched, so the prediction is taken as it is. An
error (MSE, MAE) would need the prediction converted to the other scale, which cannot be done without the counts that
the prediction lacks: it is not given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..data.prepared import PreparedSlide
from ..data.targets import TARGETS, Target
from .metrics import score_slide

if TYPE_CHECKING:
    import pandas as pd

SCORES = ("pcc_acg", "pcc_heg", "strict_pcc_acg", "strict_pcc_heg")


def rescore(slide: PreparedSlide, prediction: np.ndarray, training_means: dict[str, np.ndarray]) -> pd.DataFrame:
    """Score one prediction against the truth on every named target.

    Parameters
    ----------
    slide : PreparedSlide
        Holds the counts from which every target is made.
    prediction : ndarray of shape (n_spots, n_genes)
        On whatever target it was learnt.
    training_means : dict of str to ndarray of shape (n_genes,)
        As :func:`training_means` returns them; without a target's, its ``strict_pcc_heg`` is NaN.

    Returns
    -------
    pandas.DataFrame
        One row per target: slice, target, pcc_acg, pcc_heg, strict_pcc_acg, strict_pcc_heg. The 50 highly expressed
        genes are chosen anew on every target, as a gene's mean depends on it.
    """
    import pandas as pd

    rows = []
    for name, target in TARGETS.items():
        truth = target(slide.counts, slide.total_counts, slide.n_measured)
        score = score_slide(truth, prediction, slide.genes, train_mean=training_means.get(name))
        rows.append({"slice": slide.id, "target": name, **{field: getattr(score, field) for field in SCORES}})
    return pd.DataFrame(rows)


def training_means(slides: Sequence[PreparedSlide]) -> dict[str, np.ndarray]:
    """Mean of every gene over all spots of the training slides, on every named target.

    Parameters
    ----------
    slides : sequence of PreparedSlide
        The training slides.

    Returns
    -------
    dict of str to ndarray of shape (n_genes,)
        float64, by the target's name.
    """
    return {name: _mean(slides, target) for name, target in TARGETS.items()}


def _mean(slides: Sequence[PreparedSlide], target: Target) -> np.ndarray:
    total = sum(
        target(slide.counts, slide.total_counts, slide.n_measured).sum(axis=0, dtype=np.float64) for slide in slides
    )
    return np.asarray(total) / sum(slide.n_spots for slide in slides)
