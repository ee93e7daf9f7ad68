"""Averages over the nearest training spots, by whatever distance, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

BLOCK_ELEMENTS = 2**23  # distances at a time: 64 MiB of float64


def plane_distances(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n_queries, n_keys) squared distances in the plane."""
    return (queries[:, :1] - keys[:, 0]) ** 2 + (queries[:, 1:] - keys[:, 1]) ** 2


def negative_cosines(queries: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """(n_queries, n_keys) negative cosine similarities of vectors of length 1."""
    return -(queries @ keys.T)


def mean_of_nearest(
    queries: np.ndarray,
    keys: np.ndarray,
    target: np.ndarray,
    k: int,
    distance: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """(n_queries, n_genes) float32: the mean target of the ``k`` nearest keys; of equally near ones the first count.

    Works through blocks of queries, so that no more than ``BLOCK_ELEMENTS`` distances are kept at a time.
    """
    k = min(k, len(keys))
    block = max(1, BLOCK_ELEMENTS // len(keys))
    means = np.empty((len(queries), target.shape[1]), dtype=np.float32)
    for start in range(0, len(queries), block):
        distances = distance(queries[start : start + block], keys)
        for row, to_keys in enumerate(distances, start):
            near = np.flatnonzero(to_keys <= np.partition(to_keys, k - 1)[k - 1])
            near = near[np.argsort(to_keys[near], kind="stable")[:k]]
            means[row] = target[near].mean(axis=0, dtype=np.float64)
    return means
