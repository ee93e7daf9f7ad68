"""Whether predictions are as sharp as the tissue: their spread, smoothness and local structure beside the truth's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..figures import canvas
from ..figures.marks import draw_boxes, draw_marks, section_marks
from ..figures.style import BAND, FAINT, INK, PAPER, SMALL, WIDTH, Mark
from ..numbers.means import board_of
from ..numbers.significance import in_order
from ..sections.section import Section
from ..tables.cells import number_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.headline import HEADLINE_METRIC
from ..words.protocol import INCOMPLETE, caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUESTION = "Are the predictions as sharp as the tissue?"
MEASURES = ("sd_ratio", "moran_prediction", "moran_truth", "spearman", "ssim")
TRUTH = "measured expression"
NARROW = 0.01  # of either axis: a box of less cannot be seen
LITTLE = 0.02  # below this Moran's I of the truth is hardly there, and nothing is divided by it


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no trial has a per-gene table; a part that says so where the tables lack these columns."""
    if section.genes.empty:
        return None
    if not {"sd_prediction", "ssim"} <= set(section.genes.columns):
        return Part(
            "sharpness",
            QUESTION,
            ["These trials were scored by a version that did not measure sharpness: run them again to have it."],
        )
    genes = measures(section.genes)
    by_slice = over_genes(genes)
    by_gene = genes.groupby(["entry", "gene"], observed=True, sort=False)[list(MEASURES)].mean().reset_index()
    # the truth is the same for every entry; one that misses a slice must not stand for it
    truth = genes.drop_duplicates(["slice", "gene"]).groupby("gene", observed=True)["moran_truth"].mean()
    level = float(by_slice.drop_duplicates("slice")["moran_truth"].mean())
    board = board_of(section)
    table = over_slices(by_slice, board)
    with canvas.drawing():
        what = (
            "spread and smoothness of the predictions. Box: quartiles and median over genes (each its mean over "
            "slices), line: 5th to 95th percentile, mark: all genes have nearly one value, cross: undefined, the "
            "prediction is constant"
        )
        drawn = picture(section, "spread", what, sharpness_figure(section, by_gene, truth))
    frames = {"slices.csv": by_slice, "genes.parquet": by_gene}
    return Part("sharpness", QUESTION, _lead(table, board), (_table(section, table, level),), (drawn,), frames)


def measures(genes: pd.DataFrame) -> pd.DataFrame:
    """``genes`` of a section with its MEASURES; genes that are constant in truth are left out.

    ``sd_ratio`` is the prediction's standard deviation over the truth's.
    """
    varied = genes[genes["ssim"].notna()]
    table = varied[["entry", "slice", "seed", "gene", *MEASURES[1:]]].assign(
        sd_ratio=varied["sd_prediction"] / varied["sd_truth"]
    )
    return table.astype({name: "category" for name in ("entry", "slice", "seed", "gene")})


def over_genes(genes: pd.DataFrame) -> pd.DataFrame:
    """One row per entry and slice: each measure's median over the genes that have it, mean over seeds."""
    medians = genes.groupby(["entry", "slice", "seed"], observed=True, sort=False)[list(MEASURES)].median()
    return medians.groupby(level=["entry", "slice"], observed=True, sort=False).mean().reset_index()


def over_slices(by_slice: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """One row per entry of ``board``, in its order: each measure's mean over slices, and ``moran_ratio``.

    ``moran_ratio``: the mean Moran's I of the predictions over that of the truth on the same slices; undefined where
    the truth's is hardly above zero.
    """
    means = by_slice.groupby("entry", observed=True)[list(MEASURES)].mean()
    table = board[["label", "kind", "oracle", "complete", "n_slices", "of_slices"]].join(means)
    enough = table["moran_truth"].where(table["moran_truth"] > LITTLE)
    return table.assign(moran_ratio=table["moran_prediction"] / enough)


def _lead(table: pd.DataFrame, board: pd.DataFrame) -> list[str]:
    order = in_order(board, HEADLINE_METRIC)
    methods = order[order["kind"] == "method"]
    first = methods if len(methods) else order
    lead = []
    if len(first):
        best = table.loc[first.index[0]]
        lead.append(_finding(best, "best method" if len(methods) else "best control"))
    else:
        lead.append("No entry is complete with a PCC (ACG) on every slice, so none is called best here.")
    lead.append(
        "That is not all a fault of the prediction. A measured value carries sampling noise of its own spot, which no "
        "prediction can know, and the least squared error is reached by a prediction whose standard deviation is r "
        "times the truth's. But a map drawn from such a prediction shows less contrast, and softer edges, than there "
        "are."
    )
    return lead


def _finding(best: pd.Series, role: str) -> str:
    ratio, of_prediction, of_truth = best["sd_ratio"], best["moran_prediction"], best["moran_truth"]
    how = "flatter than" if ratio < 0.9 else "about as varied as" if ratio <= 1.1 else "more varied than"
    text = (
        f"Predictions of {best['label']}, the {role}, have {ratio:.0%} of the truth's standard deviation over a slice "
        f"(median gene): they are {how} the tissue"
    )
    if math.isnan(of_prediction):
        return f"{text}."
    alike = "more" if of_prediction > of_truth else "less"
    return (
        f"{text}, and neighbouring spots are {alike} alike in them than measured (Moran's I "
        f"{number(of_prediction, 2)} against {number(of_truth, 2)})."
    )


def _table(section: Section, table: pd.DataFrame, level: float) -> Table:
    """``level``: Moran's I of the truth, as the table's other numbers are taken."""

    def row(entry: pd.Series) -> tuple[Cell, ...]:
        mark = "" if entry["complete"] else f" {INCOMPLETE}"
        return (
            Cell(entry["label"], entry["label"].lower()),
            Cell(f"{entry['n_slices']}/{entry['of_slices']}{mark}", float(entry["n_slices"])),
            *(
                number_cell(entry[name], 2)
                for name in ("sd_ratio", "moran_prediction", "moran_ratio", "spearman", "ssim")
            ),
        )

    truth = (
        Cell(TRUTH, ""),
        Cell(f"{len(section.slices)}", float(len(section.slices))),
        *(number_cell(value, 2) for value in (1.0, level, 1.0, 1.0, 1.0)),
    )
    blocks = [
        tuple(row(entry) for _, entry in table[table["kind"] == kind].iterrows()) for kind in ("method", "control")
    ]
    notes = [
        "Each number: median over the genes of a slice, mean over seeds, then over slices. Genes that are constant in "
        "truth are left out everywhere, genes that are constant in the prediction from Moran's I and Spearman.",
        "SD: standard deviation over the spots of a slice. Moran's I: how alike direct neighbours on the array are "
        "(0: as any two spots, near 1: a smooth map). Spearman: correlation of ranks. SSIM: structural similarity of "
        "both maps around every spot (window with a standard deviation of 1.5 spots), 1 for equal maps; papers that "
        "compute SSIM once over the whole slice have other numbers.",
    ]
    if not table["complete"].all():
        notes.append(f"{INCOMPLETE} not every slice and seed has finished: the mean is over fewer slices.")
    return Table(
        name="sharpness",
        caption=caption(section, "spread, smoothness and structure of the predictions, median gene"),
        columns=("method", "slices", "SD / truth's", "Moran's I", "Moran's I / truth's", "Spearman", "SSIM"),
        blocks=((truth,), *blocks),
        notes=tuple(notes),
    )


def sharpness_figure(section: Section, by_gene: pd.DataFrame, truth: pd.Series) -> Figure:
    """Two panels, a box over genes for every entry: standard deviation over the truth's, and Moran's I.

    ``by_gene``: entry, gene and the MEASURES, means over slices and seeds; ``truth``: Moran's I of every gene as
    measured, mean over slices.
    """
    from matplotlib.figure import Figure

    entries = [str(entry) for entry in section.entries.index if entry in set(by_gene["entry"])]
    rows = [TRUTH, *entries]
    look = {TRUTH: Mark(PAPER, "o"), **section_marks(section)}
    figure = Figure(figsize=(WIDTH, 1.5 + 0.34 * len(rows)), layout="constrained")
    spread, smoothness = figure.subplots(1, 2, sharey=True)
    measured = pd.DataFrame({"entry": TRUTH, "moran_prediction": truth})
    for axes, measure, table in (
        (spread, "sd_ratio", by_gene),
        (smoothness, "moran_prediction", pd.concat([measured, by_gene.astype({"entry": str})])),
    ):
        for y in range(0, len(rows), 2):
            axes.axhspan(y - 0.5, y + 0.5, color=BAND, lw=0, zorder=0)
        known = table[["entry", measure]].dropna().astype({"entry": str})
        draw_boxes(axes, known, measure, "entry", look, linewidth=0.7, order=rows, width=0.62, whis=(5, 95))
        _mark_what_has_no_width(axes, known, measure, rows, look)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylabel("")
    spread.axvline(1, color=INK, lw=1, zorder=1.5)
    spread.text(1, 0, " the truth's", va="center", fontsize=SMALL)
    if truth.notna().any():
        smoothness.axvline(float(truth.median()), color=INK, lw=1, zorder=1.5)
    low, high = spread.get_xlim()
    spread.set_xlim(min(low, -0.03), max(high, 1.45))
    spread.set_yticks(range(len(rows)), [TRUTH, *(str(section.entries.loc[entry, "label"]) for entry in entries)])
    spread.set_ylim(len(rows) - 0.5, -0.5)
    spread.set_xlabel("standard deviation / the truth's")
    smoothness.set_xlabel("Moran's I (line: median of the truth)")
    figure.suptitle("Spread and smoothness of the predictions", x=0.01, ha="left")
    return figure


def _mark_what_has_no_width(
    axes: Axes, known: pd.DataFrame, measure: str, rows: list[str], look: Mapping[str, Mark]
) -> None:
    """A cross for an entry without a value; its mark where nearly all genes have one value.

    A box over such genes (of a prediction whose genes are all one map) would have no width to be seen by.
    """
    over_genes = known.groupby("entry")[measure]
    width = (over_genes.quantile(0.75) - over_genes.quantile(0.25)).reindex(rows)
    narrow = [entry for entry in rows if width[entry] < NARROW]
    at = pd.DataFrame({"entry": narrow, "x": over_genes.median().reindex(narrow), "y": list(map(rows.index, narrow))})
    draw_marks(axes, at, "x", "y", look, size=50)
    for place, entry in enumerate(rows):
        if np.isnan(width[entry]) and not (entry == TRUTH and measure == "sd_ratio"):
            axes.plot(0.02, place, "x", transform=axes.get_yaxis_transform(), ms=5, mec=FAINT, mew=0.9)
