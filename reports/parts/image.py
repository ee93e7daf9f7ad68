"""What the image contributes: every score as it is, and with the slide's patches exchanged between its spots."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..figures import canvas
from ..figures.marks import draw_marks, section_marks
from ..figures.style import BAND, FAINT, INK, PAPER, WIDTH, Mark
from ..numbers.means import board_of, exchange_table, over_exchanged_slices, with_exchanged
from ..numbers.significance import in_order
from ..sections.section import Section, records
from ..tables.cells import DASH, number_cell
from ..tables.main import not_asked
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.headline import HEADLINE_METRIC
from ..words.protocol import INCOMPLETE, caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "What does the image contribute?"
HARDLY = 0.1  # of its spread: who moves by less than this hardly looks at the spot's patch
OWN_PATCH = math.sqrt(2)  # how far a prediction from the spot's own patch alone moves: as two spots lie apart
BLIND = ("depth_oracle", "position_knn")  # controls without an image, to read the others against


def part(section: Section, context: Context) -> Part | None:
    """``None`` where nothing finished; a part that says so where no trial was asked with exchanged patches."""
    board = board_of(section)
    if not board["n_slices"].any():
        return None
    board = with_exchanged(board, section.rows)
    by_slice = exchange_table(section.rows)
    if by_slice.empty:
        return Part("image", QUESTION, not_asked(section, board))
    about = board[["label", "method", "kind", "oracle", "complete", "n_slices", "of_slices"]]
    table = about.join(over_exchanged_slices(by_slice, board.index))
    table["from_image"] = table["pcc_acg"] - table["exchanged_pcc_acg"]
    with canvas.drawing():
        what = (
            "PCC (ACG) as it is (filled) and with the patches exchanged (hollow), and how far the prediction moves; "
            "broken lines: what the depth oracle and the position alone reach"
        )
        drawn = picture(section, "contribution", what, image_figure(section, table))
    lead = [*_lead(table, board), *not_asked(section, board)]
    frames = {"entries.csv": table.reset_index(), "slices.csv": by_slice}
    return Part("image", QUESTION, lead, (_table(section, table),), (drawn,), frames)


def _lead(table: pd.DataFrame, board: pd.DataFrame) -> list[str]:
    order = in_order(board, HEADLINE_METRIC)
    asked = table.loc[order.index].dropna(subset="from_image")
    methods = asked[asked["kind"] == "method"]
    first = methods if len(methods) else asked
    lead = []
    if len(first):
        lead.append(_finding(first.iloc[0], "the best method" if len(methods) else "the best control"))
    else:
        lead.append("No complete entry has a PCC (ACG) on every slice, so none is called best here.")
    if len(methods) > 1:
        most = methods.iloc[int(methods["from_image"].argmax())]
        if most["from_image"] > 0 and most.name != methods.index[0]:
            lead.append(f"The image contributes most to {most['label']}: {number(most['from_image'])} of its PCC.")
    still = table[(table["kind"] == "method") & (table["exchanged_move"] < HARDLY)]
    if len(still):
        moves = zip(still["label"], still["exchanged_move"], strict=True)
        who = ", ".join(f"{label} ({_share(move)})" for label, move in moves)
        lead.append(
            f"Hardly moved by the exchange, in shares of the prediction's own spread over the slice: {who}. Nearly all "
            "that such a prediction says of a spot follows from something else than its patch, as from its position."
        )
    lead.append(
        "Every spot of a test slice was given the patch of another spot of the slice, drawn at random and the same for "
        "all methods, and predicted once more. What a score keeps is owed to positions, which stay; what it loses is "
        "owed to the image. A prediction from the spot's own patch alone moves by about 1.41 of its spread, as far as "
        "any two spots lie apart, and keeps a PCC of about 0."
    )
    return lead


def _share(move: float) -> str:
    return f"{move:.1%}" if move >= 0.001 else "below 0.1%" if move > 0 else "not at all"


def _finding(best: pd.Series, role: str) -> str:
    as_is, kept, from_image = best["pcc_acg"], best["exchanged_pcc_acg"], best["from_image"]
    text = (
        f"With patches exchanged between the spots of a slice, {best['label']}, {role}, has a PCC (ACG) of "
        f"{number(kept)} instead of {number(as_is)}"
    )
    if from_image <= 0 or as_is <= 0:
        return f"{text}: its score owes nothing to the image of the spot."
    if kept <= 0:
        return f"{text}: all of its score is owed to the image of the spot."
    return f"{text}: {from_image / as_is:.0%} of its score is owed to the image of the spot."


def _table(section: Section, table: pd.DataFrame) -> Table:
    def value(entry: pd.Series, name: str, digits: int = 4) -> Cell:
        return number_cell(entry[name], digits, "undefined") if entry["exchanged_slices"] else Cell(DASH)

    def row(entry: pd.Series) -> tuple[Cell, ...]:
        mark = "" if entry["complete"] else f" {INCOMPLETE}"
        slices = Cell(f"{int(entry['exchanged_slices'])}/{entry['of_slices']}{mark}", float(entry["exchanged_slices"]))
        scores = ("pcc_acg", "exchanged_pcc_acg", "from_image", "strict_pcc_acg", "exchanged_strict_pcc_acg")
        return (
            Cell(entry["label"], entry["label"].lower()),
            slices,
            *(value(entry, name) for name in scores),
            value(entry, "exchanged_move", 3),
        )

    blocks = [
        tuple(row(entry) for _, entry in table[table["kind"] == kind].iterrows()) for kind in ("method", "control")
    ]
    notes = [
        "Means over seeds, then over the slices whose patches were exchanged and on which both numbers of a pair are "
        "defined. Difference: the PCC (ACG) that goes with the image.",
        "Moves by: root mean square change of the prediction over spots and genes, as a share of its standard "
        "deviation over the spots (root mean square over genes). 0: the image is not used.",
        "undefined: a constant prediction has no correlation and no spread to move by.",
    ]
    if not table["complete"].all():
        notes.append(f"{INCOMPLETE} not every slice and seed has finished: the mean is over fewer slices.")
    return Table(
        name="image",
        caption=caption(section, "scores as they are and with patches exchanged between the spots of a slice"),
        columns=("method", "slices", "as it is", "exchanged", "difference", "as it is", "exchanged", "moves by"),
        blocks=tuple(blocks),
        groups=(("", 2), ("PCC (ACG), paper pack", 3), ("PCC (ACG), strict pack", 2), ("prediction", 1)),
        notes=tuple(notes),
    )


def image_figure(section: Section, table: pd.DataFrame) -> Figure:
    """Two panels, a row per entry of ``table``: PCC (ACG) as it is and with exchanged patches; how far it moves.

    ``table``: label, method, pcc_acg, exchanged_pcc_acg, exchanged_move and exchanged_slices by entry, in the table's
    order. Entries that were not asked are left out; a cross stands for an undefined value.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    asked = table[table["exchanged_slices"] > 0].rename_axis("entry").reset_index()
    asked = asked.assign(place=range(len(asked)))
    look = section_marks(section)
    hollow = {entry: Mark(PAPER, mark.marker) for entry, mark in look.items()}
    figure = Figure(figsize=(WIDTH, 1.7 + 0.32 * len(asked)), layout="constrained")
    score, move = figure.subplots(1, 2, sharey=True, width_ratios=(1.7, 1))
    for row in records(asked):
        if row.method in BLIND and not math.isnan(row.pcc_acg):
            score.plot([row.pcc_acg] * 2, [-0.5, row.place], color=FAINT, lw=0.8, ls=(0, (4, 3)), zorder=1.5)
    scored, moved = asked.dropna(subset="from_image"), asked.dropna(subset="exchanged_move")
    score.hlines(scored["place"], scored["exchanged_pcc_acg"], scored["pcc_acg"], color=INK, lw=1.2, zorder=2)
    draw_marks(score, scored, "pcc_acg", "place", look, zorder=3)
    draw_marks(score, scored, "exchanged_pcc_acg", "place", hollow, size=34, zorder=3.1)
    move.hlines(moved["place"], 0, moved["exchanged_move"], color=INK, lw=1.2, zorder=2)
    draw_marks(move, moved, "exchanged_move", "place", look, zorder=3)
    for axes, known in ((score, scored), (move, moved)):
        for place in sorted(set(asked["place"]) - set(known["place"])):
            axes.plot(0.02, place, "x", transform=axes.get_yaxis_transform(), ms=5, mec=FAINT, mew=0.9)
        axes.set_ylabel("")
    score.axvline(0, color=FAINT, lw=0.8, zorder=1)
    move.axvline(OWN_PATCH, color=INK, lw=1, zorder=1.5)
    for axes in (score, move):
        for y in range(0, len(asked), 2):
            axes.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=0)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.margins(x=0.06)
    move.set_xlim(-0.05, max(1.6, 1.08 * move.dataLim.x1))
    score.set_yticks(range(len(asked)), [str(label) for label in asked["label"]])
    score.set_ylim(len(asked) - 0.5, -0.5)
    score.set_xlabel("PCC (ACG), mean over slices")
    move.set_xlabel("moves by (share of its spread);\nline: the spot's own patch alone")
    shown: dict[str, Any] = {"marker": "o", "ls": "", "mec": INK, "mew": 0.6}
    handles = [
        Line2D([], [], ms=8, mfc=FAINT, label="as it is", **shown),
        Line2D([], [], ms=6, mfc=PAPER, label="patches exchanged", **shown),
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=2)
    figure.suptitle("What the image contributes", x=0.01, ha="left")
    return figure
