"""Mean ranks with what is not told apart, and who wins how often against whom."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stbench.statistics import Ranks

from ...figures.labels import broken
from ...figures.marks import draw_marks, section_marks
from ...figures.style import BAND, FAINT, INK, LETTER, PAPER, SMALL, WIDTH
from ...sections.section import Section
from ...words.significance import many_patients

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = 40  # characters of a line of a label
HEAD = 28  # and of one that is slanted over a column
LOST, EVEN, WON = "#e69f00", "#f7f7f7", "#0072b2"  # orange and blue of the palette, told apart by everyone


def rank_note(ranks: Ranks) -> str:
    """What the critical difference says on this many patients, in one sentence."""
    n, difference = ranks.n_patients, ranks.critical_difference
    if not ranks.separates:
        return f"On {many_patients(n)} Nemenyi's test cannot separate any two."
    joined = "bars on the right join those not told apart" if ranks.groups else "all are told apart"
    return f"Nemenyi's critical difference on {many_patients(n)} is {difference:.2f}: {joined}."


def rank_figure(section: Section, ranks: Ranks, title: str) -> Figure:
    """One row per entry, best on top: its mean rank, each patient's rank as a small ring, bars joining equals."""
    import seaborn as sns
    from matplotlib.figure import Figure

    entries = [str(entry) for entry in ranks.mean.index]
    k = len(entries)
    look = section_marks(section)
    labels = _labels(section, entries)
    row = 0.44 if any("\n" in label for label in labels) else 0.3
    figure = Figure(figsize=(WIDTH, 1.6 + row * k), layout="constrained")
    axes = figure.add_subplot()
    for y in range(0, k, 2):
        axes.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=0)
    each = ranks.ranks[entries].melt(var_name="entry", value_name="rank")
    rings = {"marker": "o", "facecolor": "none", "edgecolor": FAINT, "linewidth": 0.8, "s": 26}
    sns.scatterplot(data=each, x="rank", y=each["entry"].map(entries.index), legend=False, zorder=2, ax=axes, **rings)
    means = pd.DataFrame({"entry": entries, "rank": ranks.mean[entries].to_numpy(), "y": range(k)})
    draw_marks(axes, means, "rank", "y", look, size=75)
    step = max(0.12, 0.02 * k)
    for place, group in enumerate(ranks.groups):  # the bars of a critical-difference diagram, which seaborn has not
        x = k + 0.35 + step * (place + 1)
        first, last = entries.index(group[0]), entries.index(group[-1])
        axes.plot([x, x], [first - 0.25, last + 0.25], color=INK, lw=2.8, solid_capstyle="butt", zorder=3)
    axes.set_yticks(range(k), labels)
    axes.tick_params(axis="y", length=0)
    axes.set_xticks(range(1, k + 1))
    axes.set_xlim(0.6, k + 0.35 + step * (len(ranks.groups) + 1))
    axes.set_ylim(k - 0.5, -0.5)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(f"rank (1: best); mark: mean over {many_patients(ranks.n_patients)}, rings: each patient")
    axes.set_ylabel("")
    figure.suptitle(title, x=0.01, ha="left")
    note = textwrap.fill(rank_note(ranks), int((WIDTH - 0.3 - LETTER * _longest(labels)) / 0.08))
    axes.set_title(note, loc="left", fontsize=SMALL, fontweight="normal")
    return figure


def win_figure(section: Section, wins: pd.DataFrame, order: Sequence[str], title: str) -> Figure:
    """``wins``: :func:`stbench.statistics.win_matrix`; ``order``: entries, best first.

    Each cell: the slices on which the row's entry is better than the column's, and in brackets the patients.
    """
    import seaborn as sns
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    k = len(order)
    n_slices, n_patients = int(wins["n_slices"].max()), int(wins["n_patients"].max())
    labels = _labels(section, order)
    heads = [broken(str(section.entries.loc[entry, "label"]), HEAD, max_lines=2) for entry in order]
    known = wins.assign(
        share=(wins["slices_won"] + wins["slices_tied"] / 2) / wins["n_slices"],
        text=wins["slices_won"].astype(str) + " (" + wins["patients_won"].astype(str) + ")",
    )
    share, text = (
        known.pivot_table(index="entry", columns="other", values=what, aggfunc="first").reindex(
            index=list(order), columns=list(order)
        )
        for what in ("share", "text")
    )
    figure = Figure(figsize=(WIDTH, 1.3 + 0.36 * k + 0.65 * LETTER * _longest(heads)), layout="constrained")
    axes = figure.add_subplot()
    sns.heatmap(
        share,
        annot=text,
        fmt="",
        annot_kws={"fontsize": SMALL},
        cmap=LinearSegmentedColormap.from_list("wins", [LOST, EVEN, WON]),
        vmin=0,
        vmax=1,
        linewidths=1.5,
        linecolor=PAPER,
        cbar=False,
        ax=axes,
    )
    axes.set_facecolor(BAND)  # of the diagonal
    axes.set_xticks(np.arange(k) + 0.5, heads, rotation=35, ha="left", rotation_mode="anchor")
    axes.xaxis.tick_top()
    axes.set_yticks(np.arange(k) + 0.5, labels, rotation=0)
    axes.tick_params(length=0)
    axes.set_ylabel("")
    axes.set_xlabel(
        f"wins of the row against the column on slices (of {n_slices}), in brackets on patients (of {n_patients})"
    )
    figure.suptitle(title, x=0.01, ha="left")
    return figure


def _labels(section: Section, entries: Sequence[str]) -> list[str]:
    """In two lines where one would leave the figure no room; what does not fit in two is cut."""
    names = [str(section.entries.loc[entry, "label"]) for entry in entries]
    return [broken(name, NAME, max_lines=2) for name in names]


def _longest(labels: Sequence[str]) -> int:
    return max(len(line) for label in labels for line in label.split("\n"))
