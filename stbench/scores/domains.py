"""Regions of a slice from expression: clusters of the predicted and of the measured values against the pathologist's.

As the paper (mclSTExp, supplementary note 6, figure S3) and its released tutorial do it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..system.files import value_digest

if TYPE_CHECKING:
    import pandas as pd

    from ..data.prepared import PreparedSlide

N_COMPONENTS = 9
N_STARTS = 10  # of K-means, of which the best counts; scikit-learn's own default changed from 10 to 1
SEEDS = tuple(range(10))  # seed 0 is the paper's; the others show how far its number is luck
UNLABELLED = ("", "undetermined")


def domains(slide: PreparedSlide, prediction: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Agreement of clusters with a slide's labels, and the clusters.

    Spots without a label, and those labelled "undetermined", are left out first.

    Parameters
    ----------
    slide : PreparedSlide
        Holds the labels and the truth.
    prediction : ndarray of shape (n_spots, n_genes)
        Clustered as the truth is.

    Returns
    -------
    agreement : pandas.DataFrame
        One row for each combination of what was clustered (``of``: prediction or truth) and seed: slice, of,
        kmeans_seed, k (number of clusters, that of the labels left), n_spots, ari, nmi (normalised by the arithmetic
        mean of both entropies).
    spots : pandas.DataFrame
        One row for each spot left: slice, spot, x, y (pixel centre at full resolution), label, and the clusters of seed
        0, cluster_prediction and cluster_truth.

    Notes
    -----
    ``None`` in place of both for fewer than two labelled regions.
    """
    import pandas as pd

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
    found = {
        "prediction": _agreement(prediction[chosen], labels, k),
        "truth": _agreement_of_truth(slide.target[chosen], labels, k),
    }
    for clustered, (agreement, first) in found.items():
        for seed, (ari, nmi) in zip(SEEDS, agreement, strict=True):
            what = {"slice": slide.id, "of": clustered, "kmeans_seed": seed, "k": k, "n_spots": len(chosen)}
            rows.append(what | {"ari": ari, "nmi": nmi})
        spots[f"cluster_{clustered}"] = first
    return pd.DataFrame(rows), spots


# of each seed the adjusted Rand index and the normalised mutual information; and the clusters of the first seed
Agreement = tuple[tuple[tuple[float, float], ...], np.ndarray]


def _agreement(values: np.ndarray, labels: np.ndarray, k: int) -> Agreement:
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    components = principal_components(values)
    found = [clusters(components, k, seed) for seed in SEEDS]
    distinct = {each.tobytes(): each for each in found}  # many seeds find the same
    scores = {
        key: (
            float(adjusted_rand_score(labels, each)),
            float(normalized_mutual_info_score(labels, each, average_method="arithmetic")),
        )
        for key, each in distinct.items()
    }
    return tuple(scores[each.tobytes()] for each in found), found[0]


TRUTHS_KEPT = 32
_truths: dict[str, Agreement] = {}  # of this process: what was clustered to what came out


def _agreement_of_truth(values: np.ndarray, labels: np.ndarray, k: int) -> Agreement:
    """As :func:`_agreement`; the truth of a slice is the same for every method and seed, and clustered once."""
    digest = hashlib.blake2b(np.ascontiguousarray(values).tobytes(), digest_size=16).hexdigest()
    key = value_digest([digest, values.dtype.str, values.shape, labels.tolist(), k])
    if key not in _truths:
        while len(_truths) >= TRUTHS_KEPT:
            _truths.pop(next(iter(_truths)))
        _truths[key] = _agreement(values, labels, k)
    return _truths[key]


def labelled(labels: Sequence[str | None] | None) -> np.ndarray:
    """Indices of the spots whose label says something: not missing, not blank, not "undetermined".

    Examples
    --------
    >>> labelled(["tumour", None, "", "Undetermined", "stroma"]).tolist()
    [0, 4]
    """
    known = [(label or "").strip().lower() not in UNLABELLED for label in labels or ()]
    return np.flatnonzero(np.array(known, dtype=bool))


def principal_components(values: np.ndarray, count: int = N_COMPONENTS) -> np.ndarray:
    """Scores of the leading principal components.

    Genes are centred and not scaled, as in scanpy's ``pca`` by default. The decomposition is the full one, which gives
    the same components as scanpy's iterative one up to their signs.

    Parameters
    ----------
    values : ndarray of shape (n_spots, n_genes)
        A prediction or a target.
    count : int, default=9
        Number of components at most.

    Returns
    -------
    ndarray of shape (n_spots, n_components)
        float64. Fewer than ``count`` components if there are fewer genes or spots; one of zeros if no gene varies.

    Examples
    --------
    >>> principal_components(np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])).shape
    (3, 2)
    """
    from sklearn.decomposition import PCA

    values = np.asarray(values, dtype=np.float64)
    if (values == values[:1]).all():
        return np.zeros((len(values), 1))
    return PCA(min(count, *values.shape), svd_solver="full").fit_transform(values)


def clusters(components: np.ndarray, k: int, seed: int) -> np.ndarray:
    """K-means with k-means++ starts, the best of 10.

    Parameters
    ----------
    components : ndarray of shape (n_spots, n_components)
        Points.
    k : int
        Number of clusters. There are fewer if there are fewer distinct points (a constant prediction has one).
    seed : int
        Of the starts.

    Returns
    -------
    ndarray of shape (n_spots,)
        Cluster of each spot, from 0.

    Examples
    --------
    >>> found = clusters(np.array([[0.0], [0.1], [5.0]]), k=2, seed=0)
    >>> bool(found[0] == found[1] != found[2])
    True
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    if (components == components[:1]).all():  # a constant prediction: of equal centres the first is taken
        return np.zeros(len(components), dtype=np.int32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters: said above
        return KMeans(k, init="k-means++", n_init=N_STARTS, random_state=seed).fit_predict(components)
