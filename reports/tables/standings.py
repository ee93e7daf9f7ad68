"""Standings in words and as a table: ranks on the trials that every ranked entry finished."""

from __future__ import annotations

import math

import pandas as pd

from ..numbers.common_trials import Standings, runs_of
from ..numbers.metrics import METRICS
from ..sections.section import records
from ..words.format import number, plus_minus
from ..words.protocol import caption
from .cells import DASH, rank_cell
from .main import PAPER, STRICT
from .table import Cell, Table

METRIC = "strict_pcc_acg"  # a gene that was not predicted counts there; the paper's pack would leave it out


def lead(one: Standings) -> list[str]:
    """The finding in a sentence, what frames it, and who is not ranked, and why."""
    table = one.table
    ranked = table[table["ranked"] & table[METRIC].notna()].sort_values(f"{METRIC}_rank", kind="stable")
    if ranked.empty:
        return [f"Nothing can be ranked: no {one.pool} has finished at least half of the slices."]
    best = ranked.iloc[0]
    n_slices = len({slide for slide, _ in one.common})
    n_seeds = len({seed for _, seed in one.common})
    shared_trials = f"{n_slices} of {len(one.section.slices)} slices" + (f" and {n_seeds} seeds" if n_seeds > 1 else "")
    level = ranked[ranked[f"{METRIC}_rank"] == 1]
    who = f"{best['label']} is" if len(level) == 1 else f"{' and '.join(level['label'])} are level and"
    first = (
        f"{who} first of {len(ranked)} {one.pool}s by {METRICS[METRIC].title}: {number(best[METRIC])} on "
        f"the {shared_trials} that all of them finished."
    )
    alone = (
        f"{best['label']} is the only {one.pool} that can be ranked: {METRICS[METRIC].title} {number(best[METRIC])} on "
        f"{shared_trials}."
    )
    sentences = [first if len(ranked) > 1 else alone]
    controls = table[(table["kind"] == "control") & ~table["oracle"] & table[METRIC].notna()]
    if one.pool == "control":
        sentences.append("Only controls are here: what a method has to beat.")
    elif len(controls):
        control = controls.iloc[controls[METRIC].argmax()]
        above = int((ranked[METRIC] > control[METRIC]).sum())
        sentences.append(
            f"{above} of {len(ranked)} ranked methods are above the best control on these trials, {control['label']} "
            f"({number(control[METRIC])})."
        )
    else:
        sentences.append("No control finished these trials, so nothing frames the numbers from below.")
    left_out = [
        f"{row.label} ({row.n_slices}/{len(one.section.slices)} slices)"
        for row in records(table[~table["ranked"] & (table["kind"] == one.pool) & ~table["oracle"]])
    ]
    if left_out:
        sentences.append(
            f"Not ranked, because the trials shared with the others would cover less than half of the slices: "
            f"{', '.join(left_out)}."
        )
    return sentences


def board_table(one: Standings, with_runs: bool = True) -> Table:
    """Method, rank, how many trials, metrics on the common ones; ``with_runs``: and which run each entry is from."""
    section, table = one.section, one.table
    about = {row.Index: row for row in records(runs_of(section))} if with_runs else {}
    of_slices = len(section.slices)

    def row(of: pd.Series) -> tuple[Cell, ...]:
        source = [Cell(about[of.name].run, about[of.name].run, minor=about[of.name].where)] if with_runs else []
        return (
            Cell(str(of["title"]), str(of["title"]).lower(), tags=tuple(of["tags"])),
            rank_cell(of[f"{METRIC}_rank"]),
            Cell(f"{of['n_slices']}/{of_slices}", float(of["n_slices"])),
            Cell(f"{of['n_common']} of {of['n_trials']}", float(of["n_common"])),
            *(_value(of, metric) for metric in (*STRICT, *PAPER)),
            *source,
        )

    ranked = table["kind"] == one.pool
    first = table[ranked].sort_values(f"{METRIC}_rank", kind="stable", na_position="last")
    blocks = [[row(of) for _, of in part.iterrows()] for part in (first, table[~ranked])]
    columns = (
        "method",
        "rank",
        "slices",
        "trials used",
        *(METRICS[metric].title for metric in (*STRICT, *PAPER)),
        *(["run"] if with_runs else []),
    )
    return Table(
        name="leaderboard",
        caption=caption(section, f"ranked by {METRICS[METRIC].title} on the trials that all ranked entries finished"),
        columns=columns,
        blocks=tuple(tuple(block) for block in blocks),
        groups=(("", 4), ("strict pack", len(STRICT)), ("paper pack", len(PAPER)), *([("", 1)] if with_runs else [])),
        notes=tuple(_notes(one)),
        text_columns=frozenset({0, len(columns) - 1} if with_runs else {0}),
    )


def _value(of: pd.Series, metric: str) -> Cell:
    if not of["n_common"]:
        return Cell(DASH)
    if math.isnan(of[metric]):
        return Cell("undefined")
    return Cell(plus_minus(of[metric], of[f"{metric}_sd"]), float(of[metric]), strong=of[f"{metric}_rank"] == 1)


def _notes(one: Standings) -> list[str]:
    notes = [
        "trials used: of the slices × seeds that the entry finished, those that every ranked entry finished too; means "
        "and ranks are over these alone. ± is the standard deviation over slices (n − 1) of the mean over seeds; "
        "differences are not tested here.",
        "Bold: the best of the ranked. Controls and oracles stand below without a rank, on the same trials.",
    ]
    if one.pool == "control":
        notes[1] = "Bold: the best of the ranked. Oracles stand below without a rank, on the same trials."
    if (one.table["version"] != "").any():
        notes.append("version: the same method from other code or another run; the higher number is the newer run.")
    if (one.table["preset"] == "external").any():
        notes.append(
            "external: predictions made elsewhere; that no test slice was trained on is declared by who made them."
        )
    return notes
