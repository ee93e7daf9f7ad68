"""Mean ranks with what is not told apart, and who wins how often against whom."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stbench.statistics import Ranks

from .comparison import many_patients
from .figures import section_marks
from .load import Section, records
from .names import broken
from .style import BAND, FAINT, INK, Mark

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches
LABEL = 32  # characters of a line of a label
HEAD = 44  # and of a slanted one over a column, where a second line would run into the next
LOST, EVEN, WON = "#e69f00", "#f7f7f7", "#0072b2"  # orange and blue of the palette, told apart by everyone


def rank_note(ranks: Ranks) -> str:
    """What the critical difference says on this many patients, in one sentence."""
    n, difference = ranks.n_patients, ranks.critical_difference
    if not ranks.separates:
        return f"On {many_patients(n)} Nemenyi's test cannot separate any two."
    joined = "bars on the right join those not told apart" if ranks.groups else "all are told apart"
    return f"Nemenyi's critical difference on {many_patients(n)} is {difference:.2f}: {joined}."


def rank_figure(section: Section, ranks: Ranks, title: str) -> Figure:
    """One row an entry, best on top: its mean rank, each patient's rank as a small ring, bars joining equals."""
    from matplotlib.figure import Figure

    entries = [str(entry) for entry in ranks.mean.index]
    k = len(entries)
    look = section_marks(section)
    labels = _labels(section, entries)
    row = 0.36 if any("\n" in label for label in labels) else 0.27
    figure = Figure(figsize=(WIDTH, 1.35 + row * k), layout="constrained")
    axes = figure.add_subplot()
    for y, entry in enumerate(entries):
        if y % 2 == 0:
            axes.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=0)
        each = ranks.ranks[entry].to_numpy()
        axes.plot(each, np.full(len(each), y), "o", ms=3.5, mfc="none", mec=FAINT, mew=0.7, zorder=2)
        mark = look[entry]
        axes.plot(ranks.mean[entry], y, mark.marker, ms=7, mfc=mark.colour, mec=INK, mew=0.6, zorder=3)
    step = max(0.12, 0.03 * k)
    for place, group in enumerate(ranks.groups):
        x = k + 0.35 + step * (place + 1)
        first, last = entries.index(group[0]), entries.index(group[-1])
        axes.plot([x, x], [first - 0.25, last + 0.25], color=INK, lw=2.4, solid_capstyle="butt", zorder=3)
    axes.set_yticks(range(k), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_xticks(range(1, k + 1))
    axes.set_xlim(0.6, k + 0.35 + step * (len(ranks.groups) + 1))
    axes.set_ylim(k - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"rank (1: best); mark: mean over {many_patients(ranks.n_patients)}, rings: each patient")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    note = textwrap.fill(rank_note(ranks), int((WIDTH - 0.3 - 0.075 * _longest(labels)) / 0.066))
    axes.set_title(note, loc="left", fontsize=8, fontweight="normal")
    return figure


def win_figure(section: Section, wins: pd.DataFrame, order: Sequence[str], title: str) -> Figure:
    """``wins``: :func:`stbench.statistics.win_matrix`; ``order``: entries, best first.

    Each cell: the slices on which the row's entry is better than the column's, and below, smaller, the patients.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_hex
    from matplotlib.figure import Figure

    k = len(order)
    cells = {(row.entry, row.other): row for row in records(wins)}
    n_slices, n_patients = int(wins["n_slices"].max()), int(wins["n_patients"].max())
    labels = _labels(section, order)
    heads = [textwrap.shorten(str(section.entries.loc[entry, "label"]), HEAD, placeholder=" …") for entry in order]
    width = 0.47 * k + 1.0 + 0.068 * _longest(labels)
    height = 0.47 * k + 1.05 + 0.75 * 0.068 * _longest(heads)
    figure = Figure(figsize=(max(5.2, width), height), layout="constrained")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("wins", [LOST, EVEN, WON])
    for y, entry in enumerate(order):
        for x, other in enumerate(order):
            if x == y:
                axes.fill([x - 0.5, x + 0.5, x + 0.5, x - 0.5], [y - 0.5, y - 0.5, y + 0.5, y + 0.5], color=BAND, lw=0)
                continue
            cell = cells[entry, other]
            red, green, blue, _ = map(float, colours((cell.slices_won + cell.slices_tied / 2) / cell.n_slices))
            colour = to_hex((red, green, blue))
            corners = [x - 0.48, x + 0.48, x + 0.48, x - 0.48], [y - 0.48, y - 0.48, y + 0.48, y + 0.48]
            axes.fill(*corners, color=colour, lw=0)
            ink = Mark(colour, "").line
            axes.text(x, y - 0.1, f"{cell.slices_won}", ha="center", va="center", fontsize=9, color=ink)
            axes.text(x, y + 0.28, f"{cell.patients_won}", ha="center", va="center", fontsize=7, color=ink)
    axes.set_xticks(range(k), heads, rotation=40, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(range(k), labels)
    axes.tick_params(length=0)
    axes.set_xlim(-0.5, k - 0.5)
    axes.set_ylim(k - 0.5, -0.5)
    axes.set_aspect("equal")
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xlabel(
        f"wins of the row against the column:\nlarge on slices (of {n_slices}), small on patients (of {n_patients})"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


def _labels(section: Section, entries: Sequence[str]) -> list[str]:
    """In two lines where one would leave the figure no room; what does not fit in two is cut."""
    names = [str(section.entries.loc[entry, "label"]) for entry in entries]
    return [broken(name, LABEL, max_lines=2) for name in names]


def _longest(labels: Sequence[str]) -> int:
    return max(len(line) for label in labels for line in label.split("\n"))
