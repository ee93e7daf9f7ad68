"""What it matters how a method is read: as recommended, as its released code stands, as its text says, side by side."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from stbench.readings import READINGS

from ..figures import canvas
from ..figures.style import FAINT, INK, WIDTH, marks
from ..numbers.metrics import METRICS
from ..sections.section import Section, records
from ..sections.trial_files import trial_table
from ..tables.cells import DASH, number_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRIC = "pcc_acg"
TITLE = "What does the reading of a method change?"
RECOMMENDED = READINGS[0]
SHAPES = {"published": "o", "released": "s", "paper": "^"}
WHO = ["method", "variant", "weights"]  # readings of one method, other settings and weights alike, are compared


def part(section: Section, context: Context) -> Part | None:
    """``None`` unless a method was run under two readings, here or in another section of the dataset and split."""
    scores = readings_scores(section, context)
    if scores.empty or scores["preset"].nunique() < 2:
        return None
    table = readings_table(scores)
    if table.empty:
        return None
    pictures = []
    if table[METRIC].notna().any():
        with canvas.drawing():
            what = f"{METRICS[METRIC].title} of each method under each reading"
            pictures.append(picture(section, "readings", what, readings_figure(table)))
    return Part(
        "readings", TITLE, _lead(section, table), (_table(section, table),), pictures, {"readings.csv": _plain(table)}
    )


def readings_scores(section: Section, context: Context) -> pd.DataFrame:
    """One row per reading, seed and slice: the score of its prediction against the truth on the section's target.

    A reading may be learned on a target of its own and then stands in another section, so all sections of the same
    dataset and split are looked through, and their predictions compared with this section's truth.
    """
    parts = []
    for other in context.sections:
        if (other.dataset, other.split) != (section.dataset, section.split):
            continue
        scored = trial_table(other, "targets.csv")
        if scored.empty:
            continue
        scored = scored[scored["target"] == section.target]
        about = other.entries[["method", "title", "kind", "preset", "variant", "weights", "leak"]]
        config = {entry: spec.config for entry, spec in other.specs.items()}
        part = scored[["entry", "seed", "slice", METRIC]].join(about, on="entry").assign(learned=other.target)
        parts.append(part.assign(config=part["entry"].map(config)))
    if not parts:
        return pd.DataFrame(columns=["preset"])
    table = pd.concat(parts, ignore_index=True)
    return table[(table["kind"] == "method") & table["preset"].isin(READINGS)]


def readings_table(scores: pd.DataFrame) -> pd.DataFrame:
    """One row per method's reading: its score, the change against the recommended reading, the settings that differ.

    Columns: method, title, variant, weights, preset, learned, leak, the score (mean over seeds, then slices),
    ``n_slices``, ``change`` (mean over the slices and seeds that both have; NaN without a recommended reading),
    ``n_common`` (those slices), ``differs`` (setting to the recommended value and its own; ``None``: not known).
    Methods of one reading alone are left out.
    """
    rows = []
    for _, readings in scores.groupby(WHO, sort=False):
        if readings["preset"].nunique() < 2:
            continue
        groups = sorted(
            readings.groupby(["preset", "learned"], sort=False), key=lambda group: READINGS.index(group[0][0])
        )
        base = groups[0][1] if groups[0][0][0] == RECOMMENDED else None
        for (preset, learned), part in groups:
            first = part.iloc[0]
            pair = None if base is None else _paired(part, base)
            rows.append(
                {name: first[name] for name in (*WHO, "title", "leak")}
                | {"preset": preset, "learned": learned, METRIC: _mean(part), "n_slices": part["slice"].nunique()}
                | {"change": float("nan") if pair is None else _mean(pair)}
                | {"n_common": 0 if pair is None else pair["slice"].nunique()}
                | {"differs": None if base is None else _differences(first, base.iloc[0])}
            )
    return pd.DataFrame(rows)


def _paired(part: pd.DataFrame, base: pd.DataFrame) -> pd.DataFrame:
    both = part.merge(base, on=["seed", "slice"], suffixes=("", "_base"))
    return both.assign(**{METRIC: both[METRIC] - both[f"{METRIC}_base"]})


def _mean(part: pd.DataFrame) -> float:
    """Mean over slices of the mean over seeds; undefined where one of them is."""
    return float(part.groupby("slice")[METRIC].agg(lambda values: values.mean(skipna=False)).mean(skipna=False))


def _differences(row: pd.Series, base: pd.Series) -> dict[str, tuple[Any, Any]]:
    ours, theirs = row["config"], base["config"]
    found = {"target": (base["learned"], row["learned"])} if row["learned"] != base["learned"] else {}
    return found | {name: (theirs.get(name), value) for name, value in ours.items() if theirs.get(name) != value}


def _lead(section: Section, table: pd.DataFrame) -> list[str]:
    name = METRICS[METRIC].title
    lead = []
    moved = table.dropna(subset="change")
    moved = moved[moved["preset"] != RECOMMENDED]
    if len(moved):
        most = moved.iloc[int(moved["change"].abs().argmax())]
        lead.append(
            f"Read as {most['preset']} instead of {RECOMMENDED}, {most['title']}'s {name} changes most: by "
            f"{_signed(most['change'])}, to {number(most[METRIC])}."
        )
        recommended = table[table["preset"] == RECOMMENDED].dropna(subset=METRIC)
        if len(recommended) > 1:
            span = recommended[METRIC].max() - recommended[METRIC].min()
            lead.append(
                f"For comparison, the {len(recommended)} methods' recommended readings lie within {number(span)} of "
                "each other."
            )
    else:
        lead.append(
            f"No reading can be compared with the recommended one yet: it needs a finished trial of the preset "
            f"'{RECOMMENDED}' on the same slice and seed."
        )
    same = [f"{row.title} ({row.preset})" for row in records(table) if row.preset != RECOMMENDED and row.differs == {}]
    if same:
        lead.append(f"No setting differs from the recommended ones in {', '.join(same)}.")
    lead.append(
        f"{RECOMMENDED}: the faithful reading that is recommended; released: the released code's values, faults "
        "included; paper: the text's. Each was learned on the target that is named and is compared here with the truth "
        f"on {section.target}. Where each value stands: stbench methods show METHOD --dataset {section.dataset} "
        "--compare."
    )
    leaking = table[table["leak"] != ""].drop_duplicates(["method", "leak"])
    return lead + [f"{row.title} ({row.preset}) leaks: {row.leak}." for row in records(leaking)]


def _signed(value: float) -> str:
    if value == 0:
        return number(0.0)
    return f"{'+' if value >= 0 else '−'}{number(abs(value))}"


def _told(differs: Mapping[str, tuple[Any, Any]] | None) -> str:
    if differs is None:
        return "not known"
    return "; ".join(f"{name}: {theirs} → {ours}" for name, (theirs, ours) in differs.items()) or "none"


def _plain(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(differs=[_told(differs) for differs in table["differs"]])


def _table(section: Section, table: pd.DataFrame) -> Table:
    blocks = []
    for _, readings in table.groupby(WHO, sort=False):
        block = []
        for row in records(readings):
            tags = ("leak",) if row.leak else ()
            value, change = getattr(row, METRIC), row.change
            shared = "" if row.n_common == row.n_slices else f"on {row.n_common} slices"
            is_base = row.preset == RECOMMENDED
            moved = Cell(DASH) if math.isnan(change) else Cell(_signed(change), change, minor=shared)
            block.append(
                (
                    Cell(row.title, row.title.lower(), tags=tags),
                    Cell(row.preset, READINGS.index(row.preset)),
                    Cell(row.learned, row.learned),
                    Cell(f"{row.n_slices}/{len(section.slices)}", float(row.n_slices)),
                    number_cell(value, undefined="undefined"),
                    Cell("") if is_base else moved,
                    Cell("" if is_base else _told(row.differs), ""),
                )
            )
        blocks.append(tuple(block))
    changed = [
        f"{readings['title'].iloc[0]}: {variant}"
        for (_, variant, _), readings in table.groupby(WHO, sort=False)
        if variant
    ]
    alike = (f"Changed under each reading alike: {'; '.join(changed)}.",) if changed else ()
    return Table(
        name="readings",
        caption=caption(section, "each method under each reading"),
        columns=(
            "method",
            "reading",
            "learned on",
            "slices",
            METRICS[METRIC].title,
            f"against {RECOMMENDED}",
            f"settings that differ ({RECOMMENDED} → its own)",
        ),
        blocks=tuple(blocks),
        notes=(
            f"Mean over slices of the mean over seeds, against the truth on {section.target}. The change is over the "
            "slices and seeds that both readings have finished. Settings are those that the trials ran with.",
            *alike,
        ),
        text_columns=frozenset({0, 1, 2, 6}),
    )


def readings_figure(table: pd.DataFrame) -> Figure:
    """A row per method: a mark for each reading, a little below the one before, on a line from lowest to highest."""
    from matplotlib.figure import Figure

    groups = [readings for _, readings in table.groupby(WHO, sort=False)]
    look = marks([(str(readings["method"].iloc[0]), "method") for readings in groups])
    figure = Figure(figsize=(WIDTH, 1.5 + 0.55 * len(groups)), layout="constrained")
    axes = figure.subplots()
    for place, (readings, mark) in enumerate(zip(groups, look, strict=True)):
        known = readings.dropna(subset=METRIC)
        if len(known):
            axes.plot([known[METRIC].min(), known[METRIC].max()], [place, place], color=FAINT, lw=1.2, zorder=1)
        for row in records(known):
            at = place + 0.2 * (READINGS.index(row.preset) - 1)
            axes.plot(getattr(row, METRIC), at, SHAPES[row.preset], ms=8, mfc=mark.colour, mec=INK, mew=0.6, zorder=3)
    titles = [str(readings["title"].iloc[0]) for readings in groups]
    names = [  # other settings are the same under each reading: they are named only where they tell two rows apart
        title
        if titles.count(title) == 1
        else textwrap.fill(f"{title}, {readings['variant'].iloc[0] or 'as preset'}", 28)
        for title, readings in zip(titles, groups, strict=True)
    ]
    axes.set_yticks(range(len(groups)), names)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=FAINT, lw=0.7, zorder=0)
    axes.set_xlabel(METRICS[METRIC].title)
    ordered = [reading for reading in READINGS if reading in set(table["preset"])]
    handles = [_grey(SHAPES[reading]) for reading in ordered]
    figure.legend(handles, ordered, loc="outside right upper")
    figure.suptitle("One method, its readings", x=0.01, ha="left")
    return figure


def _grey(shape: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], ls="", marker=shape, ms=8, mfc=FAINT, mec=INK, mew=0.6)
