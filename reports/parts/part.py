"""A part of the report: one question, answered in words first, then by tables and figures, with its numbers beside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from ..tables.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..sections.section import Section


@dataclass(frozen=True)
class Picture:
    """``forms``: file suffix to the file's bytes; one of them is ``svg``, or for pictures of tissue ``webp``."""

    name: str
    caption: str
    forms: Mapping[str, bytes]


@dataclass(frozen=True)
class Part:
    """What one module of ``reports/parts`` says about a section.

    ``lead``: sentences in plain words, the finding first; also what is missing, and why. ``frames``: tidy numbers that
    are written beside the page, a name (``sharpness.csv``, ``per-gene.parquet``) to a table.
    """

    name: str  # of its files, and its anchor: sharpness
    title: str  # as its heading: Are the predictions as sharp as the truth?
    lead: Sequence[str]
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    frames: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """What a part may look at beside its own section: all sections of the report, and what the reader asked for.

    ``compare_paper``: whether printed numbers stand beside; ``genes``: those to draw instead of the best predicted.
    """

    sections: Sequence[Section]
    compare_paper: bool = False
    genes: Sequence[str] = ()


def picture(section: Section, name: str, what: str, figure: Figure, tissue: bool = False) -> Picture:
    """A drawn figure as files, with the section's protocol at its foot, so that no figure is taken for another's.

    ``tissue``: it holds photographs, so the page gets it as an image (webp), not as SVG. Call it inside
    ``figures.drawing()``.
    """
    from ..figures.canvas import rendered
    from ..words.protocol import caption, protocol

    forms = ("webp", "png") if tissue else ("svg", "png")
    return Picture(name, caption(section, what), rendered(figure, forms, protocol(section)))
