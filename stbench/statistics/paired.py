"""Is one entry better than another? A paired test whose unit is the patient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import UserError
from .bootstrap import Interval, bootstrap_interval
from .scores import grid, signs

EXACT_PATIENTS = 12  # up to here every one of the 2^n sign patterns is counted
RANDOM_FLIPS = 9_999  # beyond, as many are drawn

Test = Literal["sign-flip", "wilcoxon"]


@dataclass(frozen=True)
class PairedTest:
    """``p`` is two-sided; ``smallest_p`` is the smallest that this many patients can give at all.

    Both are NaN where no test is possible, with ``name`` ``no test``.
    """

    name: str
    p: float
    smallest_p: float
    n_patients: int


@dataclass(frozen=True)
class Comparison:
    """``a`` against ``b`` on the slices that both have; ``difference`` is a minus b in the score's own unit.

    It is the mean over patients of the mean over each one's slices, so every patient counts the same. Wins are those of
    ``a``: slices, or patients by their mean, on which it is better.
    """

    a: str
    b: str
    difference: float
    interval: Interval
    test: PairedTest
    n_patients: int
    n_slices: int
    patients_won: int
    patients_tied: int
    slices_won: int
    slices_tied: int


def paired_by_patient(
    scores: pd.DataFrame,
    a: str,
    b: str,
    *,
    test: Test = "sign-flip",
    higher_is_better: bool = True,
    rng: np.random.Generator | None = None,
    level: float = 0.95,
) -> Comparison:
    """Compare two entries on the slices that both have; the unit is the patient.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, slice, patient, value; one row per entry and slice.
    a, b : str
        The entries; differences are a minus b.
    test : {"sign-flip", "wilcoxon"}, default="sign-flip"
        See :func:`paired_test`.
    higher_is_better : bool, default=True
        Whether a larger score is a win.
    rng : numpy.random.Generator, optional
        Draws the interval and, for many patients, the sign patterns. Without one a fixed seed is used, so that the same
        scores give the same numbers.
    level : float, default=0.95
        Of the interval.

    Returns
    -------
    Comparison
        Difference, interval, test and wins.

    Raises
    ------
    UserError
        If an entry is not in the table or no slice has both.

    Examples
    --------
    >>> patients = list("ABCDE")
    >>> scores = pd.DataFrame(
    ...     {
    ...         "entry": ["x"] * 5 + ["y"] * 5,
    ...         "slice": [f"{patient}1" for patient in patients] * 2,
    ...         "patient": patients * 2,
    ...         "value": [0.3, 0.4, 0.5, 0.2, 0.6, 0.1, 0.3, 0.3, 0.1, 0.5],
    ...     }
    ... )
    >>> found = paired_by_patient(scores, "x", "y")
    >>> round(found.difference, 2), found.test.p, found.patients_won
    (0.14, 0.0625, 5)
    """
    by_slice, patients = _differences(scores, a, b)
    by_patient = by_slice.groupby(patients, sort=True).mean()
    rng = rng or np.random.default_rng(0)
    better = 1 if higher_is_better else -1
    slices, whole = signs(better * by_slice.to_numpy()), signs(better * by_patient.to_numpy())
    table = pd.DataFrame({"patient": patients.to_numpy(), "slice": patients.index, "value": by_slice.to_numpy()})
    return Comparison(
        a=a,
        b=b,
        difference=float(by_patient.mean()),
        interval=bootstrap_interval(table, rng, level=level),
        test=paired_test(by_patient.to_numpy(), test, rng),
        n_patients=len(by_patient),
        n_slices=len(by_slice),
        patients_won=int((whole > 0).sum()),
        patients_tied=int((whole == 0).sum()),
        slices_won=int((slices > 0).sum()),
        slices_tied=int((slices == 0).sum()),
    )


def patient_differences(scores: pd.DataFrame, a: str, b: str) -> pd.Series:
    """Differences of two entries for each patient, the mean over the slices that both have.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, slice, patient, value; one row per entry and slice.
    a, b : str
        The entries.

    Returns
    -------
    pandas.Series
        a minus b, by patient.

    Raises
    ------
    UserError
        If an entry is not in the table or no slice has both.
    """
    by_slice, patients = _differences(scores, a, b)
    return by_slice.groupby(patients, sort=True).mean()


def _differences(scores: pd.DataFrame, a: str, b: str) -> tuple[pd.Series, pd.Series]:
    """a minus b on each slice that both have, and the slice's patient."""
    values, patients = grid(scores)
    for entry in (a, b):
        if entry not in values.columns:
            raise UserError(f"{entry} is not among the scores - name one of {', '.join(map(str, values.columns))}")
    by_slice = (values[a] - values[b]).dropna()
    if by_slice.empty:
        raise UserError(f"{a} and {b} share no slice - compare entries that were scored on the same slices")
    return by_slice, patients[by_slice.index]


def paired_test(
    differences: np.ndarray, test: Test = "sign-flip", rng: np.random.Generator | None = None
) -> PairedTest:
    """Two-sided test that differences are as likely positive as negative.

    Parameters
    ----------
    differences : ndarray of shape (n_patients,)
        One per patient.
    test : {"sign-flip", "wilcoxon"}, default="sign-flip"
        ``sign-flip`` (Fisher's randomisation test): the sum of the differences against its value under every pattern of
        signs, by :func:`scipy.stats.permutation_test`; with more than ``EXACT_PATIENTS`` patients, under random
        patterns. ``wilcoxon``: :func:`scipy.stats.wilcoxon`, which looks at ranks only.
    rng : numpy.random.Generator, optional
        Draws the random patterns; without one a fixed seed is used.

    Returns
    -------
    PairedTest
        With n patients neither test can give a p below 2 / 2^n.

    Examples
    --------
    >>> found = paired_test(np.array([3.0, 4.0, -1.0, 5.0, 6.0]))
    >>> found.name, found.p, found.smallest_p
    ('exact sign-flip', 0.125, 0.0625)
    """
    differences = np.asarray(differences, dtype=float)
    differences = np.where(signs(differences) == 0, 0.0, differences)
    n = len(differences)
    if n < 2:
        return PairedTest("no test", np.nan, np.nan, n)
    smallest = 2.0 ** (1 - n)
    if test == "wilcoxon":
        p = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
        return PairedTest("Wilcoxon signed ranks", p, smallest, n)
    exact = n <= EXACT_PATIENTS
    result = stats.permutation_test(
        (differences,),
        lambda sample, axis: sample.sum(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf if exact else RANDOM_FLIPS,
        random_state=rng or np.random.default_rng(0),  # rng= is its name from scipy 1.15 on
    )
    if exact:
        return PairedTest("exact sign-flip", float(result.pvalue), smallest, n)
    return PairedTest(
        f"sign-flip, {RANDOM_FLIPS} random patterns", float(result.pvalue), max(smallest, 2 / (RANDOM_FLIPS + 1)), n
    )
