"""The arithmetic of every table: means over seeds, then over slices; what is missing is counted, not skipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stbench.scores import exchange

from ..sections.section import Section
from .metrics import METRICS


def slice_scores(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each entry and slice that a seed finished on: ``n_seeds`` and each metric's mean over those seeds.

    ``rows``: one a trial and slice, with ``entry``, ``seed``, ``slice``, ``state`` and the metrics. A metric that is
    undefined (NaN) for one of the seeds is undefined for the slice.
    """
    finished = rows[rows["state"] == "finished"]
    grouped = finished.groupby(["entry", "slice"], sort=False)
    means = grouped[list(METRICS)].agg(_mean_of_all)
    return means.assign(n_seeds=grouped["seed"].nunique()).reset_index()


def leaderboard(rows: pd.DataFrame, entries: pd.DataFrame, slices: Sequence[str]) -> pd.DataFrame:
    """One row for each entry, in the order of ``entries`` (indexed by entry; columns ``kind``, ...), its columns kept.

    Added: ``n_slices`` (slices finished, of ``of_slices``), ``n_trials`` and ``of_trials`` (slice and seed),
    ``n_seeds``, ``complete`` (every slice of the section with every planned seed), and for each metric M: ``M`` (mean
    over slices of the mean over seeds), ``M_sd`` (standard deviation over slices, n - 1), ``M_slices`` (slices on
    which it is defined), ``M_sd_seeds`` (standard deviation, n - 1, over seeds of the mean over slices; only seeds
    with all of those slices; NaN for fewer than two) and ``M_best`` (best of the methods that have it on every slice).
    """
    by_slice = slice_scores(rows)
    board = entries.copy()
    finished = rows[rows["state"] == "finished"]
    for name, table in (("n_trials", finished), ("of_trials", rows)):
        board[name] = table.groupby("entry").size().reindex(board.index, fill_value=0)
    board["n_seeds"] = rows.groupby("entry")["seed"].nunique().reindex(board.index, fill_value=0)
    board["n_slices"] = by_slice.groupby("entry")["slice"].nunique().reindex(board.index, fill_value=0)
    board["of_slices"] = len(slices)
    board["complete"] = (board["n_slices"] == len(slices)) & (board["n_trials"] == len(slices) * board["n_seeds"])
    over_seeds = seed_deviations(finished)
    for metric in METRICS.values():
        values = by_slice.groupby("entry")[metric.name]
        board[metric.name] = values.mean().reindex(board.index)
        board[f"{metric.name}_sd"] = values.std(ddof=1).reindex(board.index)
        board[f"{metric.name}_slices"] = values.count().reindex(board.index, fill_value=0)
        board[f"{metric.name}_sd_seeds"] = over_seeds[metric.name].reindex(board.index)
        ranked = board.loc[(board["kind"] == "method") & eligible(board, metric.name), metric.name]
        best = (ranked.max() if metric.higher_is_better else ranked.min()) if len(ranked) else np.nan
        board[f"{metric.name}_best"] = board.index.isin(ranked.index) & (board[metric.name] == best)
    return board


def board_of(section: Section) -> pd.DataFrame:
    """:func:`leaderboard` of a section, computed once and lent to everybody: nobody may change it in place."""
    board: pd.DataFrame | None = section.derived.get("board")
    if board is None:
        board = section.derived["board"] = leaderboard(section.rows, section.entries, section.slices)
    return board


def eligible(board: pd.DataFrame, metric: str) -> pd.Series:
    """Entries that may be compared in ``metric``: complete, and the metric is defined on every slice.

    A method that is shown the truth (a leak) may not; oracle controls are set apart by whoever ranks controls.
    """
    fair = ~(board["oracle"].astype(bool) & (board["kind"] == "method"))
    return fair & board["complete"] & (board[f"{metric}_slices"] == board["of_slices"])


def seed_deviations(finished: pd.DataFrame) -> pd.DataFrame:
    """Standard deviation (n - 1) over seeds of the mean over slices: a row per entry, a column per metric.

    A seed that lacks a slice that another seed of the entry has, or has the metric undefined there, would compare
    different slices and is left out. NaN for fewer than two seeds.
    """
    scores = finished.groupby(["entry", "seed", "slice"])[list(METRICS)].mean()
    columns = {}
    for metric in METRICS:
        grid = scores[metric].unstack("slice")  # noqa: PD010 - no averaging
        known = grid.notna()
        has_all = (known | ~known.groupby("entry").transform("any")).all(axis=1)
        columns[metric] = grid[has_all].mean(axis=1).groupby("entry").std(ddof=1)
    return pd.DataFrame(columns)


def with_published(board: pd.DataFrame, published: pd.DataFrame, dataset: str, split: str) -> pd.DataFrame:
    """Add ``M_published`` and ``M_published_spread`` where a paper printed the number for this dataset and split."""
    out = board.copy()
    here = published[(published["dataset"] == dataset) & (published["split"] == split)]
    for metric in METRICS:
        printed = here[here["metric"] == metric].set_index("method")
        if len(printed):
            out[f"{metric}_published"] = out["method"].map(printed["mean"])
            out[f"{metric}_published_spread"] = out["method"].map(printed["spread"])
    return out


def exchange_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row for each entry and slice whose patches were exchanged, means over the seeds that have it.

    Columns: entry, slice, ``n_seeds``, ``pcc_acg`` and ``strict_pcc_acg`` as they are, and those of
    :mod:`stbench.scores.exchange`. Undefined (NaN) for one of the seeds is undefined for the slice.
    """
    # the strict number is there whenever patches were exchanged, also where a constant prediction has no other
    asked = rows[(rows["state"] == "finished") & rows["exchanged_strict_pcc_acg"].notna()]
    grouped = asked.groupby(["entry", "slice"], sort=False)
    means = grouped[["pcc_acg", "strict_pcc_acg", *exchange.COLUMNS]].agg(_mean_of_all)
    means.insert(0, "n_seeds", grouped["seed"].nunique())
    return means.reset_index()


def over_exchanged_slices(by_slice: pd.DataFrame, entries: pd.Index) -> pd.DataFrame:
    """One row per entry: the means of :func:`exchange_table` over slices, and ``exchanged_slices``, how many they are.

    PCC (ACG) as it is and with exchanged patches are of the same slices: those on which both are defined.
    """
    pair = ["pcc_acg", "exchanged_pcc_acg"]
    known = by_slice[pair].notna().all(axis=1)
    table = by_slice.assign(**{name: by_slice[name].where(known) for name in pair})
    grouped = table.groupby("entry")
    means = grouped[["pcc_acg", "strict_pcc_acg", *exchange.COLUMNS]].mean().reindex(entries)
    return means.assign(exchanged_slices=grouped["slice"].nunique().reindex(entries, fill_value=0))


def with_exchanged(board: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """Add to a leaderboard what the image contributes: ``exchange.COLUMNS`` and ``exchanged_slices``."""
    means = over_exchanged_slices(exchange_table(rows), board.index)
    return board.join(means[[*exchange.COLUMNS, "exchanged_slices"]])


def slice_table(section: Section) -> pd.DataFrame:
    """One row for each entry and test slice of the section, in the table's order, also where nothing finished.

    Columns: entry, label, method, kind, slice, patient, n_spots, n_genes, n_constant_truth, n_constant_prediction,
    n_seeds, of_seeds and the metrics (means over seeds).
    """
    rows = section.rows
    index = pd.MultiIndex.from_product([section.entries.index, section.slices], names=["entry", "slice"])
    scores = slice_scores(rows).set_index(["entry", "slice"]).reindex(index)
    counts = rows.groupby(["entry", "slice"])[["n_constant_truth", "n_constant_prediction"]].max().reindex(index)
    table = scores.join(counts).reset_index()
    table["n_seeds"] = table["n_seeds"].fillna(0).astype(int)
    table["of_seeds"] = table["entry"].map(rows.groupby("entry")["seed"].nunique())
    sizes = rows.groupby("slice")[["n_spots", "n_genes"]].max()
    for name in ("n_spots", "n_genes"):
        table[name] = table["slice"].map(sizes[name])
    table["patient"] = table["slice"].map(section.patients).fillna("")
    for name in ("label", "method", "kind"):
        table[name] = table["entry"].map(section.entries[name])
    columns = ["entry", "label", "method", "kind", "slice", "patient", "n_spots", "n_genes", "n_constant_truth"]
    return table[[*columns, "n_constant_prediction", "n_seeds", "of_seeds", *METRICS]]


def trial_table(section: Section) -> pd.DataFrame:
    """One row for each trial: what it was, its state and reason, time and memory; the unfinished ones first."""
    rows = section.rows
    names = [
        "key",
        "entry",
        "method",
        "preset",
        "variant",
        "weights",
        "seed",
        "fold",
        "state",
        "reason",
        "fit_s",
        "predict_s",
    ]
    names += ["peak_mem_mb", "n_parameters", "device", "precision", "tf32", "compiled"]
    table = rows.drop_duplicates("key")[names].copy()
    table.insert(2, "label", table["entry"].map(section.entries["label"]))
    slices = rows.groupby("key", sort=False)["slice"].agg(" ".join)
    table.insert(list(table.columns).index("fold") + 1, "slices", table["key"].map(slices))
    order = {name: place for place, name in enumerate(section.entries.index)}
    return (
        table.assign(_done=table["state"] == "finished", _place=table["entry"].map(order))
        .sort_values(["_done", "_place"], kind="stable")
        .drop(columns=["_done", "_place"])
        .reset_index(drop=True)
    )


def replicates(section: Section) -> pd.DataFrame:
    """One row for each test slice: slice, patient, fold, ``same_patient``.

    ``same_patient`` is the number of training slices of the same patient (NaN: not recorded).
    """
    table = section.rows.drop_duplicates("slice").set_index("slice").reindex(section.slices)
    return pd.DataFrame(
        {
            "slice": section.slices,
            "patient": [section.patients.get(name, "") for name in section.slices],
            "fold": table["fold"].to_numpy(),
            "same_patient": table["same_patient_training_slices"].to_numpy(),
        }
    )


def seed_means(genes: pd.DataFrame) -> pd.DataFrame:
    """One row per entry, slice and gene: ``r``, the mean over seeds; undefined genes are left out."""
    known = genes.dropna(subset="r")
    return known.groupby(["entry", "slice", "gene"], sort=False, observed=True)["r"].mean().reset_index()


def box_statistics(genes: pd.DataFrame) -> pd.DataFrame:
    """What a box plot over genes shows for each entry and slice; ``genes``: entry, seed, slice, gene, r.

    A gene's r is its mean over seeds; ``q1``, ``median``, ``q3`` are over genes, ``low`` and ``high`` the most extreme
    genes within 1.5 interquartile ranges of the box (Tukey). ``mean`` is the mean over genes for each seed, then over
    seeds: the PCC (ACG) of the tables. Undefined genes are left out and ``n_genes`` counts the others; no gene left,
    no row.
    """
    known = genes.dropna(subset="r")
    box = ["entry", "slice"]
    per_gene = seed_means(genes)
    over_genes = per_gene.groupby(box, sort=False)["r"]
    boxes = pd.DataFrame({name: over_genes.quantile(q) for name, q in (("q1", 0.25), ("median", 0.5), ("q3", 0.75))})
    placed = per_gene.join(boxes, on=box)
    reach = 1.5 * (placed["q3"] - placed["q1"])
    inside = placed[placed["r"].between(placed["q1"] - reach, placed["q3"] + reach)].groupby(box, sort=False)["r"]
    means = known.groupby([*box, "seed"], sort=False)["r"].mean().groupby(level=box, sort=False).mean()
    return boxes.assign(low=inside.min(), high=inside.max(), mean=means, n_genes=over_genes.size()).reset_index()


def _mean_of_all(values: pd.Series) -> float:
    return float(values.mean(skipna=False))
