"""Correlations of a HER2+ slice against the per-gene scipy loop of the published evaluation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import pearsonr

from stbench.scores.correlation import per_gene

N_SPOTS, N_GENES = 361, 785  # the mean HER2+ slice


def test_correlations_of_all_genes_at_once(times_as_fast: Callable) -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.standard_normal((2, N_SPOTS, N_GENES)).astype(np.float32)

    def loop() -> np.ndarray:
        return np.array([pearsonr(truth[:, gene], prediction[:, gene]) for gene in range(N_GENES)])

    np.testing.assert_allclose(per_gene(truth, prediction).r, loop()[:, 0], atol=1e-5)
    times_as_fast(lambda: per_gene(truth, prediction), loop)
