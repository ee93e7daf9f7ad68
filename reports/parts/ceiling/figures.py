"""Figures of the way from a control to the ceiling, by slice and by gene."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from ...figures.marks import draw_marks, section_marks
from ...figures.style import BAND, FAINT, INK, SMALL, TEXT, WIDTH, Mark
from ...sections.labels import entry_label
from ...sections.section import Section, records
from ...words.format import percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
from .numbers import METRIC_NAMES

TITLES = {"strict_pcc_acg": "PCC (ACG)", "strict_pcc_heg": "PCC (HEG)", "mse": "MSE"}

NAMED_GENES = 4  # best predicted ones, and as many that are furthest from their ceiling
GENE_LINE = 0.05  # of r: the height of a name
LOWEST_SHOWN = -0.5  # of the way; what lies below stands at the edge, with its number


def way_figure(section: Section, framed: pd.DataFrame) -> Figure:
    """One panel per metric, one row per entry: how far it has come from the training mean, 0, to the ceiling, 1."""
    from matplotlib.figure import Figure

    drawn = [metric for metric in METRIC_NAMES if framed.loc[framed["metric"] == metric, "fraction"].notna().any()]
    entries = list(section.entries.index)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.27 * len(entries)), layout="constrained")
    figure.suptitle(f"{section.title}, {section.coverage}", x=0.01, ha="left")
    all_axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axes, metric in zip(all_axes, drawn, strict=True):
        _draw_way(axes, section, framed[framed["metric"] == metric].set_index("entry"))
        axes.set_title(TITLES[metric], loc="left")
    all_axes[0].set_yticks(range(len(entries)), [entry_label(section, entry) for entry in entries])
    all_axes[0].set_ylim(len(entries) - 0.4, -0.6)
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(wspace=0.06)  # type: ignore[call-arg]  # room between the last tick of a panel and the first of the next
    figure.supxlabel("of the way from the training mean to the noise ceiling", fontsize=TEXT)
    return figure


def _draw_way(axes: Axes, section: Section, way: pd.DataFrame) -> None:
    axes.axvspan(0, 1, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=FAINT, lw=0.8, zorder=1)
    axes.axvline(1, color=INK, lw=1.0, zorder=1)
    table = way.reindex(section.entries.index).rename_axis("entry").reset_index()
    table = table.assign(place=range(len(table)), at=table["fraction"].clip(lower=LOWEST_SHOWN))
    known = table.dropna(subset="fraction")
    axes.hlines(known["place"], 0, known["at"], color=FAINT, lw=1.2, zorder=2)
    beyond = known["fraction"] < LOWEST_SHOWN
    look = section_marks(section)
    draw_marks(axes, known[~beyond], "at", "place", look, size=50, zorder=3)
    draw_marks(
        axes, known[beyond], "at", "place", {entry: Mark(mark.colour, "<") for entry, mark in look.items()}, 50, 3
    )
    for row in records(known):
        axes.annotate(
            percent(row.fraction),
            (max(row.at, 0.0), row.place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    for row in records(table[table["fraction"].isna()]):
        axes.text(0.02, row.place, "no value", va="center", fontsize=SMALL, color=FAINT)
    axes.set(xlabel="", ylabel="")
    lowest = way["fraction"].clip(lower=LOWEST_SHOWN).min()
    low, high = min(-0.06, lowest - 0.08), max(1.06, way["fraction"].max() + 0.3)
    axes.set_xlim(low, high)
    ticks = [0, 0.5, 1] if high - low < 1.3 else [0, 1]  # where the range is wide, three would touch
    axes.set_xticks(ticks, [percent(tick) for tick in ticks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def gene_figure(section: Section, per_gene: pd.DataFrame, entry: str) -> Figure:
    """A dot per gene: its ceiling along x, the entry's r along y; on the diagonal nothing would be left to gain."""
    import seaborn as sns
    from matplotlib.figure import Figure

    genes = per_gene[per_gene["entry"] == entry]
    mark = section_marks(section)[entry]
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, lw=0.9, zorder=1)
    axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
    dots = {"color": mark.colour, "edgecolor": INK, "linewidth": 0.3, "s": 26, "alpha": 0.75, "zorder": 2}
    sns.scatterplot(data=genes, x="ceiling_r", y="r", legend=False, ax=axes, **dots)
    axes.set_xlim(-0.02, 1.02)
    axes.annotate("ceiling", (0.93, 0.93), xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=SMALL)
    lowest, highest = _name_genes(axes, genes)
    axes.set_ylim(min(0.0, lowest, float(genes["r"].min())) - 0.05, max(1.02, highest + 0.03))
    axes.set_xlabel("noise ceiling of the gene (r)")
    axes.set_ylabel(f"r under {entry_label(section, entry)}")
    n = genes["n_slices"].max()
    figure.suptitle(
        f"{section.title}: {len(genes)} genes, mean over {n} slice{'s' if n != 1 else ''}", x=0.01, ha="left"
    )
    return figure


def _name_genes(axes: Axes, genes: pd.DataFrame) -> tuple[float, float]:
    """The best predicted genes are named above the diagonal, those with most left to gain at the right edge.

    Returns the heights of the lowest and the highest name.
    """
    best = genes.nlargest(NAMED_GENES, "r")
    gap = genes.assign(gap=genes["ceiling_r"] - genes["r"]).nlargest(NAMED_GENES, "gap")
    gap = gap[~gap["gene"].isin(best["gene"])]
    best = best.sort_values("r")
    above = [-height for height in _apart([-float(r) for r in best["r"]], GENE_LINE)]
    for row, y in zip(records(best), above, strict=True):
        _name_gene(axes, row, (y - 0.06, y), "right")
    gap = gap.sort_values("r", ascending=False)
    at_edge = _apart([float(r) for r in gap["r"]], GENE_LINE)
    for row, y in zip(records(gap), at_edge, strict=True):
        _name_gene(axes, row, (1.04, y), "left")
    return min([*above, *at_edge]), max([*above, *at_edge])


def _apart(heights: Sequence[float], line: float) -> list[float]:
    """Falling ``heights`` moved down where they would stand closer than ``line``."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - line) if placed else height)
    return placed


def _name_gene(axes: Axes, row: Any, place: tuple[float, float], side: Literal["left", "right"]) -> None:
    axes.annotate(
        row.gene,
        (row.ceiling_r, row.r),
        xytext=place,
        ha=side,
        va="center",
        fontsize=SMALL,
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 1, "shrinkB": 2},
        zorder=4,
    )
