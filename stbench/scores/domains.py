"""Regions of a slice from expression: clusters of the predicted and of the measured values against the pathologist's.

As the paper (mclSTExp, supplementary note 6, figure S3) and its released tutorial do it.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from ..data.prepared import PreparedSlide

N_COMPONENTS = 9
N_STARTS = 10  # of K-means, of which the best counts; scikit-learn's own default changed from 10 to 1
SEEDS = tuple(range(10))  # seed 0 is the paper's; the others show how far its number is luck
UNLABELLED = ("", "undetermined")


def domains(slide: PreparedSlide, prediction: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Agreement of clusters with the slide's labels, and the clusters; ``None`` for fewer than two labelled regions.

    ``prediction`` is (n_spots, n_genes). Spots without a label, and those labelled "undetermined", are left out first.

    The first table has a row for what was clustered (``of``: prediction or truth) and each seed: slice, of,
    kmeans_seed, k (clusters: the number of labels left), n_spots, ari, nmi (mean of both entropies as its norm). The
    second has a row for each spot left: slice, spot, x, y (pixel centre at full resolution), label, and the clusters of
    seed 0, cluster_prediction and cluster_truth.
    """
    import pandas as pd
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    chosen = labelled(slide.labels)
    labels = np.array([slide.labels[spot] for spot in chosen] if slide.labels is not None else [], dtype=object)
    k = len(set(labels))
    if k < 2:
        return None
    rows = []
    spots = pd.DataFrame(
        {
            "slice": slide.id,
            "spot": [slide.spot_ids[spot] for spot in chosen],
            "x": slide.pixel_xy[chosen, 0],
            "y": slide.pixel_xy[chosen, 1],
            "label": labels,
        }
    )
    for of, values in (("prediction", prediction), ("truth", slide.target)):
        components = principal_components(values[chosen])
        for seed in SEEDS:
            found = clusters(components, k, seed)
            rows.append(
                {
                    **{"slice": slide.id, "of": of, "kmeans_seed": seed, "k": k, "n_spots": len(chosen)},
                    "ari": adjusted_rand_score(labels, found),
                    "nmi": normalized_mutual_info_score(labels, found, average_method="arithmetic"),
                }
            )
            if seed == SEEDS[0]:
                spots[f"cluster_{of}"] = found
    return pd.DataFrame(rows), spots


def labelled(labels: Sequence[str | None] | None) -> np.ndarray:
    """Indices of the spots whose label says something: not missing, not blank, not "undetermined"."""
    known = [(label or "").strip().lower() not in UNLABELLED for label in labels or ()]
    return np.flatnonzero(np.array(known, dtype=bool))


def principal_components(values: np.ndarray, count: int = N_COMPONENTS) -> np.ndarray:
    """(n_spots, up to ``count``) float64 scores of the leading components of ``values`` (n_spots, n_genes).

    Genes are centred and not scaled, as scanpy's ``pca`` does by default; the decomposition is the full one, which
    gives the same components as its iterative one up to their signs. Fewer components where there are fewer genes or
    spots; one of zeros where no gene varies.
    """
    from sklearn.decomposition import PCA

    values = np.asarray(values, dtype=np.float64)
    if (values == values[:1]).all():
        return np.zeros((len(values), 1))
    return PCA(min(count, *values.shape), svd_solver="full").fit_transform(values)


def clusters(components: np.ndarray, k: int, seed: int) -> np.ndarray:
    """(n_spots,) int: K-means into ``k`` clusters, k-means++ starts, the best of 10.

    Where there are fewer distinct points than ``k`` (a constant prediction has one), there are fewer clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: said above
        return KMeans(k, init="k-means++", n_init=N_STARTS, random_state=seed).fit_predict(components)
