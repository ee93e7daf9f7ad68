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
    """One row for each target: slice, target, pcc_acg, pcc_heg, strict_pcc_acg, strict_pcc_heg.

    ``prediction`` is (n_spots, n_genes), on whatever target it was learned; ``training_means`` are those of
    :func:`training_means`. The 50 highly expressed genes are chosen anew on every target: a gene's mean depends on it.
    """
    import pandas as pd

    rows = []
    for name, target in TARGETS.items():
        truth = target(slide.counts, slide.total_counts, slide.n_measured)
        score = score_slide(truth, prediction, slide.genes, train_mean=training_means[name])
        rows.append({"slice": slide.id, "target": name, **{field: getattr(score, field) for field in SCORES}})
    return pd.DataFrame(rows)


def training_means(slides: Sequence[PreparedSlide]) -> dict[str, np.ndarray]:
    """For each target every gene's mean over all spots of the training slides, (n_genes,) float64."""
    return {name: _mean(slides, target) for name, target in TARGETS.items()}


def _mean(slides: Sequence[PreparedSlide], target: Target) -> np.ndarray:
    total = sum(
        target(slide.counts, slide.total_counts, slide.n_measured).sum(axis=0, dtype=np.float64) for slide in slides
    )
    return np.asarray(total) / sum(slide.n_spots for slide in slides)
