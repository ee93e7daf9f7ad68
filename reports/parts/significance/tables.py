"""The tables of comparisons, ranks and variance, with the notes that keep a reader from believing too much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from stbench.statistics import Interval, Ranks, VarianceSplit

from ...numbers.significance import ALPHA, Tested
from ...sections.section import Section, records
from ...tables.cells import DASH, number_cell
from ...tables.table import Cell, Table
from ...words.format import number, percent
from ...words.protocol import caption
from ...words.significance import label_of, many_patients, p_equals, p_text

FEW_PATIENTS = 10  # below, a bootstrap over patients gives intervals that are too narrow


def comparison_table(section: Section, tested: Sequence[Tested], title: str) -> Table:
    """``tested``: the best against the others, at least one; ``title``: of the metric."""
    first = tested[0].comparison
    best = label_of(section, first.a)
    return Table(
        name="comparisons",
        caption=caption(section, f"{title} of {best} against the others"),
        columns=(
            "against",
            "difference",
            "95 % interval",
            "p",
            "p (Holm)",
            "smallest p",
            "smallest p (Holm)",
            "patients won",
            "slices won",
        ),
        blocks=(tuple(_comparison_row(section, pair) for pair in tested),),
        notes=tuple(_comparison_notes(section, tested, best)),
    )


def _comparison_row(section: Section, pair: Tested) -> tuple[Cell, ...]:
    comparison = pair.comparison
    label = label_of(section, comparison.b)
    return (
        Cell(label, label.lower(), tags=("best control",) if pair.role == "best control" else ()),
        number_cell(comparison.difference),
        _interval(comparison.interval),
        p_cell(comparison.test.p, strong=comparison.test.p <= ALPHA),
        p_cell(pair.p, strong=pair.told_apart),
        p_cell(comparison.test.smallest_p),
        p_cell(pair.smallest_p),
        Cell(
            _won(comparison.patients_won, comparison.patients_tied, comparison.n_patients),
            float(comparison.patients_won),
        ),
        Cell(_won(comparison.slices_won, comparison.slices_tied, comparison.n_slices), float(comparison.slices_won)),
    )


def _comparison_notes(section: Section, tested: Sequence[Tested], best: str) -> list[str]:
    first = tested[0].comparison
    notes = [
        f"difference: {best} minus the other, the mean over patients of the mean over each one's slices, after the "
        "mean over seeds; every patient counts the same, so it may differ from the difference of two means over slices."
    ]
    if first.n_patients > 1:
        notes.append(
            f"p: {first.test.name}, two-sided, on one difference a patient: what counts for the claim that {best} is "
            f"better than all others at once. Holm: corrected for the {len(tested)} "
            f"comparison{'s' if len(tested) > 1 else ''} of this table, for whoever picks one of them out. Bold: at "
            f"most {ALPHA}. Smallest: no data could give less on this many patients."
        )
    else:
        notes.append("p: a test needs two patients at least.")
    notes.append(_interval_note(first.interval))
    if len(tested) > 1:
        notes.append(
            f"{best} was chosen as the best on these same slices, which flatters the differences and Holm's values; "
            "the claim against all others allows for it (Gutmann and Maymin 1987)."
        )
    if (section.rows["same_patient_training_slices"] > 0).any():
        notes.append("Other slices of the test patients were in training: the tests speak of known patients.")
    return notes


def ranks_table(section: Section, means: Mapping[str, Interval], ranks: Ranks, title: str) -> Table:
    """``means``: the mean over patients of each entry, with its interval."""
    rows = [
        (
            Cell(label_of(section, entry), label_of(section, entry).lower()),
            number_cell(means[entry].mean),
            _interval(means[entry]),
            number_cell(ranks.mean[entry], 2),
        )
        for entry in map(str, ranks.mean.index)
    ]
    notes = [
        f"mean: over patients of the mean over slices. {_interval_note(next(iter(means.values())))}",
        "rank: 1 is the best of a patient's mean over slices; ties share a rank.",
    ]
    if not math.isnan(ranks.friedman_p):
        rough = ", a rough value on so few patients" if ranks.n_patients < FEW_PATIENTS else ""
        notes.append(f"Friedman's test that all are equal: p {p_equals(ranks.friedman_p)}{rough}.")
    notes.append("Only entries that are complete on every slice are ranked; oracles are not.")
    return Table(
        name="ranks",
        caption=caption(section, f"{title} by patient: means, intervals and ranks"),
        columns=("entry", "mean", "95 % interval", "mean rank"),
        blocks=(tuple(rows),),
        notes=tuple(notes),
    )


def variance_table(section: Section, split: VarianceSplit, title: str) -> Table:
    rows = [
        (
            Cell(row.source, row.source),
            Cell(percent(row.share), float(row.share)),
            number_cell(float(np.sqrt(row.variance))),
            Cell(f"{row.df}", float(row.df)),
        )
        for row in records(split.table)
    ]
    notes = ["Components of variance, from mean squares. method × patient, method × slice: what suits one method only."]
    if (split.table["df"] < 5).any():
        notes.append("With few degrees of freedom (df) a component is a rough guess.")
    if (split.table["estimate"] < 0).any():
        names = ", ".join(split.table.loc[split.table["estimate"] < 0, "source"])
        notes.append(f"Estimated below 0, hence counted as 0: {names}.")
    slices = f"{split.n_slices} slice{'s' if split.n_slices != 1 else ''}"
    seeds = f"{split.n_seeds} seed{'s' if split.n_seeds != 1 else ''}"
    notes.append(f"Over {split.n_entries} entries, {many_patients(split.n_patients)}, {slices} and {seeds}.")
    return Table(
        name="variance",
        caption=caption(section, f"where the variance of {title} comes from"),
        columns=("source", "share", "standard deviation", "df"),
        blocks=(tuple(rows),),
        notes=(*notes, *split.notes),
    )


def _interval_note(interval: Interval) -> str:
    level = f"{percent(interval.level)} interval: bootstrap"
    if interval.over == "slices":
        return f"{level} over the slices of one patient: it says nothing about new patients."
    if interval.over == "nothing":
        return "One slice: there is nothing to draw an interval from."
    narrow = f" {many_patients(interval.n_patients)} are few: such intervals are too narrow."
    return f"{level} over patients, then over slices within each.{narrow if interval.n_patients < FEW_PATIENTS else ''}"


def p_cell(value: float, strong: bool = False) -> Cell:
    return Cell(DASH) if math.isnan(value) else Cell(p_text(value), float(value), strong=strong)


def _interval(interval: Interval) -> Cell:
    if math.isnan(interval.low):
        return Cell(DASH)
    return Cell(f"{number(interval.low)} to {number(interval.high)}", float(interval.low))


def _won(won: int, tied: int, n: int) -> str:
    return f"{won}/{n}" + (f" ({tied} tied)" if tied else "")
