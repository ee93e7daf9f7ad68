"""How far a mean over patients may move with other patients and slices: a bootstrap over both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .scores import require


@dataclass(frozen=True)
class Interval:
    """A percentile interval of the mean over patients of the mean over each one's slices.

    ``over`` says what was drawn again: ``patients`` (and slices within them), ``slices`` where there is one patient
    (the interval then says nothing about new patients), ``nothing`` where there is one slice (both ends are NaN).
    """

    mean: float
    low: float
    high: float
    level: float
    over: str
    n_patients: int
    n_slices: int


def bootstrap_interval(table: pd.DataFrame, rng: np.random.Generator, n: int = 2000, level: float = 0.95) -> Interval:
    """Percentile interval of a mean over patients, by drawing patients and then slices within each of them.

    Parameters
    ----------
    table : pandas.DataFrame
        Columns patient, slice, value; one row per slice, in any order.
    rng : numpy.random.Generator
        Draws patients and slices, with replacement.
    n : int, default=2000
        Number of draws.
    level : float, default=0.95
        Share of the draws' means that the interval holds.

    Returns
    -------
    Interval
        The mean and the ends of its interval.

    Raises
    ------
    UserError
        If the table has no rows or lacks a column.

    Notes
    -----
    Drawing at both levels makes intervals slightly wide [1]_, yet those of few patients are too narrow: of simulated
    normal scores of 2, 3, 5 and 10 patients with two or three slices each, intervals of 95 % held the truth in about
    70, 77, 89 and 95 % of cases.

    References
    ----------
    .. [1] Davison and Hinkley (1997), Bootstrap Methods and their Application, section 3.8.

    Examples
    --------
    >>> table = pd.DataFrame({"patient": list("AABC"), "slice": list("1234"), "value": [0.1, 0.3, 0.4, 0.6]})
    >>> interval = bootstrap_interval(table, np.random.default_rng(0))
    >>> [round(value, 2) for value in (interval.low, interval.mean, interval.high)], interval.over
    ([0.2, 0.4, 0.6], 'patients')
    """
    require(table, ("patient", "slice", "value"))
    ordered = table.sort_values(["patient", "slice"])
    code, patients = pd.factorize(ordered["patient"])
    value = ordered["value"].to_numpy(float)
    n_patients, n_slices = len(patients), len(value)
    count = np.bincount(code, minlength=n_patients)
    mean = float((np.bincount(code, weights=value, minlength=n_patients) / count).mean())
    if n_slices == 1:
        return Interval(mean, np.nan, np.nan, level, "nothing", n_patients, n_slices)
    padded = np.zeros((n_patients, count.max()))
    place = np.arange(n_slices) - np.repeat(np.cumsum(count) - count, count)
    padded[code, place] = value

    drawn = rng.integers(n_patients, size=(n, n_patients))
    slices = np.floor(rng.random((n, n_patients, count.max())) * count[drawn][..., None]).astype(int)
    used = np.arange(count.max()) < count[drawn][..., None]
    means = np.where(used, padded[drawn[..., None], slices], 0.0).sum(axis=2) / count[drawn]
    low, high = np.quantile(means.mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    over = "patients" if n_patients > 1 else "slices"
    return Interval(mean, float(low), float(high), level, over, n_patients, n_slices)
