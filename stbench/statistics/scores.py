"""A table of scores as a grid of slices and entries, with what is wrong in it said in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import UserError

LEVEL = 1e-12  # a difference of means below this is rounding, not a win


def grid(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """(slices x entries, the patient of each slice), slices sorted by patient and name; NaN where there is no value.

    Sorting makes every result independent of the order of rows. Raises ``UserError`` for a missing column, for two
    values of one entry on one slice (take the mean over seeds first) and for a slice of two patients.
    """
    require(scores, ("entry", "slice", "patient", "value"))
    twice = scores.duplicated(["entry", "slice"])
    if twice.any():
        row = scores[twice].iloc[0]
        raise UserError(f"{row['entry']} has two scores on slice {row['slice']} - take the mean over seeds first")
    of = scores.drop_duplicates(["slice", "patient"])
    if of["slice"].duplicated().any():
        name = of.loc[of["slice"].duplicated(), "slice"].iloc[0]
        raise UserError(f"slice {name} belongs to two patients in this table - name one patient a slice")
    patients = of.sort_values(["patient", "slice"]).set_index("slice")["patient"]
    values = scores.set_index(["slice", "entry"])["value"].astype(float).unstack("entry")  # noqa: PD010 - no averaging
    return values.reindex(patients.index), patients


def complete_grid(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """As :func:`grid`; raises ``UserError`` where an entry has no value on a slice that another has."""
    values, patients = grid(scores)
    if values.isna().any(axis=None):
        entry = values.columns[values.isna().any()][0]
        name = values.index[values[entry].isna()][0]
        raise UserError(f"{entry} has no score on slice {name} - compare entries that are complete on the same slices")
    return values, patients


def require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise UserError(f"the table of scores has no column {', '.join(absent)} - it needs {', '.join(columns)}")
    if table.empty:
        raise UserError("the table of scores has no rows - give at least one score")


def signs(differences: np.ndarray) -> np.ndarray:
    """1, 0 or -1: a win, a tie, a loss. NaN counts as none of them (0 is a tie, so NaN stays NaN)."""
    return np.where(np.abs(differences) <= LEVEL, 0.0, np.sign(differences)) + 0.0 * differences
