"""Colours and marks of figures, safe for colour-blind readers: one for each published method, greys for controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..published.methods import ORDER

# Okabe and Ito's palette (2008), told apart under all common colour deficiencies
OKABE_ITO = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#0072b2", "#d55e00")
PUBLISHED = dict(zip(ORDER, OKABE_ITO, strict=True))
FURTHER = ("#882255", "#44aa99", "#999933", "#aa4499", "#6699cc", "#117733")  # Tol's muted set, for methods of others
GREYS = ("#e3e5e8", "#c3c7cc", "#a3a8ae", "#848a91", "#676d74", "#4c5157", "#34383d")
REPEATS = ((0.0, "o"), (0.45, "D"), (0.7, "s"), (0.7, "^"))  # of a method's first, second, ... row: lighter, and shape
CONTROL_MARKERS = ("s", "^", "D", "v", "P", "X", "*", "p")  # greys alone cannot be told apart: shape helps

# The page replaces these by variables of its own, so that figures follow light and dark; nothing else may use them.
INK = "#1f2329"
FAINT = "#8b9199"
BAND = "#f1f3f5"
PAPER = "#ffffff"
PAGE_VARIABLES = {INK: "var(--ink)", FAINT: "var(--faint)", BAND: "var(--band)", PAPER: "var(--paper)"}

# Every figure is as wide as the page shows it on a screen of 1280 pixels (12.3 inches of 96 pixels): a point is 4/3
# pixels there, and the smallest text is as large as the page's captions.
WIDTH = 12.3
SMALL, TEXT, TITLE, HEADING = 10.2, 10.5, 11.0, 13.0  # points
LETTER = 0.085  # inches, about the width of one at TEXT
LINE = 0.19  # inches, the height of a line of SMALL

# What differs from seaborn's own style
_OURS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same letters on every machine
    "font.size": TEXT,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.labelsize": TEXT,
    "axes.titlesize": TITLE,
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "figure.titlesize": HEADING,
    "figure.titleweight": "bold",
    "legend.fontsize": SMALL,
    "legend.title_fontsize": SMALL,
    "legend.frameon": False,
    "lines.markeredgewidth": 0.7,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a title, gene or slice is a dollar
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "svg.fonttype": "path",  # letters as outlines: looks the same wherever it is opened
    "svg.hashsalt": "stbench",  # the same figure is the same file
}


def theme() -> dict[str, Any]:
    """Matplotlib's parameters under which every figure is drawn: seaborn's ``ticks`` style with the page's colours."""
    import seaborn as sns

    return {**sns.axes_style("ticks"), **_OURS}


@dataclass(frozen=True)
class Mark:
    colour: str
    marker: str

    @property
    def line(self) -> str:
        """Black or white, whichever is seen better on the mark's colour; the same in light and dark."""
        red, green, blue = _parts(self.colour)
        return "#0d0d0d" if 0.299 * red + 0.587 * green + 0.114 * blue > 110 else "#fdfdfd"


def marks(methods: Sequence[tuple[str, str]]) -> list[Mark]:
    """A colour and a marker for each (method name, kind), in order.

    A published method has its colour in every figure of every report. A second row of the same method (another preset,
    say) is a lighter shade with a diamond, a third one lighter still with a square.
    """
    out: list[Mark] = []
    seen: dict[str, int] = {}
    n_controls = n_further = 0
    for name, kind in methods:
        repeat = seen.get(name, 0)
        seen[name] = repeat + 1
        if kind == "control":
            out.append(Mark(GREYS[n_controls % len(GREYS)], CONTROL_MARKERS[n_controls % len(CONTROL_MARKERS)]))
            n_controls += 1
            continue
        colour = PUBLISHED.get(name)
        if colour is None:
            if not repeat:
                n_further += 1
            colour = next(
                (mark.colour for mark, (method, _) in zip(out, methods, strict=False) if method == name), None
            )
            colour = colour or FURTHER[(n_further - 1) % len(FURTHER)]
        share, marker = REPEATS[min(repeat, len(REPEATS) - 1)]
        out.append(Mark(_lighter(colour, share), marker))
    return out


def _lighter(colour: str, share: float) -> str:
    return "#" + "".join(f"{round(part + (255 - part) * share):02x}" for part in _parts(colour))


def _parts(colour: str) -> list[int]:
    return [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
