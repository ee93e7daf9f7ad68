"""The style of all figures, and their files."""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from .style import FAINT, LINE, SMALL, theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox
from .slices import MISSING_GLYPH, log

SAVED_WITH: Mapping[str, Mapping[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "png": {"dpi": 200, "metadata": {"Software": None}},
    "webp": {"dpi": 110, "pil_kwargs": {"quality": 80, "method": 4}},
}


@contextmanager
def drawing() -> Iterator[None]:
    """The style of all figures; both making and rendering one must happen inside."""
    import matplotlib as mpl

    with mpl.rc_context(theme()), warnings.catch_warnings(record=True) as caught:  # type: ignore[arg-type]
        warnings.simplefilter("always")
        yield
    boxes_for = []
    for warning in caught:
        missing = MISSING_GLYPH.match(str(warning.message))
        if missing is None:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
        else:
            boxes_for.append(chr(int(missing.group(1))))
    if boxes_for:
        _say_boxes("".join(dict.fromkeys(boxes_for)))


@cache
def _say_boxes(letters: str) -> None:
    log.warning(
        "note: the figures' font lacks %s and draws boxes for it; tables and the page have the letters", letters
    )


def rendered(figure: Figure, forms: Sequence[str], foot: str = "") -> dict[str, bytes]:
    """The figure in each of ``forms``: ``svg`` (text as outlines, no date: the same figure is the same bytes), ``png``
    or ``webp`` (lossy, for photographs on the page); below it a strip that holds the line ``foot``."""
    if not foot:
        return {form: _saved(figure, form) for form in forms}
    with _laid_out(figure), _footed(figure, foot) as canvas:
        return {form: _saved(figure, form, canvas) for form in forms}


def _saved(figure: Figure, form: str, canvas: Bbox | None = None) -> bytes:
    handle = io.BytesIO()
    figure.savefig(handle, format=form, bbox_inches=canvas, **SAVED_WITH[form])
    return handle.getvalue()


@contextmanager
def _laid_out(figure: Figure) -> Iterator[None]:
    """All stays where it is when the figure is saved without a strip, which is no room to be laid out in."""
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    own, figure.dpi = figure.dpi, SAVED_WITH["png"]["dpi"]
    figure.draw_without_rendering()
    figure.dpi = own
    of_all = [legend for legend in figure.legends if legend.get_bbox_to_anchor() is figure.bbox]
    figure.set_layout_engine(None)  # "none" keeps a stand-in, for which every saving would draw all once more
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
    lines = textwrap.wrap(foot, int((width - 0.2) / 0.08))
    strip = 0.08 + LINE * len(lines)
    text = figure.text(0.1 / width, -0.02 / height, "\n".join(lines), va="top", fontsize=SMALL, color=FAINT)
    try:
        yield Bbox.from_bounds(0, -strip, width, height + strip)
    finally:
        text.remove()
