"""What a score costs: training time, memory and parameters of each entry beside its PCC, and who is on the front."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from ..figures import canvas
from ..figures.marks import draw_marks, section_marks
from ..figures.style import FAINT, INK, WIDTH
from ..numbers.means import board_of, eligible
from ..sections.section import Section, records
from ..tables.cells import amount_cell, number_cell, worded_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRIC = "pcc_acg"


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no trial recorded the time that it took."""
    costs = cost_table(section)
    timed = costs.dropna(subset=["fit_s"])
    if timed.empty:
        return None
    devices = sorted(set(section.rows.loc[section.rows["state"] == "finished", "device"]) - {""})
    drawable = timed[timed[METRIC].notna() & (timed["fit_s"] > 0)]
    pictures = []
    if len(drawable) > 1:
        with canvas.drawing():
            what = "PCC (ACG) against the time to train one fold; the line joins entries that nothing beats in both"
            pictures.append(picture(section, "front", what, pareto_figure(section, drawable)))
    lead = [_finding(costs), f"Times and memory were taken on {', '.join(devices) or 'a device that was not recorded'}"]
    lead[-1] += " and hold for it alone." if len(devices) < 2 else "; compare them within one device only."
    return Part("cost", "What does it cost?", lead, (_table(section, costs),), pictures, {"cost.csv": costs})


def cost_table(section: Section) -> pd.DataFrame:
    """One row per entry: medians over finished trials of ``fit_s``, ``predict_s``, ``peak_mem_mb``, and parameters.

    ``on_front``: no complete entry that is no oracle has a higher PCC (ACG) for the same or a shorter time to train.
    """
    trials = section.rows[section.rows["state"] == "finished"].drop_duplicates("key")
    costs = trials.groupby("entry")[["fit_s", "predict_s", "peak_mem_mb", "n_parameters"]].median()
    board = board_of(section)
    table = board[["label", "method", "kind", "oracle"]].join(costs)
    table[METRIC] = board[METRIC].where(eligible(board, METRIC))
    table["on_front"] = False
    fair = table[~table["oracle"]].dropna(subset=[METRIC, "fit_s"])
    for row in records(fair):
        faster = fair[fair["fit_s"] <= row.fit_s]
        table.loc[row.Index, "on_front"] = bool(row.pcc_acg >= faster[METRIC].max())
    return table.reset_index()


def _finding(costs: pd.DataFrame) -> str:
    scored = costs[costs[METRIC].notna() & ~costs["oracle"]].sort_values(METRIC, ascending=False, kind="stable")
    if len(scored) < 2:
        return "Fewer than two entries are complete, so quality and cost are not weighed against each other."
    best = scored.iloc[0]
    cheaper = scored[(scored["fit_s"] < best["fit_s"]) & (scored.index != scored.index[0])]
    first = f"{best['label']} has the highest PCC (ACG), {number(best[METRIC])}, for {duration(best['fit_s'])} a fold."
    if cheaper.empty:
        return f"{first} Nothing that trains faster comes near: nothing trains faster."
    next_best = cheaper.iloc[0]
    share = next_best[METRIC] / best[METRIC] if best[METRIC] > 0 else float("nan")
    reaches = f", {share:.0%} of it" if not math.isnan(share) else ""
    return (
        f"{first} The best of what trains faster is {next_best['label']}: {number(next_best[METRIC])}{reaches}, for "
        f"{duration(next_best['fit_s'])} a fold."
    )


def duration(seconds: float) -> str:
    """``25 ms``, ``12 s``, ``3.4 min``, ``2.1 h``; a dash where it is not known."""
    if math.isnan(seconds):
        return "–"
    if 0 < seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _table(section: Section, costs: pd.DataFrame) -> Table:
    def row(entry: pd.Series) -> tuple[Cell, ...]:
        return (
            Cell(entry["label"], entry["label"].lower(), tags=("on the front",) if entry["on_front"] else ()),
            number_cell(entry[METRIC]),
            worded_cell(duration(entry["fit_s"]), entry["fit_s"]),
            worded_cell(duration(entry["predict_s"]), entry["predict_s"]),
            amount_cell(entry["peak_mem_mb"]),
            amount_cell(entry["n_parameters"]),
        )

    blocks = [
        tuple(row(entry) for _, entry in costs[costs["kind"] == kind].iterrows()) for kind in ("method", "control")
    ]
    return Table(
        name="cost",
        caption=caption(section, "cost of one trial, median over finished trials"),
        columns=("method", "PCC (ACG)", "fit", "predict", "peak memory (MB)", "parameters"),
        blocks=tuple(blocks),
        notes=(
            "on the front: nothing that trains as fast or faster has a higher PCC (ACG). Fit and predict are of one "
            "fold; memory is the peak of the process (CPU) or of the device (GPU).",
        ),
    )


def pareto_figure(section: Section, costs: pd.DataFrame) -> Figure:
    """``costs``: rows of :func:`cost_table` with a score and a time above zero; time on a logarithmic axis."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.ticker import LogFormatter

    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    axes = figure.add_subplot()
    look = section_marks(section)
    front = costs[costs["on_front"]].sort_values("fit_s")
    axes.step(front["fit_s"], front[METRIC], where="post", color=FAINT, lw=1.2, zorder=1)
    draw_marks(axes, costs, "fit_s", METRIC, look, size=80)
    axes.set_xscale("log")
    axes.margins(x=0.06, y=0.08)
    axes.set_xlabel("time to train one fold (log scale)")
    axes.xaxis.set_major_formatter(lambda value, _: duration(value))
    between = LogFormatter(minor_thresholds=(1, 0.4))  # chooses which marks between decades are named
    axes.xaxis.set_minor_formatter(lambda value, _: duration(value) if between(value) else "")
    between.set_axis(axes.xaxis)
    between.set_locs(axes.xaxis.get_minorticklocs())
    axes.set_ylabel("PCC (ACG)")
    figure.suptitle("Quality against training time", x=0.01, ha="left")
    handles = [
        Line2D([], [], ls="", marker=mark.marker, ms=8, mfc=mark.colour, mec=INK, mew=0.6, label=str(row.label))
        for row in records(costs)
        for mark in [look[row.entry]]
    ]
    figure.legend(handles=handles, loc="outside right upper")
    return figure
