"""Predicted genes on tissue (Figures 5 and S1 of the paper): truth beside every method, and where each method errs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from stbench.errors import unknown
from stbench.scores.correlation import neg_log10_p, per_gene

from ..figures import canvas
from ..figures.labels import broken
from ..figures.style import FAINT, HEADING, LETTER, SMALL, TITLE, WIDTH
from ..figures.tissue import Background, backgrounds, draw_spots
from ..numbers.genes import GeneCube, gene_cube, ranking, shown_entries
from ..sections.labels import entry_label, entry_labels
from ..sections.predictions import prediction_files, read_genes, which_seed
from ..sections.section import Section
from ..words.format import number
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_GENES = 7  # as in the paper; also the rows of one figure
MAX_GENES = 14  # that a reader may ask for: four pictures, about a megabyte of the page
MAX_METHODS = 6  # beside the truth
MAPS, RESIDUALS = "magma", "PuOr_r"  # orange: too high, purple: too low; told apart under all colour deficiencies
BLEACHED = 0.35  # the tissue under the circles, whose colours are near its own
CLIPPED = 98  # percentile of the residuals' sizes at which their colours end: one spot must not pale all others

LARGEST = 2.6  # side of one map, inches as all that follows
BAR, BAR_GAP, BAR_TEXT = 0.08, 0.04, 0.4
LEFT, RIGHT, TOP, BOTTOM, ABOVE = 0.55, 0.05, 0.95, 0.1, 0.28


@dataclass(frozen=True)
class GeneRow:
    """One gene on one slice; ``predictions``: entry to (n_spots,) float64, for those that have this slice."""

    gene: str
    slice: str
    pixel_xy: np.ndarray  # (n_spots, 2)
    truth: np.ndarray  # (n_spots,)
    predictions: Mapping[str, np.ndarray]

    def pcc(self, entry: str) -> float:
        """NaN where the truth or the prediction is constant."""
        return float(per_gene(self.truth[:, None], self.predictions[entry][:, None]).r[0])


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no trial has a per-gene table. Raises ``UserError`` for a gene that no section has."""
    cube = gene_cube(section)
    if cube is None:
        return None
    ranked = ranking(cube)
    files = prediction_files(section)
    candidates = shown_entries(section)
    kept = [entry for entry in candidates if any(predicted == entry for predicted, _ in files)]
    title = "What do the predictions look like on the tissue?"
    best = next((entry for entry in kept if (ranked["entry"] == entry).any()), None)
    if best is None:
        reason = "no prediction varies" if kept else "no predictions are left in the results"
        return Part("gene-maps", title, [f"No gene can be drawn: {reason}."])
    genes, remarks = _genes(cube, ranked, best, context)
    places = {gene: where for gene in genes if (where := slice_of(cube, best, gene, files)) is not None}
    label = entry_labels(section)[best]
    remarks += [f"{gene} is not drawn: {label} has no correlation of it." for gene in genes if gene not in places]
    if not places:
        return Part("gene-maps", title, ["No gene can be drawn.", *remarks])
    columns = kept[:MAX_METHODS]
    rows = _rows(places, columns, files)
    tissue = backgrounds(section)
    lead = [_finding(section, rows, best), *remarks, *_missing(section, candidates, kept, rows, tissue)]
    pictures = []
    seed = which_seed(section)
    parts = [rows[first : first + N_GENES] for first in range(0, len(rows), N_GENES)]
    with canvas.drawing():
        for place, shown in enumerate(parts, start=1):
            tail = "" if len(parts) == 1 else f"-{place}"
            maps = maps_figure(section, shown, columns, tissue)
            pictures.append(picture(section, f"maps{tail}", _maps_caption(shown, tissue) + seed, maps, tissue=True))
        for place, shown in enumerate(parts, start=1):
            tail = "" if len(parts) == 1 else f"-{place}"
            residuals = residuals_figure(section, shown, columns, tissue)
            what = _residuals_caption(shown, tissue) + seed
            pictures.append(picture(section, f"residuals{tail}", what, residuals, tissue=True))
    return Part("gene-maps", title, lead, (), pictures, {"drawn.csv": drawn(section, rows)})


def _genes(cube: GeneCube, ranked: pd.DataFrame, best: str, context: Context) -> tuple[list[str], list[str]]:
    """The genes to draw, and what must be said about those that were asked for."""
    if not context.genes:
        return list(ranked.loc[ranked["entry"] == best, "gene"].iloc[:N_GENES]), []
    anywhere = {gene for section in context.sections if not section.genes.empty for gene in section.genes["gene"]}
    for gene in context.genes:
        if gene not in anywhere:
            raise unknown("gene of these results", gene, sorted(anywhere))
    asked = list(dict.fromkeys(context.genes))
    remarks = [f"{gene} is not in this dataset's panel." for gene in asked if gene not in cube.genes]
    present = [gene for gene in asked if gene in cube.genes]
    if len(present) > MAX_GENES:
        remarks.append(f"Of the {len(present)} genes asked for, the first {MAX_GENES} are drawn.")
    return present[:MAX_GENES], remarks


def slice_of(cube: GeneCube, entry: str, gene: str, files: Mapping[tuple[str, str], Path]) -> str | None:
    """The slice on which ``entry`` predicts ``gene`` with the largest -log10 p, among those with a prediction."""
    column = cube.evidence[cube.of(entry), :, cube.genes.index(gene)]
    there = np.array([(entry, name) in files for name in cube.slices])
    column = np.where(there & ~np.isnan(column), column, -np.inf)
    return cube.slices[int(column.argmax())] if np.isfinite(column.max()) or column.max() > 0 else None


def _rows(places: Mapping[str, str], entries: Sequence[str], files: Mapping[tuple[str, str], Path]) -> list[GeneRow]:
    """``places``: gene to slice. A slice is read once, whatever the number of its genes."""
    together: dict[str, list[str]] = {}
    for gene, where in places.items():
        together.setdefault(where, []).append(gene)
    rows: dict[str, GeneRow] = {}
    for where, genes in together.items():
        read = {entry: read_genes(files[entry, where], genes) for entry in entries if (entry, where) in files}
        first = next(iter(read.values()))
        for column, gene in enumerate(genes):
            predictions = {entry: values.prediction[:, column] for entry, values in read.items()}
            rows[gene] = GeneRow(gene, where, first.pixel_xy, first.truth[:, column], predictions)
    return [rows[gene] for gene in places]


def drawn(section: Section, rows: Sequence[GeneRow]) -> pd.DataFrame:
    """One row for each map: gene, slice, n_spots, entry, label, pcc, neg_log10_p, of the predictions that are drawn."""
    table = pd.DataFrame(
        [(row.gene, row.slice, len(row.truth), entry, row.pcc(entry)) for row in rows for entry in row.predictions],
        columns=["gene", "slice", "n_spots", "entry", "pcc"],
    )
    table.insert(4, "label", table["entry"].map(entry_labels(section)))
    table["neg_log10_p"] = [float(neg_log10_p(r, n)) for r, n in zip(table["pcc"], table["n_spots"], strict=True)]
    return table


def _finding(section: Section, rows: Sequence[GeneRow], best: str) -> str:
    label = entry_labels(section)[best]
    values = [row.pcc(best) for row in rows]
    genes = f"{len(rows)} genes" if len(rows) > 1 else rows[0].gene
    reach = f"a PCC from {number(min(values), 2)} to {number(max(values), 2)}"
    reach = reach if len(rows) > 1 else f"a PCC of {number(values[0], 2)}"
    return (
        f"On the slice where it does best, {label} draws {genes} with {reach}: the best case, not the usual one, and "
        "chosen by its results."
    )


def _missing(
    section: Section,
    candidates: Sequence[str],
    kept: Sequence[str],
    rows: Sequence[GeneRow],
    tissue: Mapping[str, Background],
) -> list[str]:
    said = []
    labels = entry_labels(section)
    if len(kept) > MAX_METHODS:
        left_out = ", ".join(labels[entry] for entry in kept[MAX_METHODS:])
        said.append(f"Drawn are the {MAX_METHODS} best by PCC (ACG); left out: {left_out}.")
    lost = [labels[entry] for entry in candidates if entry not in kept]
    if lost:
        said.append(f"Not drawn, because the results hold no predictions: {', '.join(lost)}.")
    if not (section.entries["kind"] == "method").any():
        said.append("No method was run, so controls are drawn.")
    bare = sorted({row.slice for row in rows if row.slice not in tissue}, key=section.slices.index)
    if bare:
        said.append(
            f"The H&E picture is missing for {', '.join(bare)}: these results were written without it. "
            "The same run command again adds it."
        )
    return said


def _maps_caption(rows: Sequence[GeneRow], tissue: Mapping[str, Background]) -> str:
    ground = "the H&E image" if any(row.slice in tissue for row in rows) else "a plain background, for want of images"
    return (
        f"observed and predicted expression on {ground}, each gene on the slice where the first method's p is "
        "smallest. Each map has a colour scale of its own, as in the paper, so colours compare places within a map and "
        "no levels between maps"
    )


def _residuals_caption(rows: Sequence[GeneRow], tissue: Mapping[str, Background]) -> str:
    return (
        "predicted minus observed expression of the same genes and slices; one colour scale for a row, ending at the "
        f"{CLIPPED}th percentile of the differences' sizes. Orange: predicted too high, purple: too low"
    )


def maps_figure(
    section: Section, rows: Sequence[GeneRow], entries: Sequence[str], tissue: Mapping[str, Background]
) -> Figure:
    """Rows are genes, columns the truth and ``entries``; every map is scaled to its own smallest and largest value."""
    grid = _Grid(len(rows), ["observed", *(entry_label(section, entry) for entry in entries)])
    grid.title("Observed and predicted expression on tissue")
    for place, row in enumerate(rows):
        maps: list[np.ndarray | None] = [row.truth, *(row.predictions.get(entry) for entry in entries)]
        pcc = [row.pcc(entry) if entry in row.predictions else float("nan") for entry in entries]
        top = np.nanmax(pcc) if not np.isnan(pcc).all() else None
        for column, values in enumerate(maps):
            axes = grid.axes(place, column)
            if values is None:
                grid.absent(axes)
                continue
            norm = _span(float(values.min()), float(values.max()))
            circles = draw_spots(axes, row.pixel_xy, values, MAPS, norm, tissue.get(row.slice), fade=BLEACHED)
            grid.bar(circles, place, column, [norm.vmin, norm.vmax] if norm.vmin < norm.vmax else [norm.vmin])
            if column:
                r = pcc[column - 1]
                grid.above(axes, "PCC undefined" if math.isnan(r) else f"PCC {number(r, 3)}", strong=r == top)
        grid.name(place, row)
    return grid.figure


def residuals_figure(
    section: Section, rows: Sequence[GeneRow], entries: Sequence[str], tissue: Mapping[str, Background]
) -> Figure:
    """Rows are genes, columns ``entries``: prediction minus truth, with limits shared by a row and 0 in the middle."""
    grid = _Grid(len(rows), [entry_label(section, entry) for entry in entries], one_bar=True)
    grid.title("Predicted minus observed expression")
    for place, row in enumerate(rows):
        differences = {entry: values - row.truth for entry, values in row.predictions.items()}
        reach = float(np.percentile(np.abs(np.concatenate(list(differences.values()))), CLIPPED)) or 1.0
        norm = _span(-reach, reach)
        for column, entry in enumerate(entries):
            axes = grid.axes(place, column)
            if entry not in differences:
                grid.absent(axes)
                continue
            circles = draw_spots(  # on grey: a pale purple circle would be lost on H&E
                axes, row.pixel_xy, differences[entry], RESIDUALS, norm, tissue.get(row.slice), fade=BLEACHED, grey=True
            )
            grid.above(axes, f"mean {_signed(float(differences[entry].mean()))}")
        grid.bar(circles, place, len(entries) - 1, [-reach, 0, reach], extend="both")
        grid.name(place, row)
    return grid.figure


def _span(low: float, high: float) -> Any:
    from matplotlib.colors import Normalize

    return Normalize(low, high)


def _signed(value: float) -> str:
    return ("+" if value > 0 else "") + number(round(value, 2) + 0.0, 2)


class _Grid:
    """A figure of square maps in rows and columns, measured in inches, each or each row with a thin colour bar."""

    def __init__(self, n_rows: int, columns: Sequence[str], one_bar: bool = False) -> None:
        from matplotlib.figure import Figure

        bar = BAR_GAP + BAR + BAR_TEXT
        gap = 0.1 if one_bar else bar
        self.width = WIDTH
        self.side = min(LARGEST, (WIDTH - LEFT - RIGHT - (bar if one_bar else 0)) / len(columns) - gap)
        self.step = self.side + gap
        self.row_height = self.side + ABOVE
        self.height = TOP + n_rows * self.row_height + BOTTOM
        self.figure: Figure = Figure(figsize=(self.width, self.height))
        for place, text in enumerate(columns):
            self.figure.text(
                *self._at(LEFT + place * self.step + self.side / 2, TOP - 0.06),
                broken(text, int(self.step / (1.08 * LETTER))),
                ha="center",
                va="bottom",
                fontsize=SMALL,
                fontweight="bold",
                linespacing=1.05,
            )

    def _at(self, from_left: float, from_top: float) -> tuple[float, float]:
        return from_left / self.width, 1 - from_top / self.height

    def title(self, text: str) -> None:
        self.figure.text(*self._at(0.1, 0.08), text, va="top", fontsize=HEADING, fontweight="bold")

    def axes(self, row: int, column: int) -> Axes:
        left, bottom = self._at(LEFT + column * self.step, TOP + (row + 1) * self.row_height)
        return self.figure.add_axes((left, bottom, self.side / self.width, self.side / self.height))

    def bar(self, circles: Any, row: int, column: int, ticks: Sequence[float], extend: str = "neither") -> None:
        left, bottom = self._at(
            LEFT + column * self.step + self.side + BAR_GAP, TOP + (row + 1) * self.row_height - 0.1 * self.side
        )
        axes = self.figure.add_axes((left, bottom, BAR / self.width, 0.8 * self.side / self.height))
        self.figure.colorbar(
            circles,
            cax=axes,
            ticks=list(ticks),
            format=lambda value, _: number(round(value, 1) + 0.0, 1),
            extend=extend,
        )
        axes.tick_params(length=0, pad=1.5, labelsize=SMALL)
        axes.set_gid("bar")

    def above(self, axes: Axes, text: str, strong: bool = False) -> None:
        axes.set_title(text, fontsize=SMALL, pad=3, fontweight="bold" if strong else "normal")

    def name(self, row: int, drawn: GeneRow) -> None:
        """The gene, in italics, and the slice, at the left of a row."""
        middle = TOP + (row + 1) * self.row_height - self.side / 2
        self.figure.text(
            *self._at(0.2, middle),
            drawn.gene,
            rotation=90,
            ha="center",
            va="center",
            fontsize=TITLE,
            fontstyle="italic",
        )
        self.figure.text(
            *self._at(0.42, middle), drawn.slice, rotation=90, ha="center", va="center", fontsize=SMALL, color=FAINT
        )

    def absent(self, axes: Axes) -> None:
        axes.text(
            0.5, 0.5, "no prediction", transform=axes.transAxes, ha="center", va="center", color=FAINT, fontsize=SMALL
        )
        axes.set_axis_off()
