"""Who beats whom, and how often: the plainest summary of a comparison, for every pair."""

from __future__ import annotations

import numpy as np
import pandas as pd

from .scores import grid, signs


def win_matrix(scores: pd.DataFrame, higher_is_better: bool = True) -> pd.DataFrame:
    """Wins of every entry over every other.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, slice, patient, value; one row per entry and slice.
    higher_is_better : bool, default=True
        Whether a larger score is a win.

    Returns
    -------
    pandas.DataFrame
        One row for each ordered pair ``entry``, ``other``: ``slices_won``, ``slices_tied``, ``n_slices`` (those that
        both have), and ``patients_won``, ``patients_tied``, ``n_patients`` by a patient's mean over those slices.

    Examples
    --------
    >>> value = [3, 1, 4, 4]
    >>> scores = pd.DataFrame({"entry": list("xyxy"), "slice": list("1122"), "patient": list("AABB"), "value": value})
    >>> win_matrix(scores)[["entry", "other", "slices_won", "slices_tied", "n_slices"]].to_numpy().tolist()
    [['x', 'y', 1, 1, 2], ['y', 'x', 0, 1, 2]]
    """
    values, patients = grid(scores)
    entries = values.columns
    table = values.to_numpy() * (1 if higher_is_better else -1)
    by_slice = table[:, :, None] - table[:, None, :]  # (n_slices, n_entries, n_entries): row's entry minus column's
    flat = pd.DataFrame(by_slice.reshape(len(table), -1), index=values.index)
    by_patient = flat.groupby(patients).mean().to_numpy().reshape(-1, len(entries), len(entries))
    counted: dict[str, np.ndarray] = {}
    for unit, differences in (("slices", by_slice), ("patients", by_patient)):
        outcome = signs(differences)
        counted[f"{unit}_won"] = (outcome > 0).sum(axis=0)
        counted[f"{unit}_tied"] = (outcome == 0).sum(axis=0)
        counted[f"n_{unit}"] = (~np.isnan(outcome)).sum(axis=0)
    row, column = np.nonzero(~np.eye(len(entries), dtype=bool))
    pairs = {"entry": entries[row], "other": entries[column]}
    return pd.DataFrame({**pairs, **{name: counts[row, column] for name, counts in counted.items()}})
