"""The graph of a slide: each spot receives from its nearest spots on the array (Hist2ST, THItoGene)."""

from __future__ import annotations

from typing import Literal

import numpy as np

Prune = Literal["grid", "none"]

_ROWS = 1024  # spots whose distances to all others are held at once: 5,000 spots take 40 MB


def nearest_spots(array_xy: np.ndarray, k: int = 4, prune: Prune = "none", max_distance: float = 2.0) -> np.ndarray:
    """``(2, n_edges)`` int64: for each edge the neighbour received from, and the spot that receives (ascending).

    ``array_xy`` is ``(n_spots, 2)``, array coordinates. A spot's neighbours are its ``k`` nearest others by Euclidean
    distance (all others where there are fewer), equal distances in the order of the spots; edges are directed and a
    spot is never its own neighbour. ``prune="grid"`` then drops neighbours farther than ``max_distance``: published as
    ``Grid`` for HER2+, and ``"none"`` as ``NA`` elsewhere. The published order of equal distances is that of an
    unstable sort and cannot be reproduced.
    """
    xy = np.asarray(array_xy)
    n_spots = len(xy)
    k = min(k, n_spots - 1)
    if k < 1:
        return np.empty((2, 0), dtype=np.int64)
    sources, receivers = [], []
    for first in range(0, n_spots, _ROWS):
        block = xy[first : first + _ROWS]
        squared = (block[:, :1] - xy[:, 0]) ** 2.0 + (block[:, 1:] - xy[:, 1]) ** 2.0
        squared[np.arange(len(block)), np.arange(first, first + len(block))] = np.inf
        reach = np.partition(squared, k - 1, axis=1)[:, k - 1 : k]
        row, column = np.nonzero(squared <= reach)  # at least k a row; more where distances tie
        order = np.lexsort((column, squared[row, column], row))
        row, column = row[order], column[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = rank < k
        if prune == "grid":
            kept &= squared[row, column] <= max_distance**2
        sources.append(column[kept])
        receivers.append(row[kept] + first)
    return np.stack([np.concatenate(sources), np.concatenate(receivers)]).astype(np.int64)


def isolated_spots(edges: np.ndarray, n_spots: int) -> np.ndarray:
    """Indices of the spots that receive from nobody."""
    return np.flatnonzero(np.bincount(edges[1], minlength=n_spots) == 0)


def with_self(edges: np.ndarray, spots: np.ndarray) -> np.ndarray:
    """The graph with an edge from each of ``spots`` to itself, appended."""
    return np.concatenate([edges, np.stack([spots, spots]).astype(np.int64)], axis=1)
