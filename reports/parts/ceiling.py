"""Where a score stands between what needs no image, the training mean, and what sampling noise lets anyone reach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from stbench.ceiling import read_ceiling

from .. import figures
from ..figures import draw_marks, section_marks
from ..gene_scores import entry_label, gene_cube
from ..layout import caption
from ..load import Section, evidence, records
from ..part import Context, Part, picture
from ..style import BAND, FAINT, INK, SMALL, TEXT, WIDTH, Mark
from ..tables import METRICS, slice_scores
from ..typeset import Cell, Table, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FLOOR = "training_mean"
REPLICATE = "nearest_replicate"
METRIC_NAMES = ("strict_pcc_acg", "strict_pcc_heg", "mse")
TITLES = {"strict_pcc_acg": "PCC (ACG)", "strict_pcc_heg": "PCC (HEG)", "mse": "MSE"}
NAMED_GENES = 4  # best predicted ones, and as many that are furthest from their ceiling
GENE_LINE = 0.05  # of r: the height of a name
LOWEST_SHOWN = -0.5  # of the way; what lies below stands at the edge, with its number


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
    with figures.drawing():
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


def ceiling_table(section: Section) -> pd.DataFrame:
    """The rows of :func:`stbench.ceiling.write_ceiling` for the section's slices; empty where no run has them."""
    paths = evidence(section, f"ceiling-{section.dataset}-{section.target}.parquet")
    if not paths:
        return pd.DataFrame()
    table = pd.concat([read_ceiling(path) for path in paths], ignore_index=True).drop_duplicates(["slice", "gene"])
    return table[table["slice"].isin(section.slices)].reset_index(drop=True)


def slice_ceilings(section: Section, of_genes: pd.DataFrame) -> pd.DataFrame:
    """One row a slice that has ceilings, a column a metric: the best value that sampling noise lets anyone reach.

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
                    **{"entry": entry, "label": section.entries.loc[entry, "label"], "metric": metric},
                    **{"value": mean, "floor": floor, "ceiling": ceiling, "fraction": fraction(mean, floor, ceiling)},
                    **{"n_slices": len(value), "complete": entry not in unfinished and len(value) == len(of_slices)},
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
    table = pd.DataFrame({name: of.ravel() for name, of in values.items()}, index=index).reset_index()
    return table.loc[table["n_slices"] > 0, columns].reset_index(drop=True)


def gene_mean_agreement(section: Section) -> pd.DataFrame:
    """One row a pair of slices: slice, other, ``same_patient``, ``r`` over genes of the mean truths of the two.

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


def _finding(section: Section, framed: pd.DataFrame, best: str | None) -> list[str]:
    if best is None:
        return ["No entry is complete on the slices that have a noise ceiling, so none is placed on the way to it."]
    of = {row.metric: row for row in records(framed[framed["entry"] == best])}
    acg, mse = of[METRIC_NAMES[0]], of["mse"]
    label = str(section.entries.loc[best, "label"])
    who = f"The best method, {label}," if section.entries.loc[best, "kind"] == "method" else f"The control {label}"
    sentences = [
        f"{who} reaches {percent(acg.fraction)} of the way from the training mean to the noise ceiling of "
        f"{number(acg.ceiling, 3)} in PCC (ACG): {number(acg.value, 3)}."
    ]
    if mse.fraction == mse.fraction:
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
    control = framed[(framed["metric"] == METRIC_NAMES[0]) & framed["entry"].str.startswith(f"{REPLICATE}/")]
    control = control.dropna(subset="value")
    if control.empty:
        return [f"{text}. The control {REPLICATE}, which would show it spot by spot, has no score here."]
    row = control.iloc[0]
    return [
        f"{text}. Spot by spot a neighbouring section, read off at the same position, reaches PCC (ACG) "
        f"{number(row['value'], 3)} (control {row['label']}, {row['n_slices']} slices): it carries noise of its own."
    ]


def percent(value: float) -> str:
    """``34 %``, with a true minus sign; a dash where it is undefined."""
    return "–" if value != value else f"{round(100 * value)} %".replace("-", "−")


def _table(section: Section, framed: pd.DataFrame, of_slices: pd.DataFrame, of_genes: pd.DataFrame) -> Table:
    of = {(row.entry, row.metric): row for row in records(framed)}
    means = of_slices.mean()
    top: list[Cell] = [Cell("Noise ceiling", "")]
    for metric in METRIC_NAMES:
        top += [Cell(number(means[metric]), _sortable(means[metric])), Cell("100 %", 1.0)]

    def row(entry: str) -> tuple[Cell, ...]:
        entry_rows = framed[framed["entry"] == entry]
        finished = int(entry_rows["n_slices"].max())
        note = "" if entry_rows["complete"].any() else f"{finished}/{len(of_slices)} slices"
        label = str(section.entries.loc[entry, "label"])
        cells = [Cell(label, label.lower(), minor=note)]
        for metric in METRIC_NAMES:
            value, way = of[entry, metric].value, of[entry, metric].fraction
            cells += [Cell(number(value), _sortable(value)), Cell(percent(way), _sortable(way))]
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


def _sortable(value: float) -> float | None:
    return None if value != value else float(value)


def way_figure(section: Section, framed: pd.DataFrame) -> Figure:
    """One panel a metric, one row an entry: how far it has come from the training mean, 0, to the ceiling, 1."""
    from matplotlib.figure import Figure

    drawn = [metric for metric in METRIC_NAMES if framed.loc[framed["metric"] == metric, "fraction"].notna().any()]
    entries = list(section.entries.index)
    figure = Figure(figsize=(WIDTH, 1.5 + 0.27 * len(entries)), layout="constrained")
    figure.suptitle(f"{section.title}, {section.coverage}", x=0.01, ha="left")
    all_axes = figure.subplots(1, len(drawn), sharey=True, squeeze=False)[0]
    for axes, metric in zip(all_axes, drawn, strict=True):
        _draw_way(axes, section, framed[framed["metric"] == metric].set_index("entry"))
        axes.set_title(TITLES[metric], loc="left")
    all_axes[0].set_yticks(range(len(entries)), [entry_label(section, entry) for entry in entries])
    all_axes[0].set_ylim(len(entries) - 0.4, -0.6)
    layout = figure.get_layout_engine()
    assert layout is not None
    layout.set(wspace=0.06)  # type: ignore[call-arg]  # room between the last tick of a panel and the first of the next
    figure.supxlabel("of the way from the training mean to the noise ceiling", fontsize=TEXT)
    return figure


def _draw_way(axes: Axes, section: Section, of: pd.DataFrame) -> None:
    axes.axvspan(0, 1, color=BAND, lw=0, zorder=0)
    axes.axvline(0, color=FAINT, lw=0.8, zorder=1)
    axes.axvline(1, color=INK, lw=1.0, zorder=1)
    table = of.reindex(section.entries.index).rename_axis("entry").reset_index()
    table = table.assign(place=range(len(table)), at=table["fraction"].clip(lower=LOWEST_SHOWN))
    known = table.dropna(subset="fraction")
    axes.hlines(known["place"], 0, known["at"], color=FAINT, lw=1.2, zorder=2)
    beyond = known["fraction"] < LOWEST_SHOWN
    look = section_marks(section)
    draw_marks(axes, known[~beyond], "at", "place", look, size=50, zorder=3)
    draw_marks(axes, known[beyond], "at", "place", {entry: Mark(of.colour, "<") for entry, of in look.items()}, 50, 3)
    for row in records(known):
        axes.annotate(
            percent(row.fraction),
            (max(row.at, 0.0), row.place),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL,
        )
    for row in records(table[table["fraction"].isna()]):
        axes.text(0.02, row.place, "no value", va="center", fontsize=SMALL, color=FAINT)
    axes.set(xlabel="", ylabel="")
    lowest = of["fraction"].clip(lower=LOWEST_SHOWN).min()
    low, high = min(-0.06, lowest - 0.08), max(1.06, of["fraction"].max() + 0.3)
    axes.set_xlim(low, high)
    ticks = [0, 0.5, 1] if high - low < 1.3 else [0, 1]  # where the range is wide, three would touch
    axes.set_xticks(ticks, [percent(tick) for tick in ticks])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def gene_figure(section: Section, per_gene: pd.DataFrame, entry: str) -> Figure:
    """A dot a gene: its ceiling along x, the entry's r along y; on the diagonal nothing would be left to gain."""
    import seaborn as sns
    from matplotlib.figure import Figure

    of = per_gene[per_gene["entry"] == entry]
    mark = section_marks(section)[entry]
    figure = Figure(figsize=(WIDTH, 6.0), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=INK, lw=0.9, zorder=1)
    axes.axhline(0, color=FAINT, lw=0.8, zorder=1)
    dots = {"color": mark.colour, "edgecolor": INK, "linewidth": 0.3, "s": 26, "alpha": 0.75, "zorder": 2}
    sns.scatterplot(data=of, x="ceiling_r", y="r", legend=False, ax=axes, **dots)
    axes.set_xlim(-0.02, 1.02)
    axes.annotate("ceiling", (0.93, 0.93), xytext=(-4, 5), textcoords="offset points", ha="right", fontsize=SMALL)
    lowest, highest = _name_genes(axes, of)
    axes.set_ylim(min(0.0, lowest, float(of["r"].min())) - 0.05, max(1.02, highest + 0.03))
    axes.set_xlabel("noise ceiling of the gene (r)")
    axes.set_ylabel(f"r under {entry_label(section, entry)}")
    n = of["n_slices"].max()
    figure.suptitle(f"{section.title}: {len(of)} genes, mean over {n} slice{'s' if n != 1 else ''}", x=0.01, ha="left")
    return figure


def _name_genes(axes: Axes, of: pd.DataFrame) -> tuple[float, float]:
    """The best predicted genes are named above the diagonal, those with most left to gain at the right edge.

    Returns the heights of the lowest and the highest name.
    """
    best = of.nlargest(NAMED_GENES, "r")
    gap = of.assign(gap=of["ceiling_r"] - of["r"]).nlargest(NAMED_GENES, "gap")
    gap = gap[~gap["gene"].isin(best["gene"])]
    best = best.sort_values("r")
    above = [-height for height in _apart([-float(r) for r in best["r"]], GENE_LINE)]
    for row, y in zip(records(best), above, strict=True):
        _name_gene(axes, row, (y - 0.06, y), "right")
    gap = gap.sort_values("r", ascending=False)
    at_edge = _apart([float(r) for r in gap["r"]], GENE_LINE)
    for row, y in zip(records(gap), at_edge, strict=True):
        _name_gene(axes, row, (1.04, y), "left")
    return min([*above, *at_edge]), max([*above, *at_edge])


def _apart(heights: Sequence[float], line: float) -> list[float]:
    """Falling ``heights`` moved down where they would stand closer than ``line``."""
    placed: list[float] = []
    for height in heights:
        placed.append(min(height, placed[-1] - line) if placed else height)
    return placed


def _name_gene(axes: Axes, row: Any, place: tuple[float, float], side: Literal["left", "right"]) -> None:
    axes.annotate(
        row.gene,
        (row.ceiling_r, row.r),
        xytext=place,
        ha=side,
        va="center",
        fontsize=SMALL,
        annotation_clip=False,
        arrowprops={"arrowstyle": "-", "color": FAINT, "lw": 0.5, "shrinkA": 1, "shrinkB": 2},
        zorder=4,
    )
