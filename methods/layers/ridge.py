"""Ridge regression of many genes at once, on all features or on their principal components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

ALPHAS = (1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2)  # penalties to choose from, per training spot
FOLDS = 5  # at most, when penalties are chosen


def fit_ridge(
    features: Sequence[np.ndarray], targets: Sequence[np.ndarray], alpha: float | None
) -> dict[str, np.ndarray]:
    """Ridge regression of all genes on standardised features, with an intercept that is not penalised.

    Per training slide (n_spots, n_features) features and (n_spots, n_genes) targets. ``alpha`` is the penalty per
    training spot (scikit-learn's divided by the number of spots); ``None``: for each gene the one of ``ALPHAS`` with
    the least squared error on training slides left out in turn. Returns what :func:`predict_ridge` needs.
    """
    joined, target = np.concatenate(features), np.concatenate(targets)
    alphas = _choose_alphas(joined, target, [len(part) for part in features]) if alpha is None else np.array([alpha])
    centre, scale = standardisation(joined)
    return {
        "centre": centre,
        "scale": scale,
        "weights": next(_ridge_weights((joined - centre) / scale, target, [alphas])),
        "intercept": target.mean(axis=0, dtype=np.float64),
        "alpha": alphas,
    }


def fit_principal_ridge(
    features: Sequence[np.ndarray], targets: Sequence[np.ndarray], n_components: int, penalty: float | None
) -> dict[str, np.ndarray]:
    """Ridge regression of all genes on the first principal components of standardised features, with an intercept.

    Per training slide (n_spots, n_features) features and (n_spots, n_genes) targets. Components are at most as many as
    there are spots or features. ``penalty`` is scikit-learn's alpha; ``None``: 100 / (components * genes). Returns what
    :func:`predict_ridge` needs: components are a rotation, so the weights are those of the features themselves.
    """
    joined, target = np.concatenate(features), np.concatenate(targets)
    centre, scale = standardisation(joined)
    standardised = (joined - centre) / scale
    kept = min(n_components, *joined.shape)
    alpha = 100 / (kept * target.shape[1]) if penalty is None else penalty
    intercept = target.mean(axis=0, dtype=np.float64)
    values, vectors = np.linalg.eigh(standardised.T @ standardised)  # ascending
    values, vectors = np.maximum(values[-kept:], 0), vectors[:, -kept:]
    projected = vectors.T @ (standardised.T @ (target - intercept))
    weights = vectors @ (projected / (values + alpha)[:, None])
    return {"centre": centre, "scale": scale, "weights": weights, "intercept": intercept, "alpha": np.array([alpha])}


def predict_ridge(learnt: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """(n_spots, n_genes) float32."""
    standardised = (features - learnt["centre"]) / learnt["scale"]
    return (standardised @ learnt["weights"] + learnt["intercept"]).astype(np.float32)


def standardisation(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation per feature; a feature that does not vary is only centred."""
    centre, scale = features.mean(axis=0, dtype=np.float64), features.std(axis=0, dtype=np.float64)
    # what rounding leaves of a constant is not a scale
    return centre, np.where(scale > 1e-9 * np.abs(centre), scale, 1.0)


def _choose_alphas(features: np.ndarray, target: np.ndarray, n_spots: Sequence[int]) -> np.ndarray:
    """(n_genes,): per gene the best of ``ALPHAS`` on slides left out in turn; with one slide, on its spots.

    Of equally good ones the strongest, which is also what a single spot gets.
    """
    unit = np.repeat(np.arange(len(n_spots)), n_spots) if len(n_spots) > 1 else np.arange(len(features))
    group_of = unit % FOLDS
    groups = np.unique(group_of)
    strongest_first = sorted(ALPHAS, reverse=True)
    errors = np.zeros((len(ALPHAS), target.shape[1]))
    for group in groups if len(groups) > 1 else groups[:0]:
        train, left_out = group_of != group, group_of == group
        centre, scale = standardisation(features[train])
        standardised = (features - centre) / scale
        residual = target[left_out] - target[train].mean(axis=0, dtype=np.float64)
        weights_by_alpha = _ridge_weights(standardised[train], target[train], [np.array([a]) for a in strongest_first])
        for i, weights in enumerate(weights_by_alpha):
            errors[i] += ((residual - standardised[left_out] @ weights) ** 2).sum(axis=0)
    return np.array(strongest_first)[errors.argmin(axis=0)]


def _ridge_weights(features: np.ndarray, target: np.ndarray, penalties: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """For each penalty ((1,) for all genes, or (n_genes,)) the (n_features, n_genes) weights W that minimise
    |T - FW|^2 / n + alpha |W|^2, gene by gene.

    ``features`` F (n, n_features) are centred; T is the centred target. One eigendecomposition serves all penalties.
    """
    values, vectors = np.linalg.eigh(features.T @ features)
    projected = vectors.T @ (features.T @ (target - target.mean(axis=0, dtype=np.float64)))
    for alpha in penalties:
        yield vectors @ (projected / (np.maximum(values, 0)[:, None] + alpha * len(features)))
