"""How much of what can be reached each entry reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from stbench.scores.ceiling import read_ceiling

from ...numbers.genes import gene_cube
from ...numbers.means import slice_scores
from ...sections.section import Section
from ...sections.trial_files import evidence

if TYPE_CHECKING:
    pass
METRIC_NAMES = ("strict_pcc_acg", "strict_pcc_heg", "mse")

FLOOR = "training_mean"
REPLICATE = "nearest_replicate"


def ceiling_table(section: Section) -> pd.DataFrame:
    """The rows of :func:`stbench.scores.ceiling.write_ceiling` for the section's slices; empty where no run has any."""
    paths = evidence(section, f"ceiling-{section.dataset}-{section.target}.parquet")
    if not paths:
        return pd.DataFrame()
    table = pd.concat([read_ceiling(path) for path in paths], ignore_index=True).drop_duplicates(["slice", "gene"])
    return table[table["slice"].isin(section.slices)].reset_index(drop=True)


def slice_ceilings(section: Section, of_genes: pd.DataFrame) -> pd.DataFrame:
    """One row per slice that has ceilings, a column per metric: the best value that sampling noise lets anyone reach.

    Each over the genes that the metric is over: those that vary in truth; of these the highly expressed ones of the
    training slices (NaN where the trials did not record which those are); all, for the MSE.
    """
    grouped = of_genes.groupby("slice", sort=False)
    columns = {"strict_pcc_acg": grouped["ceiling_r"].mean(), "mse": grouped["mse_floor"].mean()}
    if "strict_heg" in section.genes:
        chosen = section.genes.loc[section.genes["strict_heg"].eq(True), ["slice", "gene"]].drop_duplicates()
        highest = of_genes.merge(chosen, on=["slice", "gene"])
        columns["strict_pcc_heg"] = highest.groupby("slice")["ceiling_r"].mean()
    table = pd.DataFrame(columns).reindex(columns=list(METRIC_NAMES))
    known = [name for name in section.slices if name in table.index]
    return table.loc[known].rename_axis("slice")


def framed_scores(section: Section, of_slices: pd.DataFrame) -> pd.DataFrame:
    """One row for each entry and metric: ``value``, ``floor``, ``ceiling``, ``fraction``, ``n_slices``, ``complete``.

    Means over the slices that the entry has finished and that have a ceiling; ``complete``: it finished every trial.
    The floor is the training mean's score on the same slices; of a correlation it is 0, because a constant prediction
    counts as 0.
    """
    scores = slice_scores(section.rows)
    scores = scores[scores["slice"].isin(of_slices.index)]
    unfinished = set(section.rows.loc[section.rows["state"] != "finished", "entry"])
    controls = section.entries.index[section.entries["method"] == FLOOR]
    grids = {metric: scores.pivot_table(index="slice", columns="entry", values=metric) for metric in METRIC_NAMES}
    rows = []
    for entry in section.entries.index:
        for metric, grid in grids.items():
            value = grid[entry].dropna() if entry in grid else pd.Series(dtype=float)
            floor = np.nan if metric == "mse" else 0.0
            if metric == "mse" and len(controls) and controls[0] in grid:
                floor = grid[controls[0]].reindex(value.index).mean(skipna=False)
            ceiling = of_slices[metric].reindex(value.index).mean(skipna=False)
            mean = value.mean()
            rows.append(
                {
                    "entry": entry,
                    "label": section.entries.loc[entry, "label"],
                    "metric": metric,
                    "value": mean,
                    "floor": floor,
                    "ceiling": ceiling,
                    "fraction": fraction(mean, floor, ceiling),
                    "n_slices": len(value),
                    "complete": entry not in unfinished and len(value) == len(of_slices),
                }
            )
    return pd.DataFrame(rows)


def fraction(value: float, floor: float, ceiling: float) -> float:
    """The part of the way from ``floor`` to ``ceiling`` that ``value`` has gone; negative: worse than the floor.

    Also where lower is better. NaN where floor and ceiling are one, or one is not known.
    """
    return float((value - floor) / (ceiling - floor)) if ceiling != floor else float("nan")


def best_entry(section: Section, framed: pd.DataFrame) -> str | None:
    """The complete method of highest PCC (ACG); where no method is complete, the best control that is no oracle."""
    scores = framed[(framed["metric"] == METRIC_NAMES[0]) & framed["complete"]].set_index("entry")["value"].dropna()
    entries = section.entries.loc[scores.index]
    for kind in ("method", "control"):
        fair = scores[(entries["kind"] == kind) & ~entries["oracle"]]
        if len(fair):
            return str(fair.idxmax())
    return None


def gene_table(section: Section, of_genes: pd.DataFrame) -> pd.DataFrame:
    """One row for each entry and gene: ``r`` (mean over seeds, then slices; a constant prediction counts as 0),
    ``ceiling_r`` over the same slices, and ``n_slices``."""
    cube = gene_cube(section)
    columns = ["entry", "gene", "r", "ceiling_r", "n_slices"]
    if cube is None:
        return pd.DataFrame(columns=columns)
    grid = of_genes.pivot_table(index="slice", columns="gene", values="ceiling_r")
    ceiling = grid.reindex(index=list(cube.slices), columns=list(cube.genes)).to_numpy(dtype=float)
    known = ~np.isnan(cube.strict_r) & ~np.isnan(ceiling)
    count = known.sum(axis=1)
    with np.errstate(invalid="ignore"):
        values = {
            "r": np.where(known, cube.strict_r, 0).sum(axis=1) / count,
            "ceiling_r": np.where(known, ceiling, 0).sum(axis=1) / count,
            "n_slices": count,
        }
    index = pd.MultiIndex.from_product([cube.entries, cube.genes], names=["entry", "gene"])
    table = pd.DataFrame({name: value.ravel() for name, value in values.items()}, index=index).reset_index()
    return table.loc[table["n_slices"] > 0, columns].reset_index(drop=True)


def gene_mean_agreement(section: Section) -> pd.DataFrame:
    """One row per pair of slices: slice, other, ``same_patient``, ``r`` over genes of the mean truths of the two.

    Sections are not aligned, so only such means can be compared directly. Empty where the trials did not record them.
    """
    if "mean_truth" not in section.genes or len(section.slices) < 2:
        return pd.DataFrame({"slice": [], "other": [], "same_patient": [], "r": []})
    once = section.genes.drop_duplicates(["slice", "gene"])
    means = once.pivot_table(index="gene", columns="slice", values="mean_truth").reindex(columns=list(section.slices))
    r = np.corrcoef(means.dropna().to_numpy(dtype=float), rowvar=False)
    first, second = np.triu_indices(len(section.slices), 1)
    patient = np.array([section.patients.get(name, "") for name in section.slices])
    same = (patient[first] == patient[second]) & (patient[first] != "")
    names = np.array(section.slices)
    return pd.DataFrame({"slice": names[first], "other": names[second], "same_patient": same, "r": r[first, second]})
