"""Who is compared with whom, and what may be said of it: the best method against the others and the best control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stbench.statistics import Comparison, ahead_of_all, holm, paired_by_patient

from .load import Section
from .tables import METRICS, eligible

QUESTION = "Can the methods be told apart?"  # the part of the report that holds the tests
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
    made = [paired_by_patient(scores, best, other, higher_is_better=higher) for other, _ in others]
    corrected = holm([comparison.test.p for comparison in made])
    known = bool((scores["patient"] != "").all())
    limits = [float(np.minimum(1.0, len(made) * comparison.test.smallest_p)) for comparison in made]
    return [
        Tested(comparison, role, better * comparison.difference > 0, len(made), known, float(p), limit)
        for comparison, (_, role), p, limit in zip(made, others, corrected, limits, strict=True)
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


def many_patients(n: int) -> str:
    return f"{n} patient{'s' if n != 1 else ''}"


def p_text(p: float) -> str:
    """Two digits, as many as a p value deserves."""
    return "–" if p != p else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def p_equals(p: float) -> str:
    """``= 0.031`` or ``< 0.0001``, to follow the letter p."""
    text = p_text(p)
    return text if text.startswith("<") else f"= {text}"


def label_of(section: Section, entry: str) -> str:
    return str(section.entries.loc[entry, "label"])


def verb(tested: Tested, plural: bool = False) -> str:
    """Three things that are often mixed up, kept apart: a design that can never give a small p, data that did not give
    one, and data that did."""
    if not tested.smallest_p <= ALPHA:
        return "cannot be told apart"
    return f"{'are' if plural else 'is'} {'' if tested.told_apart else 'not '}told apart"


def why(tested: Tested) -> str:
    """What follows :func:`verb`: on how many patients, and the p value or the smallest that the design can give."""
    n, test = tested.comparison.n_patients, tested.comparison.test
    if n < 2:
        found = "all slices are of one patient" if tested.patients_known else "the slices' patients were not recorded"
        return f"by any test: {found}"
    if test.smallest_p > ALPHA:
        return f"on {many_patients(n)} (the smallest p that {many_patients(n)} can give is {p_text(test.smallest_p)})"
    comparisons = f"{tested.n_comparisons} comparisons"
    if tested.smallest_p > ALPHA:
        limit = f"the smallest p that {many_patients(n)} can give in {comparisons} is {p_text(tested.smallest_p)}"
        return f"on {many_patients(n)} ({limit})"
    corrected = f" after Holm's correction over {comparisons}" if tested.n_comparisons > 1 else ""
    return f"on {many_patients(n)} (p {p_equals(tested.p)}{corrected})"


def claim_text(section: Section, claim: BestOfAll) -> str:
    """What follows the name of the best: ``is better than each of the 5 others on 7 patients (the largest p = 0.031)``.

    "it" is the runner-up.
    """
    first = claim.pairs[0]
    if not claim.possible:
        return f"{verb(first)} from it {why(first)}"
    on = f"on {many_patients(first.comparison.n_patients)}"
    behind = [pair for pair in claim.pairs if not pair.ahead]
    if behind:
        return f"is not ahead of {_listed(section, behind)} where every patient counts the same, {on}"
    if len(claim.pairs) == 1:
        return f"is {'' if claim.holds else 'not '}told apart from it {on} (p {p_equals(claim.p)})"
    if claim.holds:
        return f"is better than each of the {len(claim.pairs)} others {on} (the largest p {p_equals(claim.p)})"
    rivals = _listed(section, claim.unproven)
    return f"is not shown to be better than {rivals} {on} (the largest p {p_equals(claim.p)})"


def _listed(section: Section, pairs: Sequence[Tested]) -> str:
    """The others of ``pairs``: ``A``, ``A and B``, ``A, B and C``."""
    *first, last = (label_of(section, pair.comparison.b) for pair in pairs)
    return f"{', '.join(first)} and {last}" if first else last
