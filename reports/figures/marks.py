"""Boxes and marks over slices or sections: a dot for each, and medians that are seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from ..sections.section import Section
from .style import FAINT, INK, PAPER, Mark, marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
ACROSS = 0.88  # of a slice's width, that its entries take up together
GAP = ""  # a place without an entry, between methods and controls


def section_marks(section: Section) -> dict[str, Mark]:
    entries = section.entries
    pairs = list(zip(entries["method"], entries["kind"], strict=True))
    return dict(zip(entries.index, marks(pairs), strict=True))


def places_of(section: Section) -> list[str]:
    """The entries in the order in which they stand side by side on a slice, with a gap before the controls."""
    kinds = section.entries["kind"]
    methods, controls = (list(kinds.index[kinds == kind]) for kind in ("method", "control"))
    return [*methods, GAP, *controls] if methods and controls else [*methods, *controls]


def _offsets(section: Section) -> dict[str, float]:
    """Where each entry stands around its slice's place on x: as seaborn dodges the levels of a hue."""
    places = places_of(section)
    step = ACROSS / len(places)
    return {entry: (place - (len(places) - 1) / 2) * step for place, entry in enumerate(places) if entry != GAP}


def draw_boxes(
    axes: Axes, table: pd.DataFrame, x: str, y: str, look: Mapping[str, Mark], linewidth: float, **places: Any
) -> None:
    """Boxes over the values of each ``entry``, in its colour, without outliers and caps.

    ``places``: what seaborn is told of their order, widths and whiskers.
    """
    import seaborn as sns

    sns.boxplot(
        data=table,
        x=x,
        y=y,
        hue="entry",
        palette={entry: mark.colour for entry, mark in look.items()},
        saturation=1,
        showfliers=False,
        showcaps=False,
        linecolor=INK,
        linewidth=linewidth,
        legend=False,
        ax=axes,
        **places,
    )
    _show_medians(axes, look)


def _show_medians(axes: Axes, look: Mapping[str, Mark]) -> None:
    """Make the medians of seaborn's boxes black or white, whichever is seen on the box's colour."""
    of_colour = {_rgb(mark.colour): mark.line for mark in look.values()}
    for container in axes.containers:
        for box, median in zip(container.boxes, container.medians, strict=True):  # type: ignore[attr-defined]
            median.set(color=of_colour[_rgb(box.get_facecolor())], linewidth=1.3, solid_capstyle="butt")


def _rgb(colour: Any) -> tuple[int, ...]:
    from matplotlib.colors import to_rgb

    return tuple(round(255 * part) for part in to_rgb(colour))


def draw_marks_of(axes: Axes, section: Section, slices: Sequence[str], values: pd.Series, filled: bool) -> None:
    """The mark of each slice and entry, and a small cross at the foot of the panel where there is none.

    ``values``: indexed by slice and entry. ``filled``: the marks lie on boxes and are white.
    """
    look, offsets = section_marks(section), _offsets(section)
    known = {(str(name), str(entry)): float(values.loc[name, entry]) for name, entry in values.index}
    at = pd.DataFrame(
        [
            (entry, x + offsets[entry], known[name, entry])
            for x, name in enumerate(slices)
            for entry in look
            if (name, entry) in known
        ],
        columns=["entry", "x", "y"],
    )
    if filled:
        look = {entry: Mark(PAPER, mark.marker) for entry, mark in look.items()}
    draw_marks(axes, at, "x", "y", look, size=16 if filled else 36)
    absent = [x + offsets[entry] for x, name in enumerate(slices) for entry in look if (name, entry) not in known]
    foot = np.full(len(absent), 0.03)
    axes.plot(absent, foot, "x", transform=axes.get_xaxis_transform(), ms=4, mec=FAINT, mew=0.9, zorder=3)
    axes.set(xlabel="", ylabel="")


def draw_marks(
    axes: Axes, table: pd.DataFrame, x: str, y: str, look: Mapping[str, Mark], size: float = 60, zorder: float = 4
) -> None:
    """The mark of each row's ``entry`` at its columns ``x`` and ``y``; ``size`` in square points."""
    import seaborn as sns

    if table.empty:
        return
    sns.scatterplot(
        data=table,
        x=x,
        y=y,
        hue="entry",
        style="entry",
        palette={entry: mark.colour for entry, mark in look.items()},
        markers={entry: mark.marker for entry, mark in look.items()},
        edgecolor=INK,
        linewidth=0.7,
        s=size,
        zorder=zorder,
        legend=False,
        ax=axes,
    )
