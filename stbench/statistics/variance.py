"""Where the spread of scores comes from: method, patient, slice, what suits one method only, and the seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import UserError
from .scores import require


@dataclass(frozen=True)
class VarianceSplit:
    """``table``: one row per source: ``source``, ``df``, ``mean_square``, ``estimate``, ``variance``, ``share``.

    ``estimate`` is the unbiased one and may be negative; ``variance`` is at least 0, ``share`` its part of the sum.
    ``notes``: what had to be left out and what cannot be told apart, in plain words.
    """

    table: pd.DataFrame
    n_entries: int
    n_patients: int
    n_slices: int
    n_seeds: int
    notes: tuple[str, ...]


def variance_components(scores: pd.DataFrame) -> VarianceSplit:
    """Components of variance, by equating mean squares to their expectations (ANOVA, method of moments).

    The model has a random effect for the method, the patient, the slice within its patient, method x patient, method x
    slice, and the seed as the rest. Patients may have unequal numbers of slices [1]_. Entries, slices and seeds must be
    crossed, so slices and seeds that an entry lacks are left out of all. If each patient has one slice, patient and
    slice are one source; the same with one patient. With one seed the seed is part of method x slice.

    Parameters
    ----------
    scores : pandas.DataFrame
        Columns entry, patient, slice, seed, value; one row per trial and slice.

    Returns
    -------
    VarianceSplit
        Its ``notes`` say what was left out and what cannot be told apart.

    Raises
    ------
    UserError
        If there are fewer than two entries or two slices.

    References
    ----------
    .. [1] Searle, Casella and McCulloch (1992), Variance Components, chapter 5: Henderson's method I.

    Examples
    --------
    >>> rows = [("x", "A", "A1", 0, 1.0), ("x", "B", "B1", 0, 1.0), ("y", "A", "A1", 0, 3.0), ("y", "B", "B1", 0, 3.0)]
    >>> scores = pd.DataFrame(rows, columns=["entry", "patient", "slice", "seed", "value"])
    >>> variance_components(scores).table.set_index("source")["share"].to_dict()
    {'method': 1.0, 'patient': 0.0, 'method × patient': 0.0}
    """
    require(scores, ("entry", "patient", "slice", "seed", "value"))
    values, patients, notes = _rectangle(scores)
    n_entries, n_slices, n_seeds = values.shape
    if n_entries < 2 or n_slices < 2:
        raise UserError("a split of variance needs two entries with two slices in common - run more methods or slices")
    code, names = pd.factorize(patients, sort=True)
    if len(names) == 1:
        notes.append("All slices are of one patient: what patients add cannot be seen, and slices stand alone.")
    elif len(names) == n_slices:
        notes.append("Each patient has one slice: what patients add and what slices add is one source.")
    if n_seeds == 1:
        notes.append("One seed: what the seed adds is part of method × slice.")
    table = _components(values, code)
    return VarianceSplit(table, n_entries, len(names), n_slices, n_seeds, tuple(notes))


def _rectangle(scores: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Values (n_entries, n_slices, n_seeds) without gaps, the patient of each slice, and what was left out for it."""
    if scores.duplicated(["entry", "slice", "seed"]).any():
        raise UserError("an entry has two scores for one slice and seed - give one row per trial and slice")
    known = scores.dropna(subset="value")
    entries = sorted(known["entry"].unique())
    seeds_of = known.groupby("entry")["seed"].agg(set)
    seeds = sorted(set.intersection(*seeds_of)) if len(seeds_of) else []
    crossed = known[known["seed"].isin(seeds)]
    wide = crossed.set_index(["slice", "entry", "seed"])["value"].unstack(["entry", "seed"])  # noqa: PD010 - no averaging
    wide = wide.reindex(columns=pd.MultiIndex.from_product([entries, seeds])).dropna().sort_index()
    notes = []
    for unit, kept, there in (
        ("slice", len(wide), scores["slice"].nunique()),
        ("seed", len(seeds), scores["seed"].nunique()),
    ):
        if kept < there:
            notes.append(f"{there - kept} of {there} {unit}s left out, because not every method has them.")
    values = wide.to_numpy().reshape(len(wide), len(entries), len(seeds)).transpose(1, 0, 2)
    patients = scores.drop_duplicates("slice").set_index("slice")["patient"].reindex(wide.index).to_numpy()
    return values, patients, notes


def _components(values: np.ndarray, patient: np.ndarray) -> pd.DataFrame:
    """``values``: (n_entries, n_slices, n_seeds); ``patient``: (n_slices,) codes 0, 1, ..."""
    n_entries, n_slices, n_seeds = values.shape
    count = np.bincount(patient)
    n_patients = len(count)
    nested = 1 < n_patients < n_slices
    cell = values.mean(axis=2)  # (n_entries, n_slices)
    method, block, grand = cell.mean(axis=1), cell.mean(axis=0), cell.mean()
    belongs = (np.arange(n_patients)[:, None] == patient) / count[:, None]  # (n_patients, n_slices): means over slices
    of_patient, of_both = belongs @ block, cell @ belongs.T  # (n_patients,), (n_entries, n_patients)

    squares: dict[str, tuple[float, int]] = {}
    squares["method"] = n_slices * n_seeds * _sum(method - grand), n_entries - 1
    interaction = cell - method[:, None] - block + grand
    if nested:
        squares["patient"] = n_entries * n_seeds * _sum((of_patient - grand) * np.sqrt(count)), n_patients - 1
        squares["slice"] = n_entries * n_seeds * _sum(block - of_patient[patient]), n_slices - n_patients
        both = of_both - method[:, None] - of_patient + grand
        squares["method × patient"] = n_seeds * _sum(both * np.sqrt(count)), (n_entries - 1) * (n_patients - 1)
        rest = n_seeds * _sum(interaction - both[:, patient])
        squares["method × slice"] = rest, (n_entries - 1) * (n_slices - n_patients)
    else:
        name = "slice" if n_patients == 1 else "patient"
        squares[name] = n_entries * n_seeds * _sum(block - grand), n_slices - 1
        squares[f"method × {name}"] = n_seeds * _sum(interaction), (n_entries - 1) * (n_slices - 1)
    if n_seeds > 1:
        squares["seed"] = _sum(values - cell[..., None]), n_entries * n_slices * (n_seeds - 1)
    mean_square = {source: total / df for source, (total, df) in squares.items()}
    estimate = _estimates(mean_square, n_entries, n_seeds, count) if nested else _simple(mean_square, values.shape)
    table = pd.DataFrame(
        {
            "source": list(squares),
            "df": [df for _, df in squares.values()],
            "mean_square": list(mean_square.values()),
            "estimate": [estimate[source] for source in squares],
        }
    )
    table["variance"] = table["estimate"].clip(lower=0)
    total = table["variance"].sum()
    table["share"] = table["variance"] / total if total > 0 else 0.0
    return table


def _estimates(squares: Mapping[str, float], n_entries: int, n_seeds: int, count: np.ndarray) -> dict[str, float]:
    """With patients of several slices; ``n0`` and ``nbar`` are the numbers of slices per patient in the expectations of
    the mean squares between patients and between methods; both are that number where it is the same for all."""
    n_slices, n_patients = count.sum(), len(count)
    nbar = (count**2).sum() / n_slices
    n0 = (n_slices - nbar) / (n_patients - 1)
    inner = squares["method × slice"]
    method_patient = (squares["method × patient"] - inner) / (n_seeds * n0)
    rest = inner + n_seeds * nbar * method_patient
    patient = squares["patient"] - squares["slice"] - squares["method × patient"] + inner
    return {
        "method": (squares["method"] - rest) / (n_slices * n_seeds),
        "patient": patient / (n_entries * n_seeds * n0),
        "slice": (squares["slice"] - inner) / (n_entries * n_seeds),
        "method × patient": method_patient,
        "method × slice": (inner - squares.get("seed", 0.0)) / n_seeds,
        "seed": squares.get("seed", np.nan),
    }


def _simple(squares: Mapping[str, float], shape: tuple[int, ...]) -> dict[str, float]:
    """Methods crossed with one kind of block, slices of one patient or patients of one slice."""
    n_entries, n_slices, n_seeds = shape
    name = "slice" if "slice" in squares else "patient"
    inner = squares[f"method × {name}"]
    return {
        "method": (squares["method"] - inner) / (n_slices * n_seeds),
        name: (squares[name] - inner) / (n_entries * n_seeds),
        f"method × {name}": (inner - squares.get("seed", 0.0)) / n_seeds,
        "seed": squares.get("seed", np.nan),
    }


def _sum(deviations: np.ndarray) -> float:
    """Sum of squares."""
    return float((deviations**2).sum())
