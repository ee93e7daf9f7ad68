"""Every gene's correlation on every slice under every entry, and the genes ranked by it (Tables S2 and S3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from stbench.scores.correlation import neg_log10_p

from ..sections.section import Section
from .means import board_of


@dataclass(frozen=True)
class GeneCube:
    """Means over seeds; arrays are (n_entries, n_slices, n_genes) float64, NaN where no seed has a value.

    ``evidence``: -log10 of the two-sided p of r over the slice's spots.
    """

    entries: tuple[str, ...]
    slices: tuple[str, ...]
    genes: tuple[str, ...]
    r: np.ndarray
    strict_r: np.ndarray
    evidence: np.ndarray

    def of(self, entry: str) -> int:
        return self.entries.index(entry)


def gene_cube(section: Section) -> GeneCube | None:
    """``None`` where no trial has a per-gene table.

    p is computed anew from r, because it is 0 in the trials' tables where it left float64's range.
    """
    table = section.genes
    if table.empty:
        return None
    genes = tuple(table["gene"].unique())  # in the order of the panel
    shape = (len(section.entries), len(section.slices), len(genes))
    place = np.ravel_multi_index(
        (
            _codes(table["entry"], section.entries.index),
            _codes(table["slice"], section.slices),
            _codes(table["gene"], genes),
        ),
        shape,
    )
    r = table["r"].to_numpy(dtype=float)
    n_spots = table["slice"].map(section.rows.groupby("slice")["n_spots"].max()).to_numpy(dtype=float)
    evidence = np.full(len(r), np.nan)
    for n in np.unique(n_spots[~np.isnan(n_spots)]):
        here = n_spots == n
        evidence[here] = neg_log10_p(r[here], int(n))
    strict_r = table["strict_r"].to_numpy(dtype=float) if "strict_r" in table else r
    return GeneCube(
        entries=tuple(section.entries.index),
        slices=section.slices,
        genes=genes,
        r=_means(r, place, shape),
        strict_r=_means(strict_r, place, shape),
        evidence=_means(evidence, place, shape),
    )


def _codes(values: pd.Series, categories: Sequence[str] | pd.Index) -> np.ndarray:
    return pd.Categorical(values, categories=list(categories)).codes.astype(np.int64)


def _means(values: np.ndarray, place: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mean of the known values at each place; NaN where there is none."""
    known = ~np.isnan(values)
    size = int(np.prod(shape))
    total = np.bincount(place[known], weights=values[known], minlength=size)
    count = np.bincount(place[known], minlength=size)
    with np.errstate(invalid="ignore"):
        return (total / count).reshape(shape)


def ranking(cube: GeneCube) -> pd.DataFrame:
    """Each entry's genes by mean -log10 p over slices, those without a value skipped (Tables S2 and S3).

    One row for each entry and gene that has a value at all, best first within an entry: ``entry``, ``rank`` (from 1;
    equal genes in the order of the panel), ``gene``, ``mean_neg_log10_p``, ``mean_r``, ``n_slices`` (with a value) and
    ``share_positive`` (of these, where r > 0).
    """
    known = ~np.isnan(cube.r)
    n_slices = known.sum(axis=1)
    with np.errstate(invalid="ignore"):
        columns = {
            "mean_neg_log10_p": np.nansum(cube.evidence, axis=1) / n_slices,
            "mean_r": np.nansum(cube.r, axis=1) / n_slices,
            "n_slices": n_slices,
            "share_positive": (cube.r > 0).sum(axis=1) / n_slices,
        }
    index = pd.MultiIndex.from_product([cube.entries, cube.genes], names=["entry", "gene"])
    table = pd.DataFrame({name: values.ravel() for name, values in columns.items()}, index=index).reset_index()
    table = table[table["n_slices"] > 0].sort_values("mean_neg_log10_p", ascending=False, kind="stable")
    table["rank"] = table.groupby("entry").cumcount() + 1
    order = {entry: place for place, entry in enumerate(cube.entries)}
    table = table.sort_values("entry", key=lambda names: names.map(order), kind="stable").reset_index(drop=True)
    return table[["entry", "rank", "gene", "mean_neg_log10_p", "mean_r", "n_slices", "share_positive"]]


def shown_entries(section: Section) -> list[str]:
    """The entries that pictures of genes and tissue show, best PCC (ACG) first, the incomplete ones last.

    Methods; where no method was run, the controls that see no more than a method may.
    """
    board = board_of(section)
    board = board[(board["n_slices"] > 0) & ~board["oracle"]]
    shown = board[board["kind"] == "method"] if (board["kind"] == "method").any() else board
    shown = shown.sort_values("pcc_acg", ascending=False, kind="stable", na_position="last")
    return list(shown.sort_values("complete", ascending=False, kind="stable").index)
