"""The page's view of every gene: mean r of each entry, small enough to stand inside the page and be searched there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stbench.scores.ceiling import read_ceiling

from ..sections.section import Section
from ..sections.trial_files import evidence


def gene_view(section: Section) -> dict[str, Any] | None:
    """``genes``: names; ``columns``: what stands beside them; ``values``: for each column a number a gene, or None.

    An entry's number is the mean of r over the seeds of each slice, then over the slices where it is defined; the
    genes are in the order of the best mean. ``None`` where no finished trial has a per-gene table.
    """
    table = per_gene(section)
    if table.empty:
        return None
    labels = section.entries.loc[table.columns, "label"]
    best = table[section.entries.index[section.entries["kind"] == "method"].intersection(table.columns)]
    order = (best if len(best.columns) else table).max(axis=1).sort_values(ascending=False, kind="stable").index
    table = table.loc[order]
    columns = {str(label): table[entry] for entry, label in labels.items()}
    ceiling = _ceiling(section)
    if ceiling is not None:
        columns["noise ceiling"] = ceiling.reindex(order)
    return {
        "genes": [str(gene) for gene in order],
        "columns": list(columns),
        "values": [
            [None if np.isnan(value) else round(float(value), 3) for value in column] for column in columns.values()
        ],
    }


def per_gene(section: Section) -> pd.DataFrame:
    """Genes by entries: the mean of r over the seeds of each slice, then over slices; entries in the table's order."""
    known = section.genes.dropna(subset=["r"])
    if known.empty:
        return pd.DataFrame()
    over_seeds = known.groupby(["entry", "gene", "slice"], sort=False, observed=True)["r"].mean()
    means = over_seeds.groupby(level=["entry", "gene"], sort=False).mean().reset_index()
    table = means.pivot_table(index="gene", columns="entry", values="r")
    return table[[entry for entry in section.entries.index if entry in table.columns]]


def _ceiling(section: Section) -> pd.Series | None:
    files = evidence(section, f"ceiling-{section.dataset}-{section.target}.parquet")
    if not files:
        return None
    table = pd.concat([read_ceiling(path) for path in files], ignore_index=True)
    table = table[table["slice"].astype(str).isin(section.slices)].drop_duplicates(["slice", "gene"])
    return table.groupby("gene", observed=True)["ceiling_r"].mean()
