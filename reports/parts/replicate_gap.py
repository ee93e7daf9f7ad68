"""What sections of the test slice's patient in training are worth: each entry with and without them, side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stbench.statistics import bootstrap_interval

from ..figures import canvas
from ..figures.marks import draw_marks, section_marks
from ..figures.style import FAINT, INK, PAPER, SMALL, WIDTH, Mark
from ..numbers.means import replicates, slice_scores
from ..numbers.metrics import METRICS
from ..sections.section import Section, records
from ..tables.cells import DASH, number_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "What do replicate sections in training give away?"
WITH, WITHOUT = "loso", "lopo"  # leave one slice out keeps the patient's other slices, leave one patient out does not
METRIC_NAMES = ("strict_pcc_acg", "strict_pcc_heg", "mse")
SHOWN = ("strict_pcc_acg", "mse")


def part(section: Section, context: Context) -> Part | None:
    """Shown under leave one slice out; a pointer under leave one patient out. ``None`` where no patient has replicates.

    Only slices with a section of their patient in training are compared: for the others both splits train on the same
    slices.
    """
    if section.split == WITHOUT:
        return _pointer(section, context)
    affected = slices_with_replicates(section)
    if section.split != WITH or not affected:
        return None
    other = counterpart(section, context, WITHOUT)
    patients = {section.patients.get(name, "") for name in affected}
    if other is None:
        return Part(
            "replicate-gap",
            TITLE,
            (
                f"{len(affected)} of {len(section.slices)} slices had a section of the same patient in training. What "
                "that is worth cannot be said from these results: run the same command with --split lopo as well, and "
                "report both.",
            ),
        )
    gaps = gap_table(section, other, affected)
    known = gaps[(gaps["metric"] == SHOWN[0]) & gaps["difference"].notna()]
    lead = [_finding(section, known), *_order(section, known), *_caution(section, patients, affected)]
    pictures = []
    if len(known):
        with canvas.drawing():
            what = "strict PCC (ACG) with and without sections of the same patient in training"
            pictures.append(picture(section, "gap", what, gap_figure(section, known)))
    return Part("replicate-gap", TITLE, lead, (_table(section, gaps, affected),), pictures, {"gaps.csv": gaps})


def counterpart(section: Section, context: Context, split: str) -> Section | None:
    """The section of the same dataset and target under ``split``."""
    wanted = (section.dataset, split, section.target)
    return next((found for found in context.sections if (found.dataset, found.split, found.target) == wanted), None)


def slices_with_replicates(section: Section) -> tuple[str, ...]:
    """Test slices with at least one section of the same patient in their training slices, in fold order."""
    table = replicates(section)
    return tuple(table.loc[table["same_patient"] > 0, "slice"])


def gap_table(section: Section, other: Section, slices: tuple[str, ...]) -> pd.DataFrame:
    """One row for each entry of either section and metric: with less without replicates, paired by slice.

    ``with`` and ``without`` are means over patients of the means over their slices, over the slices that finished under
    both splits (``n_slices`` of ``of_slices``); ``difference``, with its 95 % interval ``low`` to ``high``
    (:func:`stbench.statistics.bootstrap_interval`; ``over``: what was drawn again), is given for all slices only.
    """
    both = [slice_scores(side.rows).set_index(["entry", "slice"])[list(METRIC_NAMES)] for side in (section, other)]
    paired = both[0].join(both[1], lsuffix=" with", rsuffix=" without", how="inner").reset_index()
    paired = paired[paired["slice"].isin(slices)]
    paired["patient"] = paired["slice"].map(section.patients).fillna("")
    unfinished = [set(side.rows.loc[side.rows["state"] != "finished", "entry"]) for side in (section, other)]
    labels = {**other.entries["label"].to_dict(), **section.entries["label"].to_dict()}
    kinds = {**other.entries["kind"].to_dict(), **section.entries["kind"].to_dict()}
    rows = []
    for entry in labels:
        mine = paired[paired["entry"] == entry]
        for metric in METRIC_NAMES:
            scored = mine.dropna(subset=[f"{metric} with", f"{metric} without"])
            complete = len(scored) == len(slices) and not any(entry in names for names in unfinished)
            row = {"entry": entry, "label": labels[entry], "kind": kinds[entry], "metric": metric}
            row |= {"n_slices": len(scored), "of_slices": len(slices), "with": np.nan, "without": np.nan}
            row |= {"difference": np.nan, "low": np.nan, "high": np.nan, "over": ""}
            if len(scored):
                means = scored.groupby("patient")[[f"{metric} with", f"{metric} without"]].mean().mean()
                row |= {"with": means.iloc[0], "without": means.iloc[1]}
            if complete:
                value = scored[f"{metric} with"] - scored[f"{metric} without"]
                interval = bootstrap_interval(
                    scored[["patient", "slice"]].assign(value=value), np.random.default_rng(0)
                )
                row |= {"difference": interval.mean, "low": interval.low, "high": interval.high, "over": interval.over}
            rows.append(row)
    return pd.DataFrame(rows)


def _finding(section: Section, known: pd.DataFrame) -> str:
    if known.empty:
        return "No entry has finished every such slice under both splits, so no difference is given yet."
    methods = known[known["kind"] == "method"]
    shown = methods if len(methods) else known
    widest = shown.iloc[shown["difference"].abs().argmax()]
    interval = _interval(widest["low"], widest["high"])
    sentence = (
        f"With other sections of the patient in training {widest['label']} reaches a strict PCC (ACG) of "
        f"{number(widest['with'], 3)}, without {number(widest['without'], 3)}: a difference of "
        f"{signed(widest['difference'])}{interval}"
    )
    if len(shown) == 1:
        return f"{sentence}."
    if methods.empty:
        return f"{sentence}, the largest of the {len(shown)} controls."
    mean = signed(float(methods["difference"].mean()))
    return f"{sentence}, the largest of {len(methods)} methods; their mean is {mean}."


def _order(section: Section, known: pd.DataFrame) -> list[str]:
    methods = known[known["kind"] == "method"]
    if len(methods) < 2:
        return []
    orders = [list(methods.sort_values(name, ascending=False, kind="stable")["label"]) for name in ("with", "without")]
    if orders[0] == orders[1]:
        return ["The order of the methods is the same under both."]
    if orders[0][0] == orders[1][0]:
        return [f"{orders[0][0]} is the first under both; the order below it changes."]
    return [f"The order of the methods changes: {orders[0][0]} is first with replicates, {orders[1][0]} without."]


def _caution(section: Section, patients: set[str], affected: tuple[str, ...]) -> list[str]:
    said = []
    if len(patients) == 1:
        name = next(iter(patients))
        said.append(
            f"Only one patient ({name}) has replicates here, {len(affected)} slices: the intervals are over these "
            "slices and say nothing about other patients."
        )
    if len(affected) < len(section.slices):
        without = len(section.slices) - len(affected)
        said.append(
            f"{without} further slice{'s have' if without != 1 else ' has'} no replicate in training and "
            f"{'are' if without != 1 else 'is'} left out: both splits train on the same slices there."
        )
    said.append("Without replicates there are also fewer training slices, so part of a difference may be due to that.")
    return said


def _table(section: Section, gaps: pd.DataFrame, slices: tuple[str, ...]) -> Table:
    named = gaps.rename(columns={"with": "kept", "without": "removed"})  # "with" cannot be a field's name
    by_metric = {(row.entry, row.metric): row for row in records(named)}

    def row(entry: str) -> tuple[Cell, ...]:
        first = by_metric[entry, SHOWN[0]]
        whole = all(by_metric[entry, metric].over != "" for metric in SHOWN)
        note = "" if whole else f"{first.n_slices}/{len(slices)} slices under both"
        cells = [Cell(first.label, first.label.lower(), minor=note)]
        for metric in SHOWN:
            values = by_metric[entry, metric]
            cells += [number_cell(values.kept), number_cell(values.removed)]
            if math.isnan(values.difference):
                cells.append(Cell(DASH))
            else:
                interval = _interval(values.low, values.high, 4).strip()
                cells.append(Cell(signed(values.difference, 4), float(values.difference), minor=interval))
        return tuple(cells)

    order = gaps.drop_duplicates("entry")
    blocks = [
        tuple(row(entry) for entry in order.loc[order["kind"] == kind, "entry"]) for kind in ("method", "control")
    ]
    return Table(
        name="gaps",
        caption=caption(section, f"with and without replicate sections in training, {len(slices)} slices"),
        columns=("method", *(text for _ in SHOWN for text in ("with", "without", "difference"))),
        groups=(("", 1), *((METRICS[metric].title, 3) for metric in SHOWN)),
        blocks=tuple(blocks),
        notes=(
            "with: leave one slice out, the patient's other slices are trained on; without: leave one patient out. "
            "Means over patients of the means over their slices, on slices with replicates only; difference: with − "
            "without.",
            f"Intervals: 95 %, bootstrap over {_drawn(gaps)}, paired by slice.",
        ),
    )


def _drawn(gaps: pd.DataFrame) -> str:
    over = set(gaps["over"]) - {""}
    return "patients and the slices within them" if over <= {"patients"} else "the slices of the one patient"


def signed(value: float, digits: int = 3) -> str:
    """``+0.012`` or ``−0.012``."""
    return f"{value:+.{digits}f}".replace("-", "−")


def _interval(low: float, high: float, digits: int = 3) -> str:
    return "" if math.isnan(low) else f" [{signed(low, digits)}, {signed(high, digits)}]"


def gap_figure(section: Section, known: pd.DataFrame) -> Figure:
    """One row per entry: an open mark without, a filled one with replicates, joined; ``known``: rows of one metric."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    look = section_marks(section)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.32 * len(known)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0, color=FAINT, lw=0.8, zorder=0)
    places = np.arange(len(known))
    axes.hlines(places, known["without"], known["with"], color=FAINT, lw=1.8, zorder=1)
    drawn = known.assign(place=places)
    hollow = {entry: Mark(PAPER, mark.marker) for entry, mark in look.items()}
    draw_marks(axes, drawn, "without", "place", hollow, zorder=2)
    draw_marks(axes, drawn, "with", "place", look, zorder=3)
    for row in records(drawn):
        axes.annotate(
            f"{signed(row.difference)}{_interval(row.low, row.high)}",
            (1.01, row.place),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=SMALL,
            annotation_clip=False,
        )
    axes.set_yticks(places, list(known["label"]))
    axes.set_ylim(len(known) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("strict PCC (ACG)")
    axes.set_ylabel("")
    n = known["n_slices"].max()
    title = f"{section.title}, {n} slice{'s' if n != 1 else ''} with replicates"
    figure.suptitle(title, x=0.01, ha="left")
    axes.annotate(
        "difference [95 %]",
        (1.01, 1.0),
        xycoords="axes fraction",
        xytext=(0, 4),
        textcoords="offset points",
        fontsize=SMALL,
        annotation_clip=False,
    )
    handles = [
        Line2D([], [], ls="", marker="o", ms=8, mfc=PAPER, mec=INK, label="without replicates"),
        Line2D([], [], ls="", marker="o", ms=8, mfc=FAINT, mec=INK, label="with replicates in training"),
    ]
    figure.legend(handles=handles, loc="outside lower left", ncols=2)
    return figure


def _pointer(section: Section, context: Context) -> Part | None:
    other = counterpart(section, context, WITH)
    if other is None or not slices_with_replicates(other):
        return None
    return Part(
        "replicate-gap",
        TITLE,
        (
            "Scores with and without other sections of the test slice's patient in training stand side by side under "
            f"{other.title}, leave one slice out.",
        ),
    )
