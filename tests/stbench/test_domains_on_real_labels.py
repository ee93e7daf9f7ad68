"""Clusters of measured expression against the pathologist's labels of HER2+, equal to what was measured elsewhere.

The sections have no image here and cannot be prepared; their counts and labels are enough.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score

from stbench.data.targets import target
from stbench.datasets.panels import panel
from stbench.scores.domains import labelled, principal_components
from stbench.slides.slide import Slide

pytestmark = pytest.mark.data

# regions and undetermined spots, as many as Figure S3 of the paper has colours and dots of them; lowest and highest
# ARI of clusters of the per-spot target over 20 seeds of K-means with one start each
MEASURED = {
    "B1": (4, 26, 0.217, 0.337),
    "C1": (3, 9, 0.043, 0.166),
    "D1": (3, 51, 0.177, 0.298),
    "E1": (3, 53, 0.040, 0.064),
    "F1": (3, 32, -0.005, 0.088),
    "G2": (6, 65, 0.185, 0.262),
}


@pytest.mark.parametrize("name", MEASURED)
def test_observed_expression_agrees_with_the_labels_as_far_as_was_measured(
    labelled_section: Callable[[str], Slide], name: str
) -> None:
    k, n_undetermined, lowest, highest = MEASURED[name]
    slide = labelled_section(name)
    labels = slide.adata.obs["label"].to_numpy()
    chosen = labelled(list(labels))
    assert len(labels) - len(chosen) == n_undetermined
    assert len(set(labels[chosen])) == k
    counts = slide.adata[:, panel("her2st")].X.toarray()
    values = target("spot-log10-cp10k")(counts, np.asarray(slide.adata.X.sum(axis=1)).ravel())
    components = principal_components(values[chosen])
    found = [
        adjusted_rand_score(labels[chosen], KMeans(k, n_init=1, random_state=seed).fit_predict(components))
        for seed in range(20)
    ]
    assert (min(found), max(found)) == pytest.approx((lowest, highest), abs=0.001)
