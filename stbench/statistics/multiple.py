"""Several comparisons at once: p values that stay honest when the best of many is looked at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .paired import Comparison


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down correction of p values, which holds whatever the dependence of the tests.

    Parameters
    ----------
    p_values : array-like of shape (n_tests,)
        In [0, 1]. NaN (no test was possible) stays NaN and does not count among the tests.

    Returns
    -------
    ndarray of shape (n_tests,)
        float64, in the same order.

    Raises
    ------
    ValueError
        If a value lies outside 0 to 1.

    Notes
    -----
    The i-th smallest of m values (i from 0) becomes the largest of (m - j) p_j over j <= i, at most 1. Hence no
    corrected value can be below m times the smallest p that the design can give.

    References
    ----------
    Holm (1979), Scandinavian Journal of Statistics 6, 65.

    Examples
    --------
    >>> holm([0.04, 0.01, 0.03, 0.02]).round(2)
    array([0.06, 0.04, 0.06, 0.06])
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
    """p of the claim that one entry is better than every other.

    Parameters
    ----------
    comparisons : sequence of Comparison
        The entry (``a``) against each of the others.
    higher_is_better : bool, default=True
        Whether a larger score is a better one.

    Returns
    -------
    float
        The largest p of the comparisons; 1 if ``a`` is not ahead of each, NaN if a comparison has no test.

    Raises
    ------
    ValueError
        If there is no comparison.

    Notes
    -----
    The claim stands only if every comparison stands alone, so its p is the largest of theirs, and none has to be
    corrected for the others (intersection-union test [1]_). Picking as ``a`` the entry that looks best on the same
    scores does no harm either: the worst case is that of two equal leaders, which the two-sided p of the pair already
    covers [2]_. Which of the others differ from ``a``, if not all do, is another question: :func:`holm` answers it.

    References
    ----------
    .. [1] Berger (1982), Technometrics 24, 295.
    .. [2] Gutmann and Maymin (1987), Annals of Statistics 15, 456.
    """
    if not comparisons:
        raise ValueError("a claim to be ahead of all others needs at least one other")
    sign = 1 if higher_is_better else -1
    p_values = np.array([comparison.test.p for comparison in comparisons])
    ahead = all(sign * comparison.difference > 0 for comparison in comparisons)
    return float(p_values.max()) if ahead or np.isnan(p_values).any() else 1.0
