"""What tests between entries say, in sentences."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..numbers.significance import ALPHA, BestOfAll, Tested
from ..sections.section import Section

QUESTION = "Can the methods be told apart?"  # the part of the report that holds the tests


def many_patients(n: int) -> str:
    return f"{n} patient{'s' if n != 1 else ''}"


def p_text(p: float) -> str:
    """Two digits, as many as a p value deserves."""
    return "–" if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


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
