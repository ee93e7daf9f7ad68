"""Several comparisons at once: p values that stay honest when the best of many is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction (Holm 1979), which holds whatever the dependence of the tests; float64, same order.

    The i-th smallest of m values (i from 0) becomes the largest of (m - j) p_j over j <= i, at most 1. NaN (no test was
    possible) stays NaN and does not count among the m. Hence no corrected value can be below m times the smallest p
    that the design can give. Raises ``ValueError`` for values outside 0 to 1.
    """
    p = np.asarray(p_values, dtype=float)
    if ((p < 0) | (p > 1)).any():
        raise ValueError("p values lie between 0 and 1")
    out = np.full(p.shape, np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out
