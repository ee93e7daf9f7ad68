"""Figures 2 to 4 of the paper in two forms: boxes over genes, and one dot for each slice and method."""

from __future__ import annotations

import logging
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..numbers.means import box_statistics, seed_means, slice_scores
from ..numbers.metrics import METRICS
from ..sections.section import Section
from .style import BAND, FAINT, HEADING, INK, LETTER, LINE, PAPER, SMALL, WIDTH, Mark

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from .marks import ACROSS, GAP, draw_boxes, draw_marks_of, places_of, section_marks

log = logging.getLogger("stbench")

MISSING_GLYPH = re.compile(r"Glyph (\d+) .*missing from")
MARGIN_LEFT, MARGIN_RIGHT = 0.85, 0.12  # inches, as all that follows
PANEL_HEIGHT = 2.6
PANEL_GAP = 0.25  # between patients in a row
SLICE_NAMES = 0.32  # below a row
PATIENT_NAMES = 0.42  # above a row, where patients are set apart
LEGEND_ROW = 0.225
NO_VALUE = "no value (unfinished, undefined)"


@dataclass(frozen=True)
class Panel:
    """Slices drawn side by side in one axes; ``title`` is empty where patients are not set apart."""

    title: str
    slices: tuple[str, ...]


def panels(slices: Sequence[str], patients: Mapping[str, str]) -> list[Panel]:
    """One panel per patient, in fold order, where patients have slices to compare; else all slices in one.

    Patients are set apart when each has 1.5 slices or more on average: nine slices of eight patients would be eight
    panels.
    """
    by_patient: dict[str, list[str]] = {}
    for name in slices:
        by_patient.setdefault(patients.get(name, ""), []).append(name)
    if len(by_patient) == 1 or len(slices) < 1.5 * len(by_patient):
        return [Panel("", tuple(slices))]
    return [
        Panel(f"patient {patient}" if patient else "patient not known", tuple(names))
        for patient, names in by_patient.items()
    ]


def arrange(panels: Sequence[Panel], capacity: int) -> list[list[Panel]]:
    """Fill rows of at most ``capacity`` slices, in order; a panel longer than a row is broken into equal parts."""
    rows: list[list[Panel]] = [[]]
    for panel in panels:
        n_parts = -(-len(panel.slices) // capacity)
        for part in np.array_split(np.array(panel.slices, dtype=object), n_parts):
            used = sum(len(other.slices) for other in rows[-1])
            if rows[-1] and used + len(part) > capacity:
                rows.append([])
            rows[-1].append(Panel(panel.title, tuple(part)))
    return rows


def boxes(section: Section) -> Figure:
    """PCC over genes as a box for each slice and method: median, quartiles, whiskers, no outliers, mean as a mark."""
    look = section_marks(section)
    genes = seed_means(section.genes)
    statistics = box_statistics(section.genes)
    means = statistics.set_index(["slice", "entry"])["mean"].dropna()

    def draw(axes: Axes, slices: Sequence[str]) -> None:
        here = genes[genes["slice"].isin(slices)]
        if here.empty:
            return
        places = {"order": slices, "hue_order": places_of(section), "width": ACROSS, "gap": 0.12}
        draw_boxes(axes, here, "slice", "r", {**look, GAP: Mark(PAPER, "")}, linewidth=0.6, **places)

    unit = max(0.55, 0.12 * len(look) + 0.15)
    ends = statistics[["low", "high"]].to_numpy().ravel()
    text = "Pearson r of each gene"
    note = "box: quartiles and median over genes, whiskers to 1.5 × IQR, mark: mean"
    heading = f"PCC per gene, {section.coverage}"
    return _slices_figure(section, draw, means, unit, ends, text, heading, note, filled=True)


def dots(section: Section, metric: str = "pcc_acg") -> Figure:
    """A mark for each slice and method: the metric's mean over seeds, with a line from lowest to highest seed."""
    scores = slice_scores(section.rows)
    finished = section.rows[section.rows["state"] == "finished"]
    ends = finished.groupby(["slice", "entry"])[metric].agg(low="min", high="max")
    values = scores.set_index(["slice", "entry"])[metric].dropna()
    look = section_marks(section)
    several = bool(finished.groupby("entry")["seed"].nunique().gt(1).any())

    def draw(axes: Axes, slices: Sequence[str]) -> None:
        import seaborn as sns

        here = finished[finished["slice"].isin(slices)].dropna(subset=metric)
        if here.empty or not several:
            return  # without seeds to spread over, the marks alone
        sns.pointplot(
            data=here,
            x="slice",
            y=metric,
            hue="entry",
            order=slices,
            hue_order=places_of(section),
            palette=dict.fromkeys(places_of(section), INK),
            dodge=ACROSS * (1 - 1 / len(places_of(section))),
            errorbar=("pi", 100),  # from the lowest to the highest seed
            linestyle="none",
            marker="",
            err_kws={"linewidth": 0.9},
            legend=False,
            ax=axes,
        )

    unit = max(0.45, 0.09 * len(look) + 0.12)
    title = METRICS[metric].title
    error = metric in ("mse", "mae")
    note = "one mark for each slice and method" + ("; lower is better" if error else ": the mean over genes")
    note += "; mean over seeds, line: lowest to highest seed" if several else ""
    heading = f"{title} per slice, {section.coverage}"
    drawn = ends.reindex(values.index).to_numpy().ravel()
    return _slices_figure(section, draw, values, unit, drawn, title, heading, note, with_zero=not error)


def _slices_figure(
    section: Section,
    draw: Callable[[Axes, Sequence[str]], None],
    marked: pd.Series,
    unit: float,
    values: np.ndarray,
    ylabel: str,
    title: str,
    note: str,
    filled: bool = False,
    with_zero: bool = True,
) -> Figure:
    """Slices along x in rows of panels, legend on top, a line at 0.

    ``draw(axes, slices)`` draws the slices of one panel below their marks, the values ``marked``. ``unit``: the least
    number of inches for a slice; ``values``: all that is drawn; ``filled`` says that the legend shows boxes.
    """
    from matplotlib.figure import Figure

    inside = WIDTH - MARGIN_LEFT - MARGIN_RIGHT
    rows = arrange(panels(section.slices, section.patients), max(1, int(inside / unit)))
    unit = min((inside - PANEL_GAP * (len(row) - 1)) / sum(len(panel.slices) for panel in row) for row in rows)
    look = section_marks(section)
    labels = [str(label) for label in section.entries["label"]]
    absent = len(marked) < len(section.slices) * len(section.entries)
    labels += [NO_VALUE] if absent else []
    columns = _legend_columns(labels)
    legend_rows = -(-len(labels) // columns)
    longest_name = max(len(name) for name in section.slices)
    tilt = longest_name * LETTER > unit
    below = SLICE_NAMES + (0.06 * longest_name if tilt else 0)
    above = PATIENT_NAMES if rows[0][0].title else 0.18
    small = textwrap.wrap(note, int((WIDTH - 0.2) / 0.08))
    heading = textwrap.wrap(f"{section.title}: {title}", int((WIDTH - 0.2) / 0.115))
    legend_top = 0.12 + 0.27 * len(heading) + LINE * len(small) + 0.06
    top = legend_top + legend_rows * LEGEND_ROW + above
    height = top + len(rows) * PANEL_HEIGHT + (len(rows) - 1) * (above + below) + below + 0.08
    figure = Figure(figsize=(WIDTH, height))
    limits = _limits(values, with_zero)
    for number_of_row, row in enumerate(rows):
        left = MARGIN_LEFT
        bottom = height - top - (number_of_row + 1) * PANEL_HEIGHT - number_of_row * (above + below)
        for place, panel in enumerate(row):
            across = len(panel.slices) * unit
            axes = figure.add_axes((left / WIDTH, bottom / height, across / WIDTH, PANEL_HEIGHT / height))
            left += across + PANEL_GAP
            for x in range(0, len(panel.slices), 2):
                axes.axvspan(x - 0.5, x + 0.5, color=BAND, lw=0, zorder=0)
            draw(axes, panel.slices)
            draw_marks_of(axes, section, panel.slices, marked, filled)
            if with_zero:
                axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
            axes.set(xlim=(-0.5, len(panel.slices) - 0.5), ylim=limits)
            axes.set_xticks(
                range(len(panel.slices)), panel.slices, rotation=35 if tilt else 0, ha="right" if tilt else "center"
            )
            axes.tick_params(axis="x", length=0)
            axes.set_title(panel.title, loc="left", pad=4)
            if place:
                axes.tick_params(axis="y", labelleft=False, length=0)
                axes.spines["left"].set_visible(False)
            else:
                axes.set_ylabel(ylabel)
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, "\n".join(heading), va="top", fontsize=HEADING, fontweight="bold")
    small_top = 0.12 + 0.27 * len(heading)
    figure.text(0.1 / WIDTH, 1 - small_top / height, "\n".join(small), va="top", fontsize=SMALL)
    _legend(figure, look, labels, columns, absent, filled, 1 - legend_top / height)
    return figure


def _limits(values: np.ndarray, with_zero: bool) -> tuple[float, float]:
    """Limits that hold all values (and 0), with room at the foot for crosses."""
    known = values[np.isfinite(values)]
    if not known.size:
        return 0.0, 1.0
    low, high = float(known.min()), float(known.max())
    if with_zero:
        low, high = min(0.0, low), max(0.0, high)
    room = ((high - low) or abs(high) or 1.0) * 0.06
    return low - 1.7 * room, high + room


def _legend(
    figure: Figure,
    look: Mapping[str, Mark],
    labels: Sequence[str],
    columns: int,
    absent: bool,
    filled: bool,
    top: float,
) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[object] = []
    for mark in look.values():
        if filled:
            box = Patch(facecolor=mark.colour, edgecolor=INK, linewidth=0.5)
            handles.append((box, Line2D([], [], ls="", marker=mark.marker, ms=4.5, mfc=PAPER, mec=INK, mew=0.6)))
        else:
            handles.append(Line2D([], [], ls="", marker=mark.marker, ms=6.5, mfc=mark.colour, mec=INK, mew=0.6))
    if absent:
        handles.append(Line2D([], [], ls="", marker="x", ms=5, mec=FAINT, mew=0.9))
    figure.legend(
        _by_rows(handles, columns),
        _by_rows(labels, columns),
        loc="upper left",
        bbox_to_anchor=(0.06 / figure.get_figwidth(), top),
        ncols=columns,
        handlelength=1.5,
        columnspacing=1.2,
        labelspacing=0.35,
        borderaxespad=0.1,
    )


def _legend_columns(labels: Sequence[str]) -> int:
    """As many as the figure is wide enough for."""

    def width(columns: int) -> float:
        return sum(LETTER * max(map(len, labels[place::columns])) + 0.55 for place in range(columns))

    return max((n for n in range(1, len(labels) + 1) if width(n) <= WIDTH - 0.2), default=1)


def _by_rows(items: Sequence[Any], columns: int) -> list[Any]:
    """Order for matplotlib, which fills a legend column by column, so that it reads row by row."""
    return [item for column in range(columns) for item in items[column::columns]]


def has_boxes(genes: pd.DataFrame) -> bool:
    return bool(genes["r"].notna().any()) if len(genes) else False
