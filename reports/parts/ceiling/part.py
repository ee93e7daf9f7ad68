"""Where a score stands between what needs no image, the training mean, and what sampling noise lets anyone reach."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pandas as pd

from ...figures import canvas
from ...numbers.metrics import METRICS
from ...sections.labels import entry_label
from ...sections.section import Section, records
from ...tables.cells import number_cell, worded_cell
from ...tables.table import Cell, Table
from ...words.format import number, percent
from ...words.protocol import caption
from ..part import Context, Part, picture

if TYPE_CHECKING:
    pass
from .figures import gene_figure, way_figure
from .numbers import (
    METRIC_NAMES,
    REPLICATE,
    best_entry,
    ceiling_table,
    framed_scores,
    gene_mean_agreement,
    gene_table,
    slice_ceilings,
)


def part(section: Section, context: Context) -> Part | None:
    """``None`` where nothing finished."""
    if not (section.rows["state"] == "finished").any():
        return None
    title = "How far is it from what is possible?"
    of_genes = ceiling_table(section)
    if of_genes.empty:
        return Part(
            "ceiling",
            title,
            (
                "No noise ceiling was estimated for these slices, so it cannot be said how much of the way is left. "
                "'stbench run' writes one before it trains; run the same command again, finished trials are kept.",
            ),
        )
    of_slices = slice_ceilings(section, of_genes)
    framed = framed_scores(section, of_slices)
    best = best_entry(section, framed)
    lead = [*_finding(section, framed, best), *_meaning(section, of_slices), *_replicates(section, framed)]
    per_gene = gene_table(section, of_genes)
    pictures = []
    with canvas.drawing():
        if framed["fraction"].notna().any():
            what = "part of the way from the training mean (0 %) to the noise ceiling (100 %)"
            pictures.append(picture(section, "way", what, way_figure(section, framed)))
        if best is not None and (per_gene["entry"] == best).any():
            label = entry_label(section, best)
            what = f"each gene's r under {label} against its noise ceiling, means over slices"
            pictures.append(picture(section, "genes", what, gene_figure(section, per_gene, best)))
    frames = {
        "scores.csv": framed,
        "slices.csv": of_slices.reset_index(),
        "genes.parquet": per_gene,
        "noise.parquet": of_genes,
    }
    return Part("ceiling", title, lead, (_table(section, framed, of_slices, of_genes),), pictures, frames)


def _finding(section: Section, framed: pd.DataFrame, best: str | None) -> list[str]:
    if best is None:
        return ["No entry is complete on the slices that have a noise ceiling, so none is placed on the way to it."]
    by_metric = {row.metric: row for row in records(framed[framed["entry"] == best])}
    acg, mse = by_metric[METRIC_NAMES[0]], by_metric["mse"]
    label = str(section.entries.loc[best, "label"])
    who = f"The best method, {label}," if section.entries.loc[best, "kind"] == "method" else f"The control {label}"
    sentences = [
        f"{who} reaches {percent(acg.fraction)} of the way from the training mean to the noise ceiling of "
        f"{number(acg.ceiling, 3)} in PCC (ACG): {number(acg.value, 3)}."
    ]
    if not math.isnan(mse.fraction):
        way = (
            f"it goes {percent(mse.fraction)} of the way from {number(mse.floor, 3)} down to"
            if mse.fraction >= 0
            else f"it is worse than the training mean, {number(mse.floor, 3)}; sampling noise alone leaves"
        )
        sentences.append(f"In MSE ({number(mse.value, 3)}) {way} {number(mse.ceiling, 3)}.")
    else:
        sentences.append("Without the control training_mean the MSE has no floor, so its part of the way is not given.")
    return sentences


def _meaning(section: Section, of_slices: pd.DataFrame) -> list[str]:
    sentences = [
        "The ceiling is what a predictor would score that knows every gene's true rate at every spot, but not which "
        "molecules were caught. It is estimated by splitting each count at random into halves. It is rather too high "
        "than too low: variation that no image shows counts as reachable."
    ]
    if len(of_slices) < len(section.slices):
        without = len(section.slices) - len(of_slices)
        sentences.append(f"{without} of {len(section.slices)} slices have no ceiling yet and are left out here.")
    return sentences


def _replicates(section: Section, framed: pd.DataFrame) -> list[str]:
    """How far two sections of one patient agree, as far as unaligned sections can be compared."""
    pairs = gene_mean_agreement(section)
    same = pairs[pairs["same_patient"].astype(bool)]
    if same.empty:
        return ["No two slices here are of one patient, so the agreement between replicate sections cannot be told."]
    others = pairs[~pairs["same_patient"].astype(bool)]
    text = f"Replicate sections agree in the genes' mean levels with r = {number(same['r'].mean(), 3)} over genes"
    text += f" (sections of different patients: {number(others['r'].mean(), 3)})" if len(others) else ""
    controls = section.entries.index[section.entries["method"] == REPLICATE]
    control = framed[(framed["metric"] == METRIC_NAMES[0]) & framed["entry"].isin(controls)].dropna(subset="value")
    if control.empty:
        return [f"{text}. The control {REPLICATE}, which would show it spot by spot, has no score here."]
    row = control.iloc[0]
    return [
        f"{text}. Spot by spot a neighbouring section, read off at the same position, reaches PCC (ACG) "
        f"{number(row['value'], 3)} (control {row['label']}, {row['n_slices']} slices): it carries noise of its own."
    ]


def _table(section: Section, framed: pd.DataFrame, of_slices: pd.DataFrame, of_genes: pd.DataFrame) -> Table:
    scored = {(row.entry, row.metric): row for row in records(framed)}
    means = of_slices.mean()
    top: list[Cell] = [Cell("Noise ceiling", "")]
    for metric in METRIC_NAMES:
        top += [number_cell(means[metric]), Cell("100 %", 1.0)]

    def row(entry: str) -> tuple[Cell, ...]:
        entry_rows = framed[framed["entry"] == entry]
        finished = int(entry_rows["n_slices"].max())
        note = "" if entry_rows["complete"].any() else f"{finished}/{len(of_slices)} slices"
        label = str(section.entries.loc[entry, "label"])
        cells = [Cell(label, label.lower(), minor=note)]
        for metric in METRIC_NAMES:
            value, way = scored[entry, metric].value, scored[entry, metric].fraction
            cells += [number_cell(value), worded_cell(percent(way), way)]
        return tuple(cells)

    blocks: list[tuple[tuple[Cell, ...], ...]] = [(tuple(top),)]
    for kind in ("method", "control"):
        blocks.append(tuple(row(entry) for entry in section.entries.index[section.entries["kind"] == kind]))
    return Table(
        name="scores",
        caption=caption(section, "scores, and the part of the way from the training mean to the noise ceiling"),
        columns=("method", *(column for _ in METRIC_NAMES for column in ("score", "of the way"))),
        groups=(("", 1), *((METRICS[metric].title, 2) for metric in METRIC_NAMES)),
        blocks=tuple(blocks),
        notes=(
            "of the way: (score − floor) / (ceiling − floor), of the means over slices. Floor of the MSE: the control "
            "Training mean. Floor of the PCC: 0, the training mean's value in the strict pack, where a constant "
            "prediction counts as 0; so the PCC here is that of the strict pack. Negative: worse than the floor.",
            "Ceiling of a PCC: mean over its genes of the square root of a gene's reliability. Ceiling of the MSE: the "
            "target's sampling variance. No ceiling is known for the MAE.",
            _share_at_zero(of_genes),
        ),
    )


def _share_at_zero(of_genes: pd.DataFrame) -> str:
    scored = of_genes[of_genes["ceiling_r"].notna()]
    return (
        f"{number(100 * float(scored['at_zero'].mean()), 1)} % of all genes and slices have a ceiling of zero: the "
        "halves of their counts do not agree."
    )
