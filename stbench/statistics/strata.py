"""One test over several datasets: patients stay the unit, and no dataset weighs more because its scores spread more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .paired import PairedTest, paired_test
from .scores import require


@dataclass(frozen=True)
class StratifiedTest:
    """``strata``: one row per stratum with ``stratum``, ``difference`` (mean over patients) and ``n_patients``."""

    test: PairedTest
    strata: pd.DataFrame

    @property
    def n_patients(self) -> int:
        return int(self.strata["n_patients"].sum())


def stratified_test(differences: pd.DataFrame, rng: np.random.Generator | None = None) -> StratifiedTest:
    """Two-sided sign-flip test of the patients of several datasets together.

    Parameters
    ----------
    differences : pandas.DataFrame
        Columns stratum, patient, value; one row per patient.
    rng : numpy.random.Generator, optional
        Draws sign patterns if there are many patients.

    Returns
    -------
    StratifiedTest
        The test, and the mean difference of each stratum.

    Raises
    ------
    UserError
        If the table has no rows or lacks a column.

    Notes
    -----
    Each difference is divided by the root mean square of its stratum's differences. Flipping signs leaves that scale as
    it is, so the test stays exact. A stratum whose differences are all 0 adds nothing.

    Examples
    --------
    >>> differences = pd.DataFrame({"stratum": list("xxyy"), "patient": list("ABCD"), "value": [0.1, 0.2, 10.0, 30.0]})
    >>> found = stratified_test(differences)
    >>> found.test.p, found.n_patients
    (0.125, 4)
    """
    require(differences, ("stratum", "patient", "value"))
    ordered = differences.sort_values(["stratum", "patient"])
    value = ordered["value"].astype(float)
    scale = np.sqrt((value**2).groupby(ordered["stratum"]).transform("mean"))
    standardised = np.divide(value, scale, out=np.zeros(len(value)), where=scale.to_numpy() > 0)
    grouped = value.groupby(ordered["stratum"])
    strata = pd.DataFrame({"difference": grouped.mean(), "n_patients": grouped.size()}).reset_index()
    return StratifiedTest(paired_test(np.asarray(standardised), "sign-flip", rng), strata)
