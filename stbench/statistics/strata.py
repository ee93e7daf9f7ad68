"""One test over several datasets: patients stay the unit, and no dataset weighs more because its scores spread more."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from .paired import PairedTest, paired_test
from .scores import require


@dataclass(frozen=True)
class StratifiedTest:
    """``strata``: one row a stratum with ``stratum``, ``difference`` (mean over patients) and ``n_patients``."""

    test: PairedTest
    strata: pd.DataFrame

    @property
    def n_patients(self) -> int:
        return int(self.strata["n_patients"].sum())


def stratified_test(differences: pd.DataFrame, rng: np.random.Generator | None = None) -> StratifiedTest:
    """Two-sided sign-flip test of all patients together; ``differences``: stratum, patient, value (one row a patient).

    Each difference is divided by the root mean square of its stratum's differences. Flipping signs leaves that scale as
    it is, so the test stays exact. A stratum whose differences are all 0 adds nothing. Raises ``UserError`` for a table
    without rows or columns.
    """
    require(differences, ("stratum", "patient", "value"))
    ordered = differences.sort_values(["stratum", "patient"])
    value = ordered["value"].astype(float)
    scale = np.sqrt((value**2).groupby(ordered["stratum"]).transform("mean"))
    standardised = np.divide(value, scale, out=np.zeros(len(value)), where=scale.to_numpy() > 0)
    grouped = value.groupby(ordered["stratum"])
    strata = pd.DataFrame({"difference": grouped.mean(), "n_patients": grouped.size()}).reset_index()
    return StratifiedTest(paired_test(np.asarray(standardised), "sign-flip", rng), strata)
