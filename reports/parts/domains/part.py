"""Whether predicted expression shows the tissue's regions: clusters against labels of regions (Figure S3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from ...figures import canvas
from ...figures.tissue import Background, backgrounds
from ...numbers.genes import shown_entries
from ...published.domains import published_domains
from ...sections.predictions import of_lowest_seed, which_seed
from ...sections.section import Section
from ...sections.trial_files import trial_table
from ...tables.cells import DASH, count_cell, number_cell
from ...tables.table import Cell, Table
from ...words.format import number
from ...words.protocol import INCOMPLETE, caption
from ..part import Context, Part, Picture, picture
from .maps import domains_figure

QUESTION = "Do predictions show the tissue's regions?"
OBSERVED = "observed"  # clusters of the measured expression
MAX_SLICES, MAX_ENTRIES = 8, 6  # of the figure
SCORES = ("ari", "nmi")


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no slice has labels of two regions at least."""
    agreement = trial_table(section, "domains.csv")
    if agreement.empty:
        return None
    runs = runs_of_clustering(agreement)
    by_slice = over_runs(runs)
    slices = [name for name in section.slices if name in set(by_slice["slice"])]
    table = over_slices(section, runs, slices)
    printed = _published(section, slices if context.compare_paper else [])
    tissue = backgrounds(section)
    tables = [_table(section, table, printed, len(slices)), _slices_table(section, by_slice, slices, printed)]
    frames = {"agreement.csv": runs, "scores.csv": table.reset_index()}
    lead = [*_lead(section, table, slices), *_missing(section, slices, tissue)]
    return Part("domains", QUESTION, lead, tables, _pictures(section, by_slice, slices, tissue), frames)


def runs_of_clustering(agreement: pd.DataFrame) -> pd.DataFrame:
    """One row for each column of the figure, slice and start of K-means: ari and nmi, means over the trials' seeds.

    ``agreement``: the trials' ``domains.csv`` with entry and seed. ``column`` is an entry, or ``observed``: the
    clusters of the truth, which are the same in every trial of a slice.
    """
    truth = agreement[agreement["of"] == "truth"].drop_duplicates(["slice", "kmeans_seed"]).assign(entry=OBSERVED)
    both = pd.concat([truth, agreement[agreement["of"] == "prediction"]]).rename(columns={"entry": "column"})
    groups = both.groupby(["column", "slice", "kmeans_seed"], sort=False)
    return groups[["k", "n_spots", *SCORES]].mean().astype({"k": int, "n_spots": int}).reset_index()


def over_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """One row per column and slice: of each score the mean, lowest and highest over starts of K-means, and start 0."""
    groups = runs.groupby(["column", "slice"], sort=False)
    table = groups[["k", "n_spots"]].first()
    first = runs[runs["kmeans_seed"] == 0].set_index(["column", "slice"])
    for score in SCORES:
        over = groups[score].agg(["mean", "min", "max"])
        columns = {score: over["mean"], f"{score}_low": over["min"], f"{score}_high": over["max"]}
        table = table.assign(**columns, **{f"{score}_first": first[score]})
    return table.reset_index()


def over_slices(section: Section, runs: pd.DataFrame, slices: Sequence[str]) -> pd.DataFrame:
    """Indexed by ``observed`` and the entries: each score as in :func:`over_runs`, of the mean over slices.

    ``n_slices``: labelled slices that have a prediction; ``complete``: all of them, by every seed.
    """
    means = runs.groupby(["column", "kmeans_seed"], sort=False)[list(SCORES)].mean().reset_index()
    table = (
        over_runs(means.assign(slice="all", k=0, n_spots=0)).set_index("column").drop(columns=["slice", "k", "n_spots"])
    )
    table = table.reindex([OBSERVED, *section.entries.index])
    table["n_slices"] = runs.groupby("column")["slice"].nunique().reindex(table.index, fill_value=0)
    finished = section.rows["state"] == "finished"
    labelled = section.rows["slice"].isin(slices)
    unfinished = set(section.rows.loc[labelled & ~finished, "entry"])
    table["complete"] = (table["n_slices"] == len(slices)) & ~table.index.isin(unfinished)
    table["label"] = [OBSERVED, *section.entries["label"]]
    table["kind"] = [OBSERVED, *section.entries["kind"]]
    return table


def _published(section: Section, slices: Sequence[str]) -> pd.DataFrame:
    """Columns method, slice, ari, nmi, source, note: what is printed of these slices; no row where nothing is."""
    table = published_domains()
    here = (table["dataset"] == section.dataset) & (table["split"] == section.split) & table["slice"].isin(slices)
    return table[here]


def _lead(section: Section, table: pd.DataFrame, slices: Sequence[str]) -> list[str]:
    oracles = section.entries.index[section.entries["oracle"]]
    fair = table[table["complete"] & ~table.index.isin(oracles) & (table.index != OBSERVED)]
    methods = fair[fair["kind"] == "method"]
    candidates = methods if len(methods) else fair
    observed = float(table["ari"].loc[OBSERVED])
    many = f"{len(slices)} labelled slice{'s' if len(slices) != 1 else ''}"
    reach = f"clusters of the measured expression reach {number(observed, 2)}"
    if candidates.empty:
        return [f"No entry is complete on the {many}; {reach} (ARI with the labels)."]
    best = candidates.sort_values("ari", ascending=False, kind="stable").iloc[0]
    what = "method" if len(methods) else "control"
    lead = [
        f"On {many}, clusters of the predictions of {best['label']} agree best of {len(candidates)} "
        f"{what}{'s' if len(candidates) != 1 else ''} with the labels: ARI {number(best['ari'], 2)} "
        f"(1: the same regions, 0: chance); {reach}."
    ]
    spread = table.loc[[OBSERVED, *candidates.index]]
    lead.append(
        "Where K-means starts is chance: over its 10 seeds the mean ARI of one and the same prediction moves by up to "
        f"{number(float((spread['ari_high'] - spread['ari_low']).max()), 2)}, and differences below that mean nothing. "
        "Labels are drawn as regions that hang together, so a prediction that is smoother than the measurement can "
        "agree better with them without knowing more."
    )
    return lead


def _missing(section: Section, slices: Sequence[str], tissue: Mapping[str, Background]) -> list[str]:
    said = []
    if len(slices) < len(section.slices):
        said.append(f"Labelled are {len(slices)} of {len(section.slices)} slices: {', '.join(slices)}.")
    if len(slices) > MAX_SLICES:
        said.append(f"Drawn are the first {MAX_SLICES} of them.")
    bare = [name for name in slices[:MAX_SLICES] if name not in tissue]
    if bare:
        said.append(f"The H&E picture is missing for {', '.join(bare)}: these results were written without it.")
    order = shown_entries(section)
    if len(order) > MAX_ENTRIES:
        left_out = ", ".join(section.entries.loc[order[MAX_ENTRIES:], "label"])
        said.append(f"Drawn are the {MAX_ENTRIES} best entries by PCC (ACG); left out: {left_out}.")
    return said


def _pictures(
    section: Section, by_slice: pd.DataFrame, slices: Sequence[str], tissue: Mapping[str, Background]
) -> list[Picture]:
    spots = trial_table(section, "domains.parquet")
    if spots.empty:
        return []
    spots = of_lowest_seed(spots)
    entries = [entry for entry in shown_entries(section) if entry in set(spots["entry"])][:MAX_ENTRIES]
    scores = _drawn_scores(section, spots)
    ground = "on the H&E image in grey" if any(name in tissue for name in slices) else "without images"
    what = (
        f"labels, and clusters (K-means from seed 0) of measured and predicted expression, {ground}; "
        f"a cluster has the colour of the label that it is matched with, each label once{which_seed(section)}"
    )
    with canvas.drawing():
        figure = domains_figure(section, spots, scores, list(slices[:MAX_SLICES]), entries, tissue)
        return [picture(section, "maps", what, figure, tissue=True)]


def _drawn_scores(section: Section, spots: pd.DataFrame) -> pd.DataFrame:
    """ari and nmi of the clusters in ``spots``, by (column, slice): of one seed, where tables hold means."""
    agreement = trial_table(section, "domains.csv")
    first = agreement[agreement["kmeans_seed"] == 0].merge(spots[["entry", "seed", "slice"]].drop_duplicates())
    column = first["entry"].where(first["of"] == "prediction", OBSERVED)
    return first.assign(column=column).drop_duplicates(["column", "slice"]).set_index(["column", "slice"])[list(SCORES)]


def _table(section: Section, table: pd.DataFrame, printed: pd.DataFrame, n_slices: int) -> Table:
    with_printed = len(printed) > 0

    def row(name: str, scores: pd.Series) -> tuple[Cell, ...]:
        mark = "" if scores["complete"] else f" {INCOMPLETE}"
        cells = [
            Cell(scores["label"], scores["label"].lower()),
            Cell(f"{scores['n_slices']}/{n_slices}{mark}", float(scores["n_slices"])),
        ]
        for score in SCORES:
            cells += [_value(scores, score), number_cell(scores[f"{score}_first"], 3)]
        if with_printed:
            method = OBSERVED if name == OBSERVED else str(section.entries.loc[name, "method"])
            of_method = printed[printed["method"] == method]
            cells += [
                Cell("") if of_method.empty else number_cell(float(of_method[score].mean()), 3) for score in SCORES
            ]
        return tuple(cells)

    blocks = [
        tuple(row(str(name), scores) for name, scores in table[table["kind"] == kind].iterrows())
        for kind in (OBSERVED, "method", "control")
    ]
    columns = ["method", "slices", *(head for score in ("ARI", "NMI") for head in (score, f"{score}, seed 0"))]
    notes = [
        "ARI: adjusted Rand index, NMI: normalised mutual information (arithmetic), of clusters and labels; mean over "
        "slices. Spots labelled undetermined are removed, then PCA (9 components, centred, not scaled) and K-means "
        "(k-means++, best of 10 starts) into as many clusters as labels are left. First column: mean over 10 seeds of "
        "K-means, with the lowest and highest; seed 0 alone is what the paper prints."
    ]
    if with_printed:
        columns += ["ARI printed", "NMI printed"]
        notes.append(
            f"Printed: {'; '.join(printed['source'].unique())}, over "
            f"{printed['slice'].nunique()} of the slices here. "
            + "; ".join(note for note in printed["note"].unique() if note)
        )
    if not table["complete"].all():
        notes.append(f"{INCOMPLETE} not every labelled slice and seed has finished.")
    return Table(
        name="domains",
        caption=caption(section, f"agreement of clusters with labels on {n_slices} labelled slices"),
        columns=tuple(columns),
        blocks=tuple(block for block in blocks if block),
        notes=tuple(notes),
    )


def _slices_table(section: Section, by_slice: pd.DataFrame, slices: Sequence[str], printed: pd.DataFrame) -> Table:
    """ARI of every slice, lowest and highest over K-means' seeds below it; printed values where they are compared."""
    columns = [OBSERVED, *section.entries.index[section.entries.index.isin(by_slice["column"])]]
    cells = by_slice.set_index(["column", "slice"])
    rows = []
    for name in slices:
        about = cells.xs(name, level="slice").iloc[0]
        row = [Cell(name, name), count_cell(about["n_spots"]), count_cell(about["k"])]
        for column in columns:
            if (column, name) not in cells.index:
                row.append(Cell(DASH))
                continue
            method = OBSERVED if column == OBSERVED else str(section.entries.loc[column, "method"])
            there = printed.loc[(printed["method"] == method) & (printed["slice"] == name), "ari"]
            extra = f"printed {number(float(there.iloc[0]), 3)}" if len(there) else ""
            row.append(_value(cells.loc[(column, name)], "ari", extra))
        rows.append(tuple(row))
    labels = section.entries["label"]
    return Table(
        name="slices",
        caption=caption(section, "ARI of every labelled slice"),
        columns=("slice", "labelled spots", "regions", *(labels.get(column, column) for column in columns)),
        blocks=(tuple(rows),),
        notes=("Mean over 10 seeds of K-means (and over the trials' seeds), lowest and highest in brackets.",),
    )


def _value(scores: pd.Series, score: str, extra: str = "") -> Cell:
    value = scores[score]
    if math.isnan(value):
        return Cell(DASH)
    span = f"{number(scores[f'{score}_low'], 2)} to {number(scores[f'{score}_high'], 2)}"
    return Cell(number(value, 3), float(value), minor=", ".join(filter(None, (span, extra))))
