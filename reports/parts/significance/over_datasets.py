"""One test over all datasets of a report that share a split and a target: more patients, hence more to be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from stbench.statistics import StratifiedTest, holm, patient_differences, stratified_test

from ...numbers.means import board_of
from ...numbers.metrics import METRICS
from ...numbers.significance import ALPHA, Tested, comparable
from ...sections.section import Section
from ...tables.cells import number_cell
from ...tables.table import Cell, Table
from ...words.protocol import split_title
from ...words.significance import label_of, many_patients, p_equals, p_text
from .tables import p_cell


@dataclass(frozen=True)
class OverDatasets:
    """One pair of entries tested over several datasets; ``p`` is Holm's over all such pairs, none can be below
    ``smallest_p``."""

    a: str
    b: str
    result: StratifiedTest
    p: float
    smallest_p: float


def over_datasets(
    section: Section, sections: Sequence[Section], tested: Sequence[Tested], metric: str
) -> list[OverDatasets]:
    """The pairs of ``tested`` over all datasets in which both entries are complete; empty where there are not two.

    Only sections of the same split and target are looked at: scores of different targets never mix.
    """
    same = [other for other in sections if (other.split, other.target) == (section.split, section.target)]
    if len(same) < 2:
        return []
    boards = [board_of(other) for other in same]
    scores = {other.dataset: comparable(other, board, metric) for other, board in zip(same, boards, strict=True)}
    results = []
    for pair in tested:
        a, b = pair.comparison.a, pair.comparison.b
        strata = [
            patient_differences(scored, a, b).rename("value").reset_index().assign(stratum=dataset)
            for dataset, scored in scores.items()
            if {a, b} <= set(scored["entry"])
        ]
        if len(strata) > 1:
            results.append((a, b, stratified_test(pd.concat(strata, ignore_index=True))))
    corrected = holm([result.test.p for _, _, result in results])
    return [
        OverDatasets(a, b, result, float(p), min(1.0, len(results) * result.test.smallest_p))
        for (a, b, result), p in zip(results, corrected, strict=True)
    ]


def sentence(section: Section, over: OverDatasets) -> str:
    a, b = label_of(section, over.a), label_of(section, over.b)
    where = f"on {many_patients(over.result.n_patients)} of {len(over.result.strata)} datasets together"
    if over.smallest_p > ALPHA:
        return f"{a} and {b} cannot be told apart {where}: the smallest p after Holm is {p_text(over.smallest_p)}."
    said = "are" if over.p <= ALPHA else "are not"
    return f"{a} and {b} {said} told apart {where} (p {p_equals(over.p)} after Holm's correction)."


def table(section: Section, sections: Sequence[Section], over: Sequence[OverDatasets], metric: str) -> Table:
    same = [other for other in sections if (other.split, other.target) == (section.split, section.target)]
    titles = {other.dataset: f"{other.title}, {other.coverage}" for other in same}
    datasets = [name for name in titles if any((pair.result.strata["stratum"] == name).any() for pair in over)]
    rows = []
    for pair in over:
        differences = pair.result.strata.set_index("stratum")["difference"].reindex(datasets)
        label = label_of(section, pair.b)
        rows.append(
            (
                Cell(label, label.lower()),
                *(number_cell(float(value)) for value in differences),
                Cell(f"{pair.result.n_patients}", float(pair.result.n_patients)),
                p_cell(pair.result.test.p),
                p_cell(pair.p, strong=pair.p <= ALPHA),
                p_cell(pair.smallest_p),
            )
        )
    best, title = label_of(section, over[0].a), METRICS[metric].title
    where = f"{split_title(section.split)}, target {section.target}"
    return Table(
        name="datasets",
        caption=f"{where}: {title} of {best} against the others, over several datasets",
        columns=("against", *(titles[name] for name in datasets), "patients", "p", "p (Holm)", "smallest p (Holm)"),
        blocks=(tuple(rows),),
        groups=(("", 1), (f"difference ({best} minus the other)", len(datasets)), ("one test", 4)),
        notes=(
            "One sign-flip test on all patients; each patient's difference is divided by the root mean square of its "
            "dataset's differences, so that no dataset weighs more because its scores spread more.",
        ),
    )


def frame(over: Sequence[OverDatasets], metric: str) -> pd.DataFrame:
    """One row per pair and dataset: the difference there, and the numbers of the one test."""
    parts = []
    for pair in over:
        test = pair.result.test
        part = pair.result.strata.rename(columns={"stratum": "dataset"})
        part = part.assign(metric=metric, entry=pair.a, other=pair.b, test=test.name, p=test.p, p_holm=pair.p)
        parts.append(part.assign(smallest_p=test.smallest_p, smallest_p_holm=pair.smallest_p))
    return pd.concat(parts, ignore_index=True)
