"""Whether predictions keep the way in which genes vary together (Figure S2 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..figures import canvas
from ..figures.labels import broken
from ..figures.style import FAINT, HEADING, LINE, SMALL, WIDTH
from ..numbers.genes import shown_entries
from ..sections.labels import entry_label, entry_labels
from ..sections.predictions import prediction_files, read_genes, which_seed
from ..sections.section import Section
from ..tables.cells import number_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_GENES = 50
MAX_METHODS = 6
MAX_SLICES = 12  # read: a large dataset has more spots than such a correlation needs
COLOURS, UNDEFINED = "viridis", "#c3c7cc"


@dataclass(frozen=True)
class Structure:
    """Gene-gene correlations of the pooled spots of some slices, genes in the order of the observed matrix's tree.

    Matrices are (n_genes, n_genes) float64, NaN where a gene is constant. ``agreement``: an entry's Pearson correlation
    with the observed matrix over pairs of genes; ``within``: the same after each gene's mean in a
    slice was taken away, so that differences between slices do not count.
    """

    genes: tuple[str, ...]
    observed: np.ndarray
    predicted: Mapping[str, np.ndarray]
    agreement: Mapping[str, float]
    within: Mapping[str, float]
    slices: tuple[str, ...]  # pooled; every entry has predictions of all of them


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no prediction is there to be read, or the panel has no three genes."""
    files = prediction_files(section)
    entries = [entry for entry in shown_entries(section) if any(predicted == entry for predicted, _ in files)]
    genes = most_expressed(section)
    if not entries or len(genes) < 3:
        return None
    labels = entry_labels(section)
    slices = [name for name in section.slices if (entries[0], name) in files]
    comparable = [entry for entry in entries if all((entry, name) in files for name in slices)]
    shown = comparable[:MAX_METHODS]
    structure = gene_structure(shown, genes, spread_slices(slices, section.patients, MAX_SLICES), files)
    lead = [_finding(structure, labels), _strength(structure, shown[0], labels)]
    if len(slices) < len(section.slices):
        lead.append(f"Only {len(slices)} of {len(section.slices)} slices have predictions of {labels[shown[0]]}.")
    if len(structure.slices) < len(slices):
        lead.append(
            f"Pooled over {len(structure.slices)} of {len(slices)} slices, spread over the patients: "
            f"{', '.join(structure.slices)}."
        )
    if len(comparable) > len(shown):
        left_out = ", ".join(labels[entry] for entry in comparable[MAX_METHODS:])
        lead.append(f"Drawn are the {len(shown)} best by PCC (ACG); left out: {left_out}.")
    partial = [entry_label(section, entry) for entry in entries if entry not in comparable]
    if partial:
        lead.append(f"Left out, because predictions of some of these slices are missing: {', '.join(partial)}.")
    what = (
        f"Pearson correlation between the {len(genes)} genes of highest mean observed expression, over the spots of "
        "all slices together, each predicted by a model that had not seen its slice. All matrices are in the order of "
        "the observed one's tree (Ward linkage); r: agreement with it over pairs of genes" + which_seed(section)
    )
    with canvas.drawing():
        pictures = [picture(section, "matrices", what, correlation_figure(section, structure))]
    frames = {"pairs.csv": pairs(structure)}
    title = "Do genes vary together as they should?"
    return Part("correlation", title, lead, [_table(section, structure)], pictures, frames)


def most_expressed(section: Section) -> list[str]:
    """The genes of highest mean observed expression over the spots of all slices, at most 50.

    Where folds have panels of their own, of those that all of them have.
    """
    table = section.genes
    if table.empty or "mean_truth" not in table:
        return []
    once = table.drop_duplicates(["slice", "gene"])  # the truth is the same under every entry and seed
    once = once[once.groupby("gene")["slice"].transform("size") == once["slice"].nunique()]
    n_spots = once["slice"].map(section.rows.groupby("slice")["n_spots"].max())
    total = (once["mean_truth"] * n_spots).groupby(once["gene"], sort=False).sum()
    return list(total.sort_values(ascending=False, kind="stable").index[:N_GENES])


def spread_slices(slices: Sequence[str], patients: Mapping[str, str], count: int) -> tuple[str, ...]:
    """At most ``count`` of ``slices``, from every patient in turn, in their order."""
    by_patient: dict[str, list[str]] = {}
    for name in slices:
        by_patient.setdefault(patients.get(name, ""), []).append(name)
    turns = sorted(
        (
            (place, number_of_patient, name)
            for number_of_patient, names in enumerate(by_patient.values())
            for place, name in enumerate(names)
        )
    )
    chosen = {name for *_, name in turns[:count]}
    return tuple(name for name in slices if name in chosen)


def gene_structure(
    entries: Sequence[str], genes: Sequence[str], slices: Sequence[str], files: Mapping[tuple[str, str], Path]
) -> Structure:
    """Read the predictions and correlate; ``files``: :func:`predictions.prediction_files`."""
    read = {entry: [read_genes(files[entry, name], genes) for name in slices] for entry in entries}
    truth = [prediction.truth for prediction in read[entries[0]]]  # the same under every entry
    observed, observed_within = pooled_correlation(truth), pooled_correlation(truth, within_slices=True)
    order = leaf_order(observed)
    in_order = np.ix_(order, order)
    predicted, agreement, within = {}, {}, {}
    for entry, predictions in read.items():
        own = [prediction.prediction for prediction in predictions]
        matrix = pooled_correlation(own)
        predicted[entry] = matrix[in_order]
        agreement[entry] = matrix_agreement(observed, matrix)
        within[entry] = matrix_agreement(observed_within, pooled_correlation(own, within_slices=True))
    return Structure(
        genes=tuple(genes[place] for place in order),
        observed=observed[in_order],
        predicted=predicted,
        agreement=agreement,
        within=within,
        slices=tuple(slices),
    )


def pooled_correlation(slices: Sequence[np.ndarray], within_slices: bool = False) -> np.ndarray:
    """Pearson correlation between columns over the rows of all ``slices`` (each (n_spots, n_genes)); NaN: constant."""
    pooled = np.concatenate([values - values.mean(axis=0) if within_slices else values for values in slices])
    # what taking means away leaves of a column of equal values is rounding
    steady = np.all([np.ptp(values, axis=0) == 0 for values in (slices if within_slices else [pooled])], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        matrix = np.corrcoef(pooled, rowvar=False)
    matrix[steady, :] = np.nan
    matrix[:, steady] = np.nan
    return matrix


def leaf_order(correlation: np.ndarray) -> list[int]:
    """The leaves of Ward's tree over the matrix's rows (the published routine's); an undefined correlation counts 0."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    return [int(leaf) for leaf in leaves_list(linkage(np.nan_to_num(correlation), method="ward"))]


def matrix_agreement(observed: np.ndarray, predicted: np.ndarray) -> float:
    """Pearson correlation of the two upper triangles without diagonal, over pairs of genes defined in both."""
    upper = np.triu_indices_from(observed, k=1)
    both = np.column_stack([observed[upper], predicted[upper]])
    both = both[~np.isnan(both).any(axis=1)]
    if len(both) < 3 or (np.ptp(both, axis=0) == 0).any():
        return float("nan")
    return float(np.corrcoef(both, rowvar=False)[0, 1])


def mean_strength(matrix: np.ndarray) -> float:
    """The mean size (absolute value) of the correlations, over pairs of genes that have one."""
    upper = matrix[np.triu_indices_from(matrix, k=1)]
    known = upper[~np.isnan(upper)]
    return float(np.abs(known).mean()) if known.size else float("nan")


def pairs(structure: Structure) -> pd.DataFrame:
    """One row for each pair of genes: gene, other_gene, observed, and each entry's correlation under its name."""
    first, second = np.triu_indices(len(structure.genes), k=1)
    names = np.array(structure.genes)
    table = pd.DataFrame(
        {"gene": names[first], "other_gene": names[second], "observed": structure.observed[first, second]}
    )
    return table.assign(**{entry: matrix[first, second] for entry, matrix in structure.predicted.items()})


def _finding(structure: Structure, labels: Mapping[str, str]) -> str:
    known = {entry: value for entry, value in structure.agreement.items() if not math.isnan(value)}
    if not known:
        return "No prediction varies enough for correlations between genes."
    best = max(known, key=lambda entry: known[entry])
    sentence = (
        f"{labels[best]} keeps the correlations between genes best: over pairs of genes its matrix correlates with the "
        f"observed one at {number(known[best], 2)}"
    )
    if len(known) > 1:
        worst = min(known, key=lambda entry: known[entry])
        sentence += f"; {labels[worst]} keeps them least, at {number(known[worst], 2)}"
    return f"{sentence}."


def _strength(structure: Structure, entry: str, labels: Mapping[str, str]) -> str:
    observed = mean_strength(structure.observed)
    own = mean_strength(structure.predicted[entry]) if entry in structure.predicted else float("nan")
    if math.isnan(own) or math.isnan(observed):
        return "How strongly predicted genes vary together cannot be told: correlations are undefined."
    observed, own = round(observed, 2), round(own, 2)
    tells = "as strongly as" if own == observed else "more strongly than" if own > observed else "less strongly than"
    return (
        f"Genes vary together {tells} they should: the mean size of a correlation is {number(own, 2)} in "
        f"{labels[entry]}'s predictions and {number(observed, 2)} in the observed counts, which their noise lowers."
    )


def _table(section: Section, structure: Structure) -> Table:
    def row(label: str, *values: float) -> tuple[Cell, ...]:
        return (Cell(label, label.lower()), *(number_cell(value, 3) for value in values))

    undefined = float("nan")
    methods = [
        row(
            entry_labels(section)[entry],
            structure.agreement[entry],
            structure.within[entry],
            mean_strength(matrix),
        )
        for entry, matrix in structure.predicted.items()
    ]
    observed = row("observed", undefined, undefined, mean_strength(structure.observed))
    return Table(
        "structure",
        caption(section, "how well predictions keep the correlations between genes"),
        ("method", "agreement", "agreement within slices", "mean size of a correlation"),
        (tuple(methods), (observed,)),
        notes=(
            "Agreement: Pearson correlation between the observed and the predicted matrix, over pairs of genes. "
            "Within slices: after each gene's mean in a slice was taken away, so that differences between slices "
            "do not count.",
        ),
    )


def correlation_figure(section: Section, structure: Structure) -> Figure:
    """Observed matrix first, then the methods', in rows of four as in the paper; one colour bar from -1 to 1."""
    import seaborn as sns
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    panels: list[tuple[str, np.ndarray]] = [("observed", structure.observed)]
    for entry, matrix in structure.predicted.items():
        agreement = structure.agreement[entry]
        agrees = "r undefined" if math.isnan(agreement) else f"r = {number(agreement, 2)}"
        panels.append((f"{broken(entry_label(section, entry), 28)}\n{agrees}", matrix))
    columns, gap, margin, top, bar_height = 4, 0.2, 0.1, 0.5, 0.85
    side = (WIDTH - 2 * margin - (columns - 1) * gap) / columns
    name_height = 0.1 + LINE * max(name.count("\n") + 1 for name, _ in panels)
    n_rows = -(-len(panels) // columns)
    height = top + n_rows * (side + name_height) + bar_height
    figure = Figure(figsize=(WIDTH, height))
    colours = colormaps[COLOURS].with_extremes(bad=UNDEFINED)
    for place, (name, matrix) in enumerate(panels):
        row, column = divmod(place, columns)
        from_left = margin + column * (side + gap)
        from_top = top + name_height + row * (side + name_height)
        axes = figure.add_axes(
            (from_left / WIDTH, 1 - (from_top + side) / height, side / WIDTH, side / height), label=name
        )
        axes.set_facecolor(UNDEFINED)
        sns.heatmap(
            matrix,
            mask=np.isnan(matrix),
            cmap=colours,
            vmin=-1,
            vmax=1,
            cbar=False,
            xticklabels=False,
            yticklabels=False,
            rasterized=True,  # thousands of cells as one image in the page's vector graphics
            ax=axes,
        )
        axes.set_title(name, fontsize=SMALL, pad=4, linespacing=1.1)
        axes.spines[:].set(visible=True, color=FAINT, linewidth=0.6)
    figure.text(0.1 / WIDTH, 1 - 0.1 / height, "Correlation between genes", va="top", fontsize=HEADING, weight="bold")
    bar_axes = figure.add_axes((0.4 / WIDTH, 0.52 / height, 4.0 / WIDTH, 0.13 / height))
    scale = ScalarMappable(Normalize(-1, 1), colours)
    figure.colorbar(scale, cax=bar_axes, orientation="horizontal", ticks=[-1, -0.5, 0, 0.5, 1])
    bar_axes.tick_params(length=2)
    bar_axes.set_xlabel("Pearson correlation of two genes")
    return figure
