"""The distance between neighbouring spots in pixels: with the array's known pitch, the size of a pixel."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree


def nearest_neighbour_pitch(centres: np.ndarray) -> float | None:
    """Median distance of a spot to its nearest neighbour; ``centres`` is (n, 2). ``None`` for fewer than two spots.

    Spots without a position (NaN) are left out; that they are there is for the check of the slide to say.
    """
    centres = centres[np.isfinite(centres).all(axis=1)]
    if len(centres) < 2:
        return None
    distance, _ = cKDTree(centres).query(centres, k=2)
    return float(np.median(distance[:, 1])) or None


def square_grid_pitch(grid_xy: np.ndarray, centres: np.ndarray) -> float | None:
    """Mean length in pixels of one step along either axis of a square array, by least squares over all spots.

    ``grid_xy`` (n, 2) are the positions on the array (measured ones may be fractional), ``centres`` (n, 2) those on the
    image. More precise than nearest neighbours, whose measured positions scatter. ``None`` where it is not determined.
    """
    design = np.column_stack([grid_xy, np.ones(len(grid_xy))]).astype(np.float64)
    steps, _, rank, _ = np.linalg.lstsq(design, centres, rcond=None)
    if rank < 3:
        return None
    return float(np.linalg.norm(steps[:2], axis=1).mean()) or None
