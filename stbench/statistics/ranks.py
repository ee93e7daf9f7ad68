"""Mean ranks over patients, Friedman's test and Nemenyi's critical difference (Demsar, JMLR 7, 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from .scores import LEVEL, complete_grid

FEW_BLOCKS = 5  # with fewer patients the test's large-sample theory is no guide at all: nothing is told apart


@dataclass(frozen=True)
class Ranks:
    """``ranks``: (n_patients, n_entries), 1 the best, ties shared; ``mean``: over patients, best first.

    ``friedman_p`` is NaN for fewer than three entries or two patients. ``groups``: entries, best first, whose mean
    ranks the test does not tell apart; a group is never part of another.
    """

    ranks: pd.DataFrame
    mean: pd.Series
    friedman_p: float
    critical_difference: float
    groups: tuple[tuple[str, ...], ...]

    @property
    def n_patients(self) -> int:
        return len(self.ranks)

    @property
    def separates(self) -> bool:
        """Whether Nemenyi's test could tell any two entries apart on this many patients."""
        return self.n_patients >= FEW_BLOCKS and self.critical_difference < len(self.mean) - 1


def mean_ranks(scores: pd.DataFrame, higher_is_better: bool = True, alpha: float = 0.05) -> Ranks:
    """Rank entries within each patient by the mean over the patient's slices.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, slice, patient, value; every entry on the same slices.
    higher_is_better : bool, default=True
        Whether the largest score has rank 1.
    alpha : float, default=0.05
        Level of Nemenyi's test.

    Returns
    -------
    Ranks
        Ranks, their means, Friedman's test and the critical difference.

    Raises
    ------
    UserError
        If an entry lacks a slice that another has.

    References
    ----------
    Demsar (2006), Journal of Machine Learning Research 7, 1.

    Examples
    --------
    >>> scores = pd.DataFrame(
    ...     {"entry": ["x", "y"] * 3, "slice": list("112233"), "patient": list("AABBCC"), "value": [3, 1, 4, 2, 1, 5]}
    ... )
    >>> mean_ranks(scores).mean.round(2).to_dict()
    {'x': 1.33, 'y': 1.67}
    """
    values, patients = complete_grid(scores)
    by_patient = values.groupby(patients).mean().round(int(-np.log10(LEVEL)))  # equal but for rounding is a tie
    signed = -by_patient.to_numpy() if higher_is_better else by_patient.to_numpy()
    ranks = pd.DataFrame(stats.rankdata(signed, axis=1), index=by_patient.index, columns=by_patient.columns)
    mean = ranks.mean().sort_values(kind="stable")
    n, k = ranks.shape
    difference = critical_difference(k, n, alpha) if k > 1 else np.nan
    apart = difference if n >= FEW_BLOCKS else np.inf
    return Ranks(ranks, mean, _friedman(ranks), difference, _groups(mean, apart))


def critical_difference(n_entries: int, n_patients: int, alpha: float = 0.05) -> float:
    """Mean ranks further apart than this differ by Nemenyi's test.

    Parameters
    ----------
    n_entries, n_patients : int
        k entries that were ranked within each of N patients.
    alpha : float, default=0.05
        Level of the test.

    Returns
    -------
    float
        q sqrt(k (k + 1) / (6 N)), with q the quantile of the studentised range with infinite degrees of freedom,
        divided by the square root of 2.

    References
    ----------
    Demsar (2006), Journal of Machine Learning Research 7, 1, section 3.2.2.

    Examples
    --------
    >>> round(critical_difference(n_entries=4, n_patients=14), 2)
    1.25
    """
    q = stats.studentized_range.ppf(1 - alpha, n_entries, np.inf) / np.sqrt(2)
    return float(q * np.sqrt(n_entries * (n_entries + 1) / (6 * n_patients)))


def _friedman(ranks: pd.DataFrame) -> float:
    n, k = ranks.shape
    if n < 2 or k < 3:
        return np.nan
    if np.ptp(ranks.to_numpy(), axis=1).max() == 0:
        return 1.0  # all tied everywhere: the statistic is 0 / 0
    return float(stats.friedmanchisquare(*ranks.to_numpy().T).pvalue)


def _groups(mean: pd.Series, difference: float) -> tuple[tuple[str, ...], ...]:
    """Maximal runs of entries, best first, whose first and last mean rank are less than ``difference`` apart."""
    value = mean.to_numpy()
    groups: list[tuple[str, ...]] = []
    reached = -1
    for start in range(len(value)):
        end = int(np.flatnonzero(value - value[start] < difference)[-1])
        if end > reached and end > start:
            groups.append(tuple(map(str, mean.index[start : end + 1])))
            reached = end
    return tuple(groups)
