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


def lead(standings: Standings) -> list[str]:
    """The finding in a sentence, what frames it, and who is not ranked, and why."""
    table = standings.table
    ranked = table[table["ranked"] & table[METRIC].notna()].sort_values(f"{METRIC}_rank", kind="stable")
    if ranked.empty:
        return [f"Nothing can be ranked: no {standings.pool} has finished at least half of the slices."]
    best = ranked.iloc[0]
    n_slices = len({slide for slide, _ in standings.common})
    n_seeds = len({seed for _, seed in standings.common})
    shared_trials = f"{n_slices} of {len(standings.section.slices)} slices" + (
        f" and {n_seeds} seeds" if n_seeds > 1 else ""
    )
    level = ranked[ranked[f"{METRIC}_rank"] == 1]
    who = f"{best['label']} is" if len(level) == 1 else f"{' and '.join(level['label'])} are level and"
    first = (
        f"{who} first of {len(ranked)} {standings.pool}s by {METRICS[METRIC].title}: {number(best[METRIC])} on "
        f"the {shared_trials} that all of them finished."
    )
    alone = (
        f"{best['label']} is the only {standings.pool} that can be ranked: {METRICS[METRIC].title} "
        f"{number(best[METRIC])} on {shared_trials}."
    )
    sentences = [first if len(ranked) > 1 else alone]
    controls = table[(table["kind"] == "control") & ~table["oracle"] & table[METRIC].notna()]
    if standings.pool == "control":
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
        f"{row.label} ({row.n_slices}/{len(standings.section.slices)} slices)"
        for row in records(table[~table["ranked"] & (table["kind"] == standings.pool) & ~table["oracle"]])
    ]
    if left_out:
        sentences.append(
            f"Not ranked, because the trials shared with the others would cover less than half of the slices: "
            f"{', '.join(left_out)}."
        )
    return sentences


def board_table(standings: Standings, with_runs: bool = True) -> Table:
    """Method, rank, how many trials, metrics on the common ones; ``with_runs``: and which run each entry is from."""
    section, table = standings.section, standings.table
    about = {row.Index: row for row in records(runs_of(section))} if with_runs else {}
    of_slices = len(section.slices)

    def row(entry: pd.Series) -> tuple[Cell, ...]:
        source = (
            [Cell(about[entry.name].run, about[entry.name].run, minor=about[entry.name].where)] if with_runs else []
        )
        return (
            Cell(str(entry["title"]), str(entry["title"]).lower(), tags=tuple(entry["tags"])),
            rank_cell(entry[f"{METRIC}_rank"]),
            Cell(f"{entry['n_slices']}/{of_slices}", float(entry["n_slices"])),
            Cell(f"{entry['n_common']} of {entry['n_trials']}", float(entry["n_common"])),
            *(_value(entry, metric) for metric in (*STRICT, *PAPER)),
            *source,
        )

    ranked = table["kind"] == standings.pool
    first = table[ranked].sort_values(f"{METRIC}_rank", kind="stable", na_position="last")
    blocks = [[row(entry) for _, entry in part.iterrows()] for part in (first, table[~ranked])]
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
        notes=tuple(_notes(standings)),
        text_columns=frozenset({0, len(columns) - 1} if with_runs else {0}),
    )


def _value(entry: pd.Series, metric: str) -> Cell:
    if not entry["n_common"]:
        return Cell(DASH)
    if math.isnan(entry[metric]):
        return Cell("undefined")
    return Cell(
        plus_minus(entry[metric], entry[f"{metric}_sd"]), float(entry[metric]), strong=entry[f"{metric}_rank"] == 1
    )


def _notes(standings: Standings) -> list[str]:
    notes = [
        "trials used: of the slices × seeds that the entry finished, those that every ranked entry finished too; means "
        "and ranks are over these alone. ± is the standard deviation over slices (n − 1) of the mean over seeds; "
        "differences are not tested here.",
        "Bold: the best of the ranked. Controls and oracles stand below without a rank, on the same trials.",
    ]
    if standings.pool == "control":
        notes[1] = "Bold: the best of the ranked. Oracles stand below without a rank, on the same trials."
    if (standings.table["version"] != "").any():
        notes.append("version: the same method from other code or another run; the higher number is the newer run.")
    if (standings.table["preset"] == "external").any():
        notes.append(
            "external: predictions made elsewhere; that no test slice was trained on is declared by who made them."
        )
    return notes
