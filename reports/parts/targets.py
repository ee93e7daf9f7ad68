"""Whether the order of methods depends on the scale of the truth: the same predictions against every named target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from ..figures import canvas
from ..figures.marks import section_marks
from ..figures.style import FAINT, INK, WIDTH
from ..numbers.means import board_of
from ..sections.section import Section
from ..sections.trial_files import trial_table
from ..tables.cells import number_cell, rank_cell
from ..tables.table import Cell, Table
from ..words.format import number
from ..words.protocol import INCOMPLETE, caption
from .part import Context, Part, picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUESTION = "Does the order depend on the target?"
SCORES = {
    "pcc_acg": "PCC (ACG)",
    "pcc_heg": "PCC (HEG)",
    "strict_pcc_acg": "strict PCC (ACG)",
    "strict_pcc_heg": "strict PCC (HEG)",
}
RANKED = "pcc_acg"
DASHED = (4, 2)  # an oracle's line


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no trial has finished; a part that says so where the trials were not scored on other targets."""
    if not (section.rows["state"] == "finished").any():
        return None
    scored = trial_table(section, "targets.csv")
    if scored.empty:
        return Part(
            "targets",
            QUESTION,
            ["These trials were scored on their own target only, by an older version: run them again for the others."],
        )
    table = on_targets(section, scored)
    pictures = []
    if table[RANKED].notna().any():
        with canvas.drawing():
            what = "PCC of the same predictions against the truth on each target; dashed: oracles"
            pictures.append(picture(section, "slopes", what, slopes_figure(section, table)))
    return Part("targets", QUESTION, _lead(section, table), (_table(section, table),), pictures, {"scores.csv": table})


def on_targets(section: Section, scored: pd.DataFrame) -> pd.DataFrame:
    """One row per entry and target, entries in the section's order: SCORES (mean over seeds, then slices) and ``rank``.

    ``scored``: the trials' ``targets.csv`` with entry and seed. An undefined score of a slice leaves the mean
    undefined. Ranked by PCC (ACG) on each target, 1 is best, are the complete methods, or, where there is no method,
    the controls that are no oracles.
    """
    by_slice = scored.groupby(["entry", "target", "slice"], sort=False)[list(SCORES)].agg(_mean_of_all)
    means = by_slice.groupby(level=["entry", "target"], sort=False).agg(_mean_of_all)
    targets = list(dict.fromkeys(scored["target"]))
    board = board_of(section)
    grid = pd.MultiIndex.from_product([board.index, targets], names=["entry", "target"])
    about = board[["label", "kind", "oracle", "complete", "n_slices", "of_slices"]]
    table = means.reindex(grid).reset_index().join(about, on="entry")
    of_kind = "method" if (about["kind"] == "method").any() else "control"
    ranked = table["complete"] & (table["kind"] == of_kind) & ~table["oracle"].astype(bool)
    ranks = table[ranked].groupby("target")[RANKED].rank(ascending=False, method="min")
    return table.assign(rank=ranks)


def _mean_of_all(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _lead(section: Section, table: pd.DataFrame) -> list[str]:
    ranks = table.dropna(subset="rank").pivot_table(index="entry", columns="target", values="rank")
    targets = list(dict.fromkeys(table["target"]))
    lead = [_order(section, ranks.reindex(columns=targets).dropna()), *_oracle(table)]
    lead.append(
        f"The predictions are those of this section, learned on {section.target}, and are compared with the truth on "
        "each target in turn. PCC needs no conversion for that; MSE and MAE would, so they are not given."
    )
    return lead


def _order(section: Section, ranks: pd.DataFrame) -> str:
    labels = section.entries["label"]
    if len(ranks) < 2:
        return "Fewer than two entries are complete with a PCC (ACG) on every target, so there is no order to compare."
    what = section.entries.loc[ranks.index[0], "kind"] + "s"
    winners = {str(target): str(labels[str(column.idxmin())]) for target, column in ranks.items()}
    n = len(ranks.columns)
    if len(set(winners.values())) > 1:
        told = "; ".join(f"{label} on {target}" for target, label in winners.items())
        return f"The best of {len(ranks)} {what} by PCC (ACG) depends on the target: {told}."
    moved = int((ranks.max(axis=1) > ranks.min(axis=1)).sum())
    best = next(iter(winners.values()))
    rest = (
        f"the order of the {len(ranks)} {what} is the same on each"
        if not moved
        else f"below it, {moved} of {len(ranks)} {what} change places"
    )
    return f"{best} is best by PCC (ACG) on all {n} targets; {rest}."


def _oracle(table: pd.DataFrame) -> list[str]:
    """On which targets an oracle is above everything that is ranked."""
    oracles = table[table["oracle"].astype(bool) & table["complete"]].dropna(subset=RANKED)
    said = []
    for label, rows in oracles.groupby("label", sort=False):
        told = ", ".join(
            f"{number(score, 2)} on {target}" for target, score in zip(rows["target"], rows[RANKED], strict=True)
        )
        best = table.dropna(subset="rank").groupby("target")[RANKED].max()
        above = [
            target
            for target, score in zip(rows["target"], rows[RANKED], strict=True)
            if score > best.get(target, float("nan"))
        ]
        what = f"{label}, which sees what no method may, has a PCC (ACG) of {told}"
        where = "every target" if len(above) == len(rows) else " and ".join(above)
        said.append(f"{what}: more than everything that is ranked, on {where}." if above else f"{what}.")
    return said


def _table(section: Section, table: pd.DataFrame) -> Table:
    targets = list(dict.fromkeys(table["target"]))
    cells = table.set_index(["entry", "target"])

    def row(entry: str) -> tuple[Cell, ...]:
        about = cells.loc[(entry, targets[0])]
        mark = "" if about["complete"] else f" {INCOMPLETE}"
        shown = [
            Cell(about["label"], about["label"].lower()),
            Cell(f"{about['n_slices']}/{about['of_slices']}{mark}", float(about["n_slices"])),
        ]
        for target in targets:
            scores = cells.loc[(entry, target)]
            rank = scores["rank"]
            shown += [
                number_cell(scores["pcc_acg"], strong=bool(rank == 1)),
                rank_cell(rank, strong=bool(rank == 1)),
                number_cell(scores["pcc_heg"]),
            ]
        return tuple(shown)

    kinds = section.entries["kind"]
    blocks = tuple(tuple(row(str(entry)) for entry in kinds.index[kinds == kind]) for kind in ("method", "control"))
    notes = [
        "Mean over slices of the mean over seeds. The 50 highly expressed genes (HEG) are chosen anew on every target. "
        "Ranks by PCC (ACG) are among complete methods, or among controls where no method was run; oracles are not "
        "ranked."
    ]
    if not table["complete"].all():
        notes.append(f"{INCOMPLETE} not every slice and seed has finished: not ranked.")
    return Table(
        name="targets",
        caption=caption(section, "the same predictions against the truth on every target"),
        columns=("method", "slices", *(name for _ in targets for name in ("PCC (ACG)", "rank", "PCC (HEG)"))),
        blocks=blocks,
        groups=(("", 2), *((f"{target} (learned)" if target == section.target else target, 3) for target in targets)),
        notes=tuple(notes),
    )


def slopes_figure(section: Section, table: pd.DataFrame) -> Figure:
    """Two panels, PCC (ACG) and PCC (HEG): targets along x, a line per entry; lines that cross change places."""
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    targets = list(dict.fromkeys(table["target"]))
    look = section_marks(section)
    drawn = table.dropna(subset=["pcc_acg", "pcc_heg"], how="all")
    entries = drawn.drop_duplicates("entry").set_index("entry")
    labels = entries["label"].astype(str)
    figure = Figure(figsize=(WIDTH, max(4.2, 1.5 + 0.24 * len(section.entries))), layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, score in zip(panels, ("pcc_acg", "pcc_heg"), strict=True):
        sns.lineplot(
            data=table.dropna(subset=score).assign(at=table["target"].map(targets.index)),
            x="at",
            y=score,
            hue="entry",
            style="entry",
            hue_order=entries.index,
            style_order=entries.index,
            palette={entry: mark.colour for entry, mark in look.items()},
            markers={entry: mark.marker for entry, mark in look.items()},
            dashes={entry: DASHED if oracle else "" for entry, oracle in entries["oracle"].items()},
            linewidth=1.8,
            markersize=8,
            markeredgecolor=INK,
            markeredgewidth=0.6,
            legend=False,
            ax=axes,
        )
        axes.axhline(0, color=FAINT, lw=0.7, zorder=1)
        axes.set_xticks(
            range(len(targets)), [f"{name}\n(learned)" if name == section.target else name for name in targets]
        )
        axes.set_xlim(-0.3, len(targets) - 0.7)
        axes.tick_params(axis="x", length=0)
        if len(targets) > 3:  # the names are longer than what is between them
            for label in axes.get_xticklabels():
                label.set(rotation=35, ha="right", rotation_mode="anchor")
        axes.set_title(SCORES[score], loc="left")
        axes.set(xlabel="", ylabel="")
    # made here, as matplotlib and seaborn leave out what is called by an underscore first
    shown: dict[str, Any] = {"lw": 1.8, "ms": 8, "mec": INK, "mew": 0.6}
    handles = [
        Line2D([], [], color=mark.colour, marker=mark.marker, label=label, ls=(0, DASHED) if oracle else "-", **shown)
        for mark, label, oracle in zip(
            [look[str(entry)] for entry in entries.index], labels, entries["oracle"], strict=True
        )
    ]
    figure.legend(handles=handles, loc="outside right upper", handlelength=2.4)
    figure.suptitle("The same predictions, the truth on other scales", x=0.01, ha="left")
    return figure
