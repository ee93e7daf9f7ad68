"""Several comparisons at once: p values that stay honest when the best of many is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .paired import Comparison


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


def ahead_of_all(comparisons: Sequence[Comparison], higher_is_better: bool = True) -> float:
    """p of the claim that one entry is better than every other; ``comparisons``: it (``a``) against each of them.

    The claim stands only where every comparison stands alone, so its p is the largest of theirs, and none has to be
    corrected for the others (intersection-union test: Berger, Technometrics 24, 1982). Picking as ``a`` the entry that
    looks best on the same scores does no harm either: the worst case is that of two equal leaders, which the two-sided
    p of the pair already covers (Gutmann and Maymin, Annals of Statistics 15, 1987). Which of the others differ from
    ``a`` where not all do is another question: :func:`holm` answers it.

    1 where ``a`` is not ahead of each, NaN where a comparison has no test. Raises ``ValueError`` for no comparison.
    """
    if not comparisons:
        raise ValueError("a claim to be ahead of all others needs at least one other")
    sign = 1 if higher_is_better else -1
    p_values = np.array([comparison.test.p for comparison in comparisons])
    ahead = all(sign * comparison.difference > 0 for comparison in comparisons)
    return float(p_values.max()) if ahead or np.isnan(p_values).any() else 1.0
