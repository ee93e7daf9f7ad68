"""A table of scores as a grid of slices and entries, with what is wrong in it said in one line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import UserError

LEVEL = 1e-12  # a difference of means below this is rounding, not a win


def grid(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """Scores as a grid of slices and entries; sorted, so that no result depends on the order of rows.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, slice, patient, value; one row per entry and slice.

    Returns
    -------
    values : pandas.DataFrame of shape (n_slices, n_entries)
        Slices sorted by patient and name; NaN where there is no value.
    patients : pandas.Series of shape (n_slices,)
        The patient of each slice.

    Raises
    ------
    UserError
        If a column is missing, an entry has two values on one slice (take the mean over seeds first), or a slice has
        two patients.

    Examples
    --------
    >>> scores = pd.DataFrame({"entry": list("xyx"), "slice": list("221"), "patient": list("BBA"), "value": [1, 2, 3]})
    >>> grid(scores)[0].to_numpy()
    array([[ 3., nan],
           [ 1.,  2.]])
    """
    require(scores, ("entry", "slice", "patient", "value"))
    twice = scores.duplicated(["entry", "slice"])
    if twice.any():
        row = scores[twice].iloc[0]
        raise UserError(f"{row['entry']} has two scores on slice {row['slice']} - take the mean over seeds first")
    owners = scores.drop_duplicates(["slice", "patient"])
    if owners["slice"].duplicated().any():
        name = owners.loc[owners["slice"].duplicated(), "slice"].iloc[0]
        raise UserError(f"slice {name} belongs to two patients in this table - name one patient per slice")
    patients = owners.sort_values(["patient", "slice"]).set_index("slice")["patient"]
    values = scores.set_index(["slice", "entry"])["value"].astype(float).unstack("entry")  # noqa: PD010 - no averaging
    return values.reindex(patients.index), patients


def complete_grid(scores: pd.DataFrame) -> tuple[pd.DataFrame, pd.Series]:
    """As :func:`grid`, for entries that all have the same slices.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, slice, patient, value.

    Returns
    -------
    values : pandas.DataFrame of shape (n_slices, n_entries)
        Without gaps.
    patients : pandas.Series of shape (n_slices,)
        The patient of each slice.

    Raises
    ------
    UserError
        If an entry has no value on a slice that another has, and as :func:`grid` does.
    """
    values, patients = grid(scores)
    if values.isna().any(axis=None):
        entry = values.columns[values.isna().any()][0]
        name = values.index[values[entry].isna()][0]
        raise UserError(f"{entry} has no score on slice {name} - compare entries that are complete on the same slices")
    return values, patients


def require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse a table that has no rows or lacks a column.

    Parameters
    ----------
    table : pandas.DataFrame
        Scores.
    columns : sequence of str
        What it must have.

    Raises
    ------
    UserError
        If it does not.
    """
    absent = [name for name in columns if name not in table.columns]
    if absent:
        raise UserError(f"the table of scores has no column {', '.join(absent)} - it needs {', '.join(columns)}")
    if table.empty:
        raise UserError("the table of scores has no rows - give at least one score")


def signs(differences: np.ndarray) -> np.ndarray:
    """Wins, ties and losses: 1, 0 and -1; NaN stays NaN. Differences up to ``LEVEL`` are ties.

    Examples
    --------
    >>> signs(np.array([0.2, 1e-15, -3.0, np.nan]))
    array([ 1.,  0., -1., nan])
    """
    return np.where(np.abs(differences) <= LEVEL, 0.0, np.sign(differences)) + 0.0 * differences
