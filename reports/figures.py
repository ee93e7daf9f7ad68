"""Figures 2 to 4 of the paper in two forms: boxes over genes, and one dot for each slice and method."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from .load import Section, records
from .style import BAND, FAINT, INK, MATPLOTLIB, PAPER, Mark, marks
from .tables import METRICS, box_statistics, slice_scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

NARROWEST = 6.8
WIDTH = 12.0  # inches that a row of slices may take
MARGIN_LEFT, MARGIN_RIGHT = 0.75, 0.15
PANEL_HEIGHT = 2.0
PANEL_GAP = 0.25  # between patients in a row
SLICE_NAMES = 0.28  # below a row
PATIENT_NAMES = 0.36  # above a row, where patients are set apart
TITLE_HEIGHT = 0.34
LINE = 0.15  # of the small text under the title
LEGEND_ROW = 0.185
NO_VALUE = "no value (unfinished, undefined)"
SAVED_WITH: Mapping[str, Mapping[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "webp": {"dpi": 110, "pil_kwargs": {"quality": 80, "method": 4}},
}


@dataclass(frozen=True)
class Panel:
    """Slices drawn side by side in one axes; ``title`` is empty where patients are not set apart."""

    title: str
    slices: tuple[str, ...]


def panels(slices: Sequence[str], patients: Mapping[str, str]) -> list[Panel]:
    """One panel a patient, in fold order, where patients have slices to compare; else all slices in one.

    Patients are set apart when each has 1.5 slices or more on average: nine slices of eight patients would be eight
    panels.
    """
    by_patient: dict[str, list[str]] = {}
    for name in slices:
        by_patient.setdefault(patients.get(name, ""), []).append(name)
    if len(by_patient) == 1 or len(slices) < 1.5 * len(by_patient):
        return [Panel("", tuple(slices))]
    return [
        Panel(f"patient {patient}" if patient else "patient not known", tuple(of)) for patient, of in by_patient.items()
    ]


def arrange(of: Sequence[Panel], capacity: int) -> list[list[Panel]]:
    """Fill rows of at most ``capacity`` slices, in order; a panel longer than a row is broken into equal parts."""
    rows: list[list[Panel]] = [[]]
    for panel in of:
        n_parts = -(-len(panel.slices) // capacity)
        for part in np.array_split(np.array(panel.slices, dtype=object), n_parts):
            used = sum(len(other.slices) for other in rows[-1])
            if rows[-1] and used + len(part) > capacity:
                rows.append([])
            rows[-1].append(Panel(panel.title, tuple(part)))
    return rows


def boxes(section: Section) -> Figure:
    """PCC over genes as a box for each slice and method: median, quartiles, whiskers, no outliers, mean as a mark."""
    statistics = box_statistics(section.genes)
    boxes_of = {(row.slice, row.entry): row for row in records(statistics)}
    look = section_marks(section)
    offsets, step = _offsets(section, 0.86)

    def draw(axes: Axes, x: float, name: str) -> None:
        for (entry, mark), offset in zip(look.items(), offsets, strict=True):
            at = x + offset
            of = boxes_of.get((name, entry))
            if of is None:
                _absent(axes, at)
                continue
            axes.bxp(
                [{"med": of.median, "q1": of.q1, "q3": of.q3, "whislo": of.low, "whishi": of.high}],
                positions=[at],
                widths=[step * 0.82],
                showfliers=False,
                showcaps=False,
                patch_artist=True,
                boxprops={"facecolor": mark.colour, "edgecolor": INK, "linewidth": 0.5},
                medianprops={"color": mark.line, "linewidth": 1.1, "solid_capstyle": "butt"},
                whiskerprops={"color": INK, "linewidth": 0.6},
                manage_ticks=False,
                zorder=2.5,
            )
            axes.plot(at, of.mean, mark.marker, ms=3.4, mfc=PAPER, mec=INK, mew=0.5, zorder=4)

    unit = max(0.5, 0.115 * len(look) + 0.15)
    ends = statistics[["low", "high"]].to_numpy().ravel()
    text = "Pearson r of each gene"
    note = "box: quartiles and median over genes, whiskers to 1.5 × IQR, mark: mean"
    return _slices_figure(section, draw, unit, ends, text, f"PCC per gene, {section.coverage}", note, filled=True)


def dots(section: Section, metric: str = "pcc_acg") -> Figure:
    """A mark for each slice and method: the metric's mean over seeds, with a line from lowest to highest seed."""
    scores = slice_scores(section.rows)
    finished = section.rows[section.rows["state"] == "finished"]
    ends = finished.groupby(["slice", "entry"])[metric].agg(low="min", high="max")
    known = scores.assign(value=scores[metric]).dropna(subset="value").join(ends, on=["slice", "entry"])
    marks_of = {(row.slice, row.entry): row for row in records(known)}
    look = section_marks(section)
    offsets, _ = _offsets(section, 0.82)

    def draw(axes: Axes, x: float, name: str) -> None:
        for (entry, mark), offset in zip(look.items(), offsets, strict=True):
            at = x + offset
            of = marks_of.get((name, entry))
            if of is None:
                _absent(axes, at)
                continue
            if of.high > of.low:
                axes.plot([at, at], [of.low, of.high], color=INK, lw=0.8, zorder=2.4)
            axes.plot(at, of.value, mark.marker, ms=5, mfc=mark.colour, mec=INK, mew=0.5, zorder=3)

    unit = max(0.42, 0.085 * len(look) + 0.12)
    title = METRICS[metric].title
    error = metric in ("mse", "mae")
    note = "one mark for each slice and method" + ("; lower is better" if error else ": the mean over genes")
    if finished.groupby("entry")["seed"].nunique().gt(1).any():
        note += "; mean over seeds, line: lowest to highest seed"
    heading = f"{title} per slice, {section.coverage}"
    drawn = known[["low", "high"]].to_numpy().ravel()
    return _slices_figure(section, draw, unit, drawn, title, heading, note, with_zero=not error)


def section_marks(section: Section) -> dict[str, Mark]:
    entries = section.entries
    pairs = list(zip(entries["method"], entries["kind"], strict=True))
    return dict(zip(entries.index, marks(pairs), strict=True))


def _offsets(section: Section, share: float) -> tuple[list[float], float]:
    """Where the entries of one slice stand around its place on x, and the step between two; controls after a small gap.

    Together they take up ``share`` of the slice's width.
    """
    is_control = (section.entries["kind"] == "control").to_numpy()
    position = np.arange(len(is_control)) + 0.7 * (is_control if not is_control.all() else 0)
    step = share / (position[-1] + 1)
    return list((position - position[-1] / 2) * step), step


def _absent(axes: Axes, at: float) -> None:
    """A small cross at the foot of the panel: this slice has no value of this method."""
    axes.plot(at, 0.03, "x", transform=axes.get_xaxis_transform(), ms=3.0, mec=FAINT, mew=0.8, zorder=3)


def _slices_figure(
    section: Section,
    draw: Callable[[Axes, float, str], None],
    unit: float,
    values: np.ndarray,
    ylabel: str,
    title: str,
    note: str,
    filled: bool = False,
    with_zero: bool = True,
) -> Figure:
    """Slices along x in rows of panels, legend on top, a line at 0.

    ``unit``: inches for each slice; ``values``: all that is drawn; ``draw(axes, x, slice)`` draws one slice;
    ``filled`` says that the legend shows boxes.
    """
    from matplotlib.figure import Figure

    capacity = max(1, int((WIDTH - 1.1) / unit))
    rows = arrange(panels(section.slices, section.patients), capacity)
    if len(rows) == 1:  # few slices: use the width that the title needs anyway
        unit = max(unit, min(0.9, (NARROWEST - MARGIN_LEFT - MARGIN_RIGHT) / len(section.slices) - PANEL_GAP / 2))
    longest = max(sum(len(panel.slices) for panel in row) * unit + PANEL_GAP * (len(row) - 1) for row in rows)
    width = max(NARROWEST, MARGIN_LEFT + longest + MARGIN_RIGHT)
    look = section_marks(section)
    labels = [str(label) for label in section.entries["label"]]
    absent = _any_absent(section, values)
    labels += [NO_VALUE] if absent else []
    columns = max(1, min(len(labels), int((width - 0.2) / (0.068 * max(map(len, labels)) + 0.42))))
    legend_rows = -(-len(labels) // columns)
    longest_name = max(len(name) for name in section.slices)
    tilt = longest_name * 0.075 > unit
    below = SLICE_NAMES + (0.05 * longest_name if tilt else 0)
    above = PATIENT_NAMES if rows[0][0].title else 0.15
    small = textwrap.wrap(note, int((width - 0.2) / 0.066))
    heading = textwrap.wrap(f"{section.title}: {title}", int((width - 0.2) / 0.105))
    legend_top = 0.1 + (TITLE_HEIGHT - 0.1) * len(heading) + LINE * len(small) + 0.06
    top = legend_top + legend_rows * LEGEND_ROW + above
    height = top + len(rows) * PANEL_HEIGHT + (len(rows) - 1) * (above + below) + below + 0.08
    figure = Figure(figsize=(width, height))
    limits = _limits(values, with_zero)
    for number_of_row, row in enumerate(rows):
        left = MARGIN_LEFT
        bottom = height - top - (number_of_row + 1) * PANEL_HEIGHT - number_of_row * (above + below)
        for place, panel in enumerate(row):
            across = len(panel.slices) * unit
            axes = figure.add_axes((left / width, bottom / height, across / width, PANEL_HEIGHT / height))
            left += across + PANEL_GAP
            axes.set_xlim(-0.5, len(panel.slices) - 0.5)
            axes.set_ylim(*limits)
            for x, name in enumerate(panel.slices):
                if x % 2 == 0:
                    axes.axvspan(x - 0.5, x + 0.5, color=BAND, lw=0, zorder=0)
                draw(axes, x, name)
            if with_zero:
                axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
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
    figure.text(0.1 / width, 1 - 0.1 / height, "\n".join(heading), va="top", fontsize=11, fontweight="bold")
    small_top = 0.1 + (TITLE_HEIGHT - 0.1) * len(heading)
    figure.text(0.1 / width, 1 - small_top / height, "\n".join(small), va="top", fontsize=8)
    _legend(figure, look, labels, columns, absent, filled, 1 - legend_top / height)
    return figure


def _any_absent(section: Section, values: np.ndarray) -> bool:
    """Whether a cross will be drawn anywhere, so that the legend must explain it."""
    wanted = len(section.slices) * len(section.entries)
    return int(np.isfinite(values).sum()) < 2 * wanted


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
            handles.append((box, Line2D([], [], ls="", marker=mark.marker, ms=3.5, mfc=PAPER, mec=INK, mew=0.5)))
        else:
            handles.append(Line2D([], [], ls="", marker=mark.marker, ms=5, mfc=mark.colour, mec=INK, mew=0.5))
    if absent:
        handles.append(Line2D([], [], ls="", marker="x", ms=4, mec=FAINT, mew=0.8))
    figure.legend(
        _by_rows(handles, columns),
        _by_rows(labels, columns),
        loc="upper left",
        bbox_to_anchor=(0.06 / figure.get_figwidth(), top),
        ncols=columns,
        fontsize=8.5,
        handlelength=1.5,
        columnspacing=1.2,
        labelspacing=0.35,
        borderaxespad=0.1,
    )


def _by_rows(items: Sequence[object], columns: int) -> list:
    """Order for matplotlib, which fills a legend column by column, so that it reads row by row."""
    return [item for column in range(columns) for item in items[column::columns]]


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all figures; both making and rendering one must happen inside."""
    import matplotlib as mpl

    with mpl.rc_context(MATPLOTLIB):  # type: ignore[arg-type]
        yield


def rendered(figure: Figure, form: str, foot: str = "") -> bytes:
    """The figure as ``svg`` (text as outlines, no date: the same figure is the same bytes), ``png`` or ``webp`` (lossy,
    for photographs on the page); below it a strip that holds the line ``foot``."""
    if not foot:
        return _saved(figure, form)
    with _laid_out(figure, form), _footed(figure, foot) as canvas:
        return _saved(figure, form, canvas)


def _saved(figure: Figure, form: str, canvas: Bbox | None = None) -> bytes:
    handle = io.BytesIO()
    figure.savefig(handle, format=form, bbox_inches=canvas, **SAVED_WITH[form])
    return handle.getvalue()


@contextmanager
def _laid_out(figure: Figure, form: str) -> Iterator[None]:
    """All stays where it is when the figure is saved without a strip, which is no room to be laid out in."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    _saved(figure, form)
    of_all = [legend for legend in figure.legends if legend.get_bbox_to_anchor() is figure.bbox]
    figure.set_layout_engine("none")
    for legend in of_all:  # anchored to all that is saved, the strip included
        legend.set_bbox_to_anchor((0, 0, 1, 1), figure.transFigure)
    try:
        yield
    finally:
        figure.set_layout_engine(engine)
        for legend in of_all:
            legend.set_bbox_to_anchor(None)


@contextmanager
def _footed(figure: Figure, foot: str) -> Iterator[Bbox]:
    """What is to be saved, in inches: the figure, and below it a strip with ``foot``."""
    from matplotlib.transforms import Bbox

    width, height = figure.get_size_inches()
    lines = textwrap.wrap(foot, int((width - 0.2) / 0.055))
    strip = 0.08 + LINE * len(lines)
    text = figure.text(0.1 / width, -0.02 / height, "\n".join(lines), va="top", fontsize=7, color=FAINT)
    try:
        yield Bbox.from_bounds(0, -strip, width, height + strip)
    finally:
        text.remove()


def has_boxes(genes: pd.DataFrame) -> bool:
    return bool(genes["r"].notna().any()) if len(genes) else False
