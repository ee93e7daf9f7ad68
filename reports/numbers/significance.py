"""Which differences between entries can be told apart, by patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stbench.statistics import Comparison, ahead_of_all, holm, paired_by_patient

from ..sections.section import Section
from .means import eligible
from .metrics import METRICS

ALPHA = 0.05


@dataclass(frozen=True)
class Tested:
    """A comparison of the best entry with another one, corrected for all those made in its metric.

    ``role``: what the other is: ``method``, ``best control`` or, where only controls were run, ``control``.
    ``ahead``: whether the best is also ahead where every patient counts the same.
    """

    comparison: Comparison
    role: str
    ahead: bool
    n_comparisons: int
    patients_known: bool  # slices whose patient was not recorded count as one patient together
    p: float  # after Holm's correction; NaN where no test is possible
    smallest_p: float  # no corrected value can be below

    @property
    def told_apart(self) -> bool:
        return self.p <= ALPHA


def comparable(section: Section, board: pd.DataFrame, metric: str) -> pd.DataFrame:
    """entry, slice, patient, value (mean over seeds) of every entry that is complete and defined everywhere.

    Oracles are left out: they are no competitors.
    """
    entries = in_order(board, metric).index
    rows = section.rows[section.rows["entry"].isin(entries) & (section.rows["state"] == "finished")]
    # of these entries every seed has a value on every slice, so a plain mean leaves nothing out
    scores = rows.groupby(["entry", "slice"], sort=False)[metric].mean().rename("value").reset_index()
    return scores.assign(patient=scores["slice"].map(section.patients).fillna(""))


def in_order(board: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The comparable entries of the board, best mean first."""
    rows = board[eligible(board, metric) & ~board["oracle"]]
    return rows.sort_values(metric, ascending=not METRICS[metric].higher_is_better, kind="stable")


def against_best(scores: pd.DataFrame, board: pd.DataFrame, metric: str) -> list[Tested]:
    """The best method against every other method, best first, and against the best control.

    ``scores``: :func:`comparable` of the same board and metric. Where only controls were run, the best control is
    compared with the others. Empty where there are fewer than two entries.
    """
    order = in_order(board, metric)
    methods, controls = order[order["kind"] == "method"], order[order["kind"] == "control"]
    if len(methods):
        others = [(str(entry), "method") for entry in methods.index[1:]]
        others += [(str(entry), "best control") for entry in controls.index[:1]]
        best = str(methods.index[0])
    else:
        others = [(str(entry), "control") for entry in controls.index[1:]]
        best = str(controls.index[0]) if len(controls) else ""
    if not others:
        return []
    higher = METRICS[metric].higher_is_better
    better = 1 if higher else -1
    comparisons = [paired_by_patient(scores, best, other, higher_is_better=higher) for other, _ in others]
    corrected = holm([comparison.test.p for comparison in comparisons])
    known = bool((scores["patient"] != "").all())
    limits = [float(np.minimum(1.0, len(comparisons) * comparison.test.smallest_p)) for comparison in comparisons]
    return [
        Tested(comparison, role, better * comparison.difference > 0, len(comparisons), known, float(p), limit)
        for comparison, (_, role), p, limit in zip(comparisons, others, corrected, limits, strict=True)
    ]


@dataclass(frozen=True)
class BestOfAll:
    """That the best entry is better than each of ``pairs``: made of all of them, or not made.

    ``p`` is the largest of the single comparisons', uncorrected (:func:`stbench.statistics.ahead_of_all` says why), so
    that as few patients suffice for it as for one comparison; no data could give less than ``smallest_p``.
    ``unproven``: the pairs in the way, not significant alone or with the other ahead by patient.
    """

    pairs: tuple[Tested, ...]
    p: float
    smallest_p: float
    unproven: tuple[Tested, ...]

    @property
    def possible(self) -> bool:
        return self.smallest_p <= ALPHA

    @property
    def holds(self) -> bool:
        return self.p <= ALPHA


def best_of_all(tested: Sequence[Tested], metric: str) -> BestOfAll | None:
    """The claim of the best entry against all others of its kind; None where there is no other.

    ``tested``: :func:`against_best`. The best control is no rival of a method, and stands apart.
    """
    pairs = [pair for pair in tested if pair.role != "best control"]
    if not pairs:
        return None
    higher = METRICS[metric].higher_is_better
    return BestOfAll(
        pairs=tuple(pairs),
        p=ahead_of_all([pair.comparison for pair in pairs], higher),
        smallest_p=float(np.max([pair.comparison.test.smallest_p for pair in pairs])),
        unproven=tuple(pair for pair in pairs if not ahead_of_all([pair.comparison], higher) <= ALPHA),
    )


def against_control(tested: Sequence[Tested], claim: BestOfAll | None) -> tuple[Tested, float] | None:
    """The best method against the best control, with its p; None where they are not compared.

    Where the method is the best of all, this is the next question in a fixed order, which needs no correction;
    elsewhere it is one of many, and Holm's value counts.
    """
    for pair in tested:
        if pair.role == "best control":
            return pair, pair.comparison.test.p if claim is not None and claim.holds else pair.p
    return None
