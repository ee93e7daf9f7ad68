"""An ablation study: what each switch of a method does to its score, in words, one table per switch, and as effects."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pandas as pd

from stbench.results.run_record import AblationRecord
from stbench.trials.spec import TrialSpec

from ...figures import canvas
from ...figures.style import FAINT, INK, PUBLISHED, WIDTH
from ...numbers.metrics import METRICS
from ...published.ablations import flaws
from ...sections.section import Section, records
from ...tables.cells import DASH, number_cell
from ...tables.table import Cell, Table
from ...words.format import number
from ...words.protocol import caption
from ..part import Context, Part, Picture, picture
from .study import SHOWN, study_of, sweep_values, variant_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_EFFECTS = 40
NAME = 64  # characters of a variant's label
SWEEP_COLOURS = {"pcc_acg": "#0072b2", "mse": "#d55e00", "mae": "#009e73"}


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no run of the section is an ablation study."""
    study = study_of(section)
    if study is None:
        return None
    table = variant_table(section, study)
    here = table[table["target"] == section.target]
    pictures = _pictures(section, study, table)
    tables = [_table(section, variants) for _, variants in table.groupby("switch", sort=False)]
    title = f"What does each part of {_title(section, study)} do?"
    return Part("ablation", title, _lead(section, here), tables, pictures, {"ablation.csv": table})


def _title(section: Section, study: AblationRecord) -> str:
    titles = section.entries.loc[section.entries["method"] == study.method, "title"]
    return str(titles.iloc[0]) if len(titles) else str(study.method)


def _lead(section: Section, table: pd.DataFrame) -> list[str]:
    n_switches = table["switch"].nunique()
    once = table[table["entry"] != ""].drop_duplicates("entry")
    finished, reused = int(once["trials"].sum()), int(once["reused"].sum())
    said = []
    known = table.dropna(subset=["pcc_acg_difference"]).drop_duplicates("entry")
    if known.empty:
        said.append("No variant is complete beside a complete base, so no effect can be given yet.")
    else:
        largest = known.iloc[known["pcc_acg_difference"].abs().argmax()]
        sign = "raises" if largest["pcc_acg_difference"] > 0 else "lowers"
        size = number(abs(largest["pcc_acg_difference"]))
        said.append(
            f"The largest effect: {largest['title'].lower()}, variant {largest['variant']}, {sign} PCC (ACG) by {size}."
        )
        clear = known[(known["pcc_acg_low"] > 0) | (known["pcc_acg_high"] < 0)]
        said.append(
            f"Of {len(known)} variants {len(clear)} have an interval that leaves out zero; with this many intervals "
            "some do by chance."
        )
        over = set(known["interval_over"])
        if over != {"patients"}:
            said.append(
                "All slices are of one patient: the intervals are over its slices and say nothing about others."
            )
    said.append(
        f"{n_switches} switches; {finished} finished trials, of which {reused} reused a trained model and trained "
        "nothing."
    )
    if (section.entries["preset"] == "quick").any():
        said.append(
            "Preset quick: small networks, few epochs. An effect here need not be that under the published settings."
        )
    return said


def _table(section: Section, variants: pd.DataFrame) -> Table:
    first = variants.iloc[0]
    printed = [
        metric
        for metric in SHOWN
        if f"{metric}_published" in variants and variants[f"{metric}_published"].notna().any()
    ]
    columns = ["variant", "what changed", "training", *(METRICS[metric].title for metric in SHOWN), "PCC (ACG) − base"]
    groups = [("", 3), ("here", len(SHOWN) + 1)]
    if printed:
        columns += [METRICS[metric].title for metric in printed]
        groups.append(("as published", len(printed)))

    def row(row: Any) -> tuple[Cell, ...]:
        words = row.words if not row.change else f"{row.words} ({row.change})"
        cells = [
            Cell(row.variant, row.variant.lower(), strong=row.base, tags=("base",) if row.base else ()),
            Cell(words, words),
            _training(row, section.target),
            *(number_cell(getattr(row, metric)) for metric in SHOWN),
            _difference(row),
        ]
        return (*cells, *(number_cell(getattr(row, f"{metric}_published")) for metric in printed))

    notes = [
        "PCC (ACG) − base: mean over patients of the difference on the same slices; in brackets its 95 % interval "
        f"({' or '.join(sorted({over for over in variants['interval_over'] if over})) or 'nothing'} drawn again).",
    ]
    if printed:
        notes += [f"as published: mclSTExp supplement, {first['answers']}; over all slices, published settings."]
        notes += [f"as published: {flaw}." for flaw in flaws(section.dataset, str(first["answers"]))]
    return Table(
        name=f"switch-{first['switch']}",
        caption=caption(section, f"{first['title']} ({first['answers']})"),
        columns=tuple(columns),
        blocks=(tuple(map(row, records(variants))),),
        groups=tuple(groups),
        notes=tuple(notes),
        text_columns=frozenset({0, 1, 2}),
    )


def _training(row: Any, target: str) -> Cell:
    if row.target != target:
        return Cell(f"on target {row.target}", "other target")
    if not row.of_trials:
        return Cell("not run", "not run")
    done = f"{row.trials}/{row.of_trials} trials" if row.trials < row.of_trials else f"{row.trials} trials"
    return Cell("reused" if row.reused else "trained", "reused" if row.reused else "trained", minor=done)


def _difference(row: Any) -> Cell:
    value = row.pcc_acg_difference
    if math.isnan(value):
        return Cell("" if row.base else DASH)
    known = not math.isnan(row.pcc_acg_low)
    interval = f"{_signed(row.pcc_acg_low)} to {_signed(row.pcc_acg_high)}" if known else ""
    return Cell(_signed(value), float(value), minor=interval)


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def _pictures(section: Section, study: AblationRecord, table: pd.DataFrame) -> list[Picture]:
    drawn = []
    with canvas.drawing():
        effects = table.dropna(subset=["pcc_acg_difference"])
        if len(effects):
            what = "difference in PCC (ACG) to the base, with 95 % interval"
            drawn.append(picture(section, "effects", what, tornado(effects)))
        for name, variants in table.groupby("switch", sort=False):
            points = sweep_points(variants, section.specs)
            if len(points) > 2:
                title = str(variants["title"].iloc[0])
                drawn.append(picture(section, f"sweep-{name}", title, sweep_figure(points, title)))
    return drawn


def tornado(effects: pd.DataFrame) -> Figure:
    """``effects``: rows of :func:`ablation_study.variant_table` with a difference; the largest on top."""
    import seaborn as sns
    from matplotlib.figure import Figure

    order = effects.reindex(effects["pcc_acg_difference"].abs().sort_values(ascending=False).index)
    order = order.drop_duplicates("entry").head(MOST_EFFECTS)
    labels = [textwrap.shorten(f"{row.title}: {row.variant}", NAME, placeholder=" …") for row in records(order)]
    drawn = order.assign(place=range(len(order)), better=order["pcc_acg_difference"] >= 0)
    figure = Figure(figsize=(WIDTH, 0.3 * len(order) + 1.5), layout="constrained")
    axes = figure.add_subplot()
    sns.barplot(
        data=drawn,
        x="pcc_acg_difference",
        y="place",
        orient="h",
        hue="better",
        palette={True: PUBLISHED["bleep"], False: PUBLISHED["mclstexp"]},
        saturation=1,
        width=0.62,
        errorbar=None,
        legend=False,
        zorder=2,
        ax=axes,
    )
    axes.hlines(drawn["place"], drawn["pcc_acg_low"], drawn["pcc_acg_high"], color=INK, lw=1.2, zorder=3)
    axes.set_yticks(range(len(order)), labels)
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, color=INK, lw=0.8, zorder=4)
    axes.grid(axis="x", color=FAINT, alpha=0.35, lw=0.6, zorder=0)
    axes.set_ylim(len(order) - 0.3, -0.7)
    axes.set_xlabel("difference in PCC (ACG) to the base; line: 95 % interval")
    axes.set_ylabel("")
    figure.suptitle("Effect of each variant", x=0.01, ha="left")
    return figure


def sweep_points(variants: pd.DataFrame, specs: Mapping[str, TrialSpec]) -> pd.DataFrame:
    """The variants of one switch that stand for numbers, by that number (``at``); empty unless all of them do."""
    known = variants[variants["entry"] != ""]
    values = sweep_values(known, specs)
    if values is None:
        return known.iloc[:0]
    return known.assign(at=values).dropna(subset=["pcc_acg"]).sort_values("at").drop_duplicates("at")


def sweep_figure(points: pd.DataFrame, title: str) -> Figure:
    """PCC (ACG), MSE and MAE along a sweep, each on its own scale (Figure S4 in three panels); hollow: as published."""
    import seaborn as sns
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(SWEEP_COLOURS))
    for axes, (metric, colour) in zip(panels, SWEEP_COLOURS.items(), strict=True):
        sns.lineplot(data=points, x="at", y=metric, color=colour, marker="o", markersize=7, linewidth=1.6, ax=axes)
        printed = f"{metric}_published"
        if printed in points and points[printed].notna().any():
            known = points.dropna(subset=[printed])
            hollow = {"marker": "o", "facecolor": "none", "edgecolor": colour, "linewidth": 1.2, "s": 40}
            sns.scatterplot(data=known, x="at", y=printed, legend=False, ax=axes, **hollow)
        base = points[points["base"]]
        if len(base):
            axes.axvline(float(base["at"].iloc[0]), color=FAINT, lw=0.8, ls=":")
        axes.set_title(METRICS[metric].title, loc="left")
        axes.set(xlabel="value of the setting", ylabel="")
        axes.grid(axis="y", color=FAINT, alpha=0.35, lw=0.6)
        axes.margins(y=0.15)
    hollow_marks = any(points[name].notna().any() for name in points if str(name).endswith("_published"))
    note = "; hollow: as published, over all slices" if hollow_marks else ""
    figure.suptitle(f"{title}; dotted: the base{note}", x=0.01, ha="left")
    return figure
