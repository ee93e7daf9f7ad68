"""Regions on tissue (Figure S3 of the paper): their labels beside clusters of measured and predicted expression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ...figures.labels import broken
from ...figures.style import FAINT, FURTHER, HEADING, LETTER, PUBLISHED, SMALL, TEXT, WIDTH
from ...figures.tissue import Background, draw_spots
from ...sections.labels import entry_label
from ...sections.section import Section
from ...words.format import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, completed by its yellow, then Tol's: told apart under all common colour deficiencies
COLOURS = (*PUBLISHED.values(), "#f0e442", *FURTHER)
GAP, ABOVE = 0.1, 0.26  # inches between two maps, and of the numbers above one
LEFT, TOP = 0.34, 1.0
LARGEST = 3.2  # side of one map
LEGEND_ROW = 0.24
BLEACHED = 0.5  # the tissue is shown pale and grey: the labels' colours must not mix with its own


def colours_of(labels: pd.Series) -> dict[str, str]:
    """A colour for each label, the most frequent first; with more than 13 labels colours occur again."""
    names = [str(name) for name in labels.value_counts(sort=True).index]
    return {name: COLOURS[place % len(COLOURS)] for place, name in enumerate(names)}


def matched(clusters: np.ndarray, labels: np.ndarray) -> dict[int, str]:
    """Each cluster's label: the one-to-one assignment under which most spots have their own label.

    A cluster beyond the number of labels has none.
    """
    from scipy.optimize import linear_sum_assignment

    together = pd.crosstab(clusters, labels)
    rows, columns = linear_sum_assignment(together.to_numpy(), maximize=True)
    return {int(together.index[row]): str(together.columns[column]) for row, column in zip(rows, columns, strict=True)}


def domains_figure(
    section: Section,
    spots: pd.DataFrame,
    scores: pd.DataFrame,
    slices: Sequence[str],
    entries: Sequence[str],
    tissue: Mapping[str, Background],
) -> Figure:
    """Rows are ``slices``; columns the labels, the clusters of measured values, and those of each entry's predictions.

    ``spots``: entry, slice, x, y, label, cluster_truth, cluster_prediction. ``scores``: indexed by (column, slice),
    where column is ``observed`` or an entry; ``ari`` and ``nmi`` of the clusters that are drawn. A cluster has the
    colour of the label that it is matched with.
    """
    from matplotlib.figure import Figure

    colour = colours_of(spots.drop_duplicates(["slice", "spot"])["label"])
    heads = ["labels", "observed", *(entry_label(section, entry) for entry in entries)]
    width = WIDTH
    side = min(LARGEST, (width - LEFT - 0.05) / len(heads) - GAP)
    per_row = max(1, int((width - 0.3) / (0.4 + LETTER * max(map(len, colour)))))
    below = 0.15 + LEGEND_ROW * -(-len(colour) // per_row)
    height = TOP + len(slices) * (side + ABOVE) + below
    figure = Figure(figsize=(width, height))
    figure.text(0.1 / width, 1 - 0.08 / height, "Regions on tissue", va="top", fontsize=HEADING, fontweight="bold")
    for column, head in enumerate(heads):
        x = (LEFT + column * (side + GAP) + side / 2) / width
        figure.text(
            *(x, 1 - (TOP - ABOVE + 0.14) / height, broken(head, int(side / LETTER))),
            ha="center",
            va="bottom",
            fontweight="bold",
            fontsize=SMALL,
        )
    for row, name in enumerate(slices):
        of_slice = spots[spots["slice"] == name]
        bottom = 1 - (TOP + (row + 1) * (side + ABOVE)) / height
        middle = bottom + side / 2 / height
        figure.text(0.15 / width, middle, name, rotation=90, ha="center", va="center", fontsize=TEXT)
        for column, what in enumerate(["labels", "observed", *entries]):
            left = (LEFT + column * (side + GAP)) / width
            axes = figure.add_axes((left, bottom, side / width, side / height))
            axes.set_label(f"{name}, {what}")
            drawn = of_slice[of_slice["entry"] == (what if what in entries else of_slice["entry"].iloc[0])]
            if drawn.empty:
                axes.text(0.5, 0.5, "no prediction", transform=axes.transAxes, ha="center", va="center", color=FAINT)
                axes.set_axis_off()
                continue
            _map(axes, drawn, what, colour, tissue.get(name))
            if column:
                ari, nmi = scores[["ari", "nmi"]].xs((what, name)).to_numpy(dtype=float)
                axes.set_title(
                    f"ARI {number(float(ari), 2)} NMI {number(float(nmi), 2)}",
                    fontsize=SMALL,
                    pad=3,
                    fontweight="normal",
                )
    _legend(figure, colour, per_row)
    return figure


def _map(axes: Axes, spots: pd.DataFrame, what: str, colour: Mapping[str, str], background: Background | None) -> None:
    from matplotlib.colors import Normalize

    labels = spots["label"].to_numpy(dtype=object)
    shown = labels
    if what != "labels":
        clusters = spots["cluster_truth" if what == "observed" else "cluster_prediction"].to_numpy()
        label_of = matched(clusters, labels)
        shown = np.array([label_of.get(int(cluster), "") for cluster in clusters], dtype=object)
    xy = spots[["x", "y"]].to_numpy()
    circles = draw_spots(axes, xy, np.zeros(len(xy)), "viridis", Normalize(0, 1), background, fade=BLEACHED, grey=True)
    circles.set_array(None)  # colours are named one by one
    circles.set_facecolor([colour.get(label, FAINT) for label in shown])


def _legend(figure: Figure, colour: Mapping[str, str], columns: int) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], ls="", marker="o", ms=8, mfc=shade, mec="none") for shade in colour.values()]
    figure.legend(
        handles,
        list(colour),
        loc="lower left",
        ncols=min(columns, len(colour)),
        bbox_to_anchor=(0, 0),
        handlelength=1,
        columnspacing=1.0,
        handletextpad=0.3,
        labelspacing=0.35,
    )
