"""Which genes are predicted best (Tables S2 and S3 of the paper), by which method, and whether the methods agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from ..figures import canvas
from ..figures.style import LETTER, SMALL, WIDTH
from ..numbers.genes import GeneCube, gene_cube, ranking, shown_entries
from ..numbers.means import board_of
from ..published.genes import published_genes
from ..sections.labels import entry_labels
from ..sections.section import Section, records
from ..tables.cells import DASH, number_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = 50
CAUTION = (
    "−log10 p grows with the number of spots and treats neighbouring spots as independent: it ranks genes, and is no "
    "test of them."
)


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no trial has a per-gene table."""
    cube = gene_cube(section)
    if cube is None:
        return None
    ranked = ranking(cube)
    order = [entry for entry in shown_entries(section) if entry in set(ranked["entry"])]
    if not order:
        lead = ["No method has a gene whose correlation is defined, so genes cannot be ranked."]
        return Part("gene-ranking", "Which genes are predicted best?", lead)
    best = order[0]
    printed = _published(section) if context.compare_paper else _published(section).iloc[:0]
    labels = entry_labels(section)
    lead = [_finding(ranked, best, labels), CAUTION]
    tables = [_top_table(section, ranked, best, printed)]
    frames = {"ranking.csv": ranked.assign(label=ranked["entry"].map(labels))}

    compared = _compared(section)
    if len(compared) > 1:
        leaders = gene_leaders(cube, compared, _fair_controls(section))
        lead.insert(1, _leaders_finding(leaders, labels))
        tables.append(_leaders_table(section, leaders, compared))
        frames["per-gene.csv"] = leaders.assign(best_label=leaders["best"].map(labels))

    pictures = []
    agreement = gene_agreement(ranked, [*order, *section.entries.index[section.entries["kind"] == "control"]])
    if len(agreement) > 1:
        lead.append(_agreement_finding(agreement, order, labels))
        frames["agreement.csv"] = agreement.rename_axis("entry").reset_index()
        what = "Spearman correlation, over genes, of the entries' mean PCC per gene: 1 where two rank the genes alike"
        with canvas.drawing():
            drawn = agreement_figure(agreement.rename(index=labels, columns=labels))
            pictures.append(picture(section, "agreement", what, drawn))
    lead += _published_findings(section, ranked, order, printed, len(cube.genes))
    return Part("gene-ranking", "Which genes are predicted best?", lead, tables, pictures, frames)


def _published(section: Section) -> pd.DataFrame:
    """The printed rankings of this dataset and split: method, rank, gene, mean_neg_log10_p, source, note."""
    table = published_genes()
    return table[(table["dataset"] == section.dataset) & (table["split"] == section.split)]


def _compared(section: Section) -> list[str]:
    """The methods that are complete, so that their means are over the same slices; in the order of the table."""
    board = board_of(section)
    return list(board.index[(board["kind"] == "method") & board["complete"]])


def _fair_controls(section: Section) -> list[str]:
    board = board_of(section)
    return list(board.index[(board["kind"] == "control") & ~board["oracle"] & board["complete"]])


def gene_leaders(cube: GeneCube, methods: list[str], controls: list[str]) -> pd.DataFrame:
    """One row for each gene that varies in truth on some slice: who predicts it best, by the mean of strict r.

    Strict, because a method must not gain from slices on which its prediction is constant. Columns: ``gene``,
    ``best``, ``margin`` (to the second best), ``control_beats_all`` (some control without an oracle's knowledge is
    better than every method) and each method's mean under its entry.
    """
    known = ~np.isnan(cube.strict_r)
    with np.errstate(invalid="ignore"):
        means = np.nansum(cube.strict_r, axis=1) / known.sum(axis=1)
    scores = means[[cube.of(entry) for entry in methods]]
    scored = ~np.isnan(scores).any(axis=0)
    scores = scores[:, scored]
    sorted_up = np.sort(scores, axis=0)
    floor = means[[cube.of(entry) for entry in controls]][:, scored]
    table = pd.DataFrame(
        {
            "gene": np.array(cube.genes)[scored],
            "best": np.array(methods)[scores.argmax(axis=0)] if scores.size else [],
            "margin": sorted_up[-1] - sorted_up[-2],
            "control_beats_all": (floor > sorted_up[-1]).any(axis=0),
        }
    )
    return table.assign(**dict(zip(methods, scores, strict=True)))


def gene_agreement(ranked: pd.DataFrame, order: list[str]) -> pd.DataFrame:
    """Spearman correlation of the entries' mean r per gene; those without a defined gene are left out."""
    wide = ranked.pivot_table(index="gene", columns="entry", values="mean_r")
    return wide[[entry for entry in dict.fromkeys(order) if entry in wide]].corr(method="spearman")


def _finding(ranked: pd.DataFrame, best: str, labels: Mapping[str, str]) -> str:
    top = ranked[ranked["entry"] == best].iloc[:3]
    first = top.iloc[0]
    followers = " and ".join(top["gene"].iloc[1:])
    follow = f"; {followers} follow{'s' if len(top) == 2 else ''}" if followers else ""
    return (
        f"{first['gene']} is the gene that {labels[best]} predicts most surely: mean −log10 p "
        f"{number(first['mean_neg_log10_p'], 1)}, mean PCC {number(first['mean_r'], 3)}, positive on "
        f"{_positive(first)} slices{follow}."
    )


def _positive(row: pd.Series) -> str:
    return f"{round(row['share_positive'] * row['n_slices'])}/{int(row['n_slices'])}"


def _top_table(section: Section, ranked: pd.DataFrame, best: str, printed: pd.DataFrame) -> Table:
    paper = {row.gene: row for row in records(printed)}
    rows = []
    for _, row in ranked[ranked["entry"] == best].iloc[:TOP].iterrows():
        cells = [
            Cell(str(row["rank"]), float(row["rank"])),
            Cell(row["gene"], row["gene"].lower()),
            Cell(number(row["mean_neg_log10_p"], 2), float(row["mean_neg_log10_p"])),
            Cell(number(row["mean_r"], 3), float(row["mean_r"])),
            Cell(_positive(row), float(row["share_positive"])),
        ]
        if paper:
            listed = paper.get(row["gene"])
            place, value = (listed.rank, listed.mean_neg_log10_p) if listed else (None, None)
            cells.append(Cell("not listed") if place is None else Cell(str(place), float(place)))
            cells.append(Cell(DASH) if value is None else Cell(number(value, 2), float(value)))
        rows.append(tuple(cells))
    columns = ["rank", "gene", "mean −log10 p", "mean PCC", "slices with PCC > 0"]
    notes = ["Mean over slices, those without a value skipped, as in the paper's Tables S2 and S3."]
    if paper:
        columns += ["rank in the paper", "−log10 p in the paper"]
        notes.append(f"In the paper: {printed['source'].iloc[0]}, a list of {len(paper)} genes, of mclSTExp.")
        notes += [f"In the paper, {row.gene}: {row.note}." for row in records(printed) if row.note]
    what = f"the {len(rows)} genes that {entry_labels(section)[best]} predicts best"
    return Table("top-genes", caption(section, what), tuple(columns), (tuple(rows),), (), tuple(notes), frozenset({1}))


def _leaders_finding(leaders: pd.DataFrame, labels: Mapping[str, str]) -> str:
    counts = leaders["best"].value_counts()
    control = int(leaders["control_beats_all"].sum())
    sentence = f"{labels[counts.index[0]]} is the best method on {counts.iloc[0]} of {len(leaders)} genes"
    if len(counts) > 1:
        sentence += f", {labels[counts.index[1]]} on {counts.iloc[1]}"
    return f"{sentence}; on {control} of them a control that sees no more than a method is better than every method."


def _leaders_table(section: Section, leaders: pd.DataFrame, methods: list[str]) -> Table:
    labels = entry_labels(section)
    rows = []
    for entry in methods:
        won = leaders[leaders["best"] == entry]
        margin = float(won["margin"].median()) if len(won) else float("nan")
        rows.append(
            (
                Cell(labels[entry], labels[entry].lower()),
                Cell(f"{len(won)}", float(len(won))),
                Cell(f"{len(won) / max(len(leaders), 1):.1%}", len(won) / max(len(leaders), 1)),
                number_cell(margin, 3),
                Cell(number(float(leaders[entry].median()), 3), float(leaders[entry].median())),
            )
        )
    return Table(
        "best-per-gene",
        caption(section, f"how many of {len(leaders)} genes each method predicts best"),
        ("method", "genes where it is best", "share", "median lead there", "median PCC over all genes"),
        (tuple(rows),),
        notes=(
            "By the mean over slices of strict PCC, where a constant prediction counts 0; methods that finished on "
            "every slice. Lead: distance to the second best method.",
        ),
    )


def _agreement_finding(agreement: pd.DataFrame, order: list[str], labels: Mapping[str, str]) -> str:
    methods = [entry for entry in order if entry in agreement]
    among = agreement.loc[methods, methods] if len(methods) > 1 else agreement
    rows, columns = np.triu_indices(len(among), k=1)
    upper = pd.DataFrame(
        {"one": among.index[rows], "other": among.columns[columns], "rho": among.to_numpy()[rows, columns]}
    )
    upper = upper.dropna().sort_values("rho", kind="stable")
    if upper.empty:
        return "Whether the entries agree on which genes are easy cannot be told: they share too few genes."
    pairs = [(f"{labels[row.one]} and {labels[row.other]}", number(row.rho, 2)) for row in records(upper)]
    (least, lowest), (most, highest) = pairs[0], pairs[-1]
    if len(pairs) == 1:
        return f"{least} rank the genes with a Spearman correlation of {lowest}."
    return f"Rankings of genes agree with a Spearman correlation from {lowest} ({least}) to {highest} ({most})."


def _published_findings(
    section: Section, ranked: pd.DataFrame, order: list[str], printed: pd.DataFrame, n_genes: int
) -> list[str]:
    """How many of the printed genes each entry has among as many of its own best."""
    if printed.empty:
        return []
    listed = set(printed["gene"])
    shared = {}
    for entry in order:
        own = ranked[ranked["entry"] == entry].head(len(listed))
        shared[entry] = len(listed & set(own["gene"]))
    said = ", ".join(f"{entry_labels(section)[entry]} {count}" for entry, count in shared.items())
    chance = len(listed) ** 2 / n_genes
    return [
        f"Of the {len(listed)} genes that {printed['source'].iloc[0]} lists for mclSTExp, so many are among each "
        f"one's own {len(listed)} best: {said}; two lists drawn at random would share {chance:.1f}."
    ]


def agreement_figure(agreement: pd.DataFrame) -> Figure:
    """A heat map with the numbers in its cells; ``agreement``: square, labels as index and columns."""
    import seaborn as sns
    from matplotlib.figure import Figure

    n = len(agreement)
    longest = max(map(len, map(str, agreement.index)))
    figure = Figure(figsize=(WIDTH, 1.0 + 0.4 * n + 0.6 * LETTER * longest), layout="constrained")
    axes = figure.add_subplot()
    low = -1 if (agreement.to_numpy(dtype=float) < 0).any() else 0  # two colours only where there are two signs
    sns.heatmap(
        agreement,
        annot=agreement.map(lambda value: number(round(value, 2) + 0.0, 2)),
        fmt="",
        annot_kws={"fontsize": SMALL},
        cmap="RdBu_r" if low else "Blues",
        vmin=low,
        vmax=1,
        cbar_kws={"ticks": np.arange(low, 1.01, 0.5), "pad": 0.01, "aspect": 30, "label": "Spearman correlation"},
        ax=axes,
    )
    axes.set_xticks(np.arange(n) + 0.5, agreement.columns, rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(np.arange(n) + 0.5, agreement.index, rotation=0)
    axes.tick_params(length=0)
    axes.set(xlabel="", ylabel="")
    figure.suptitle("Do methods find the same genes easy?", x=0.01, ha="left")
    return figure
