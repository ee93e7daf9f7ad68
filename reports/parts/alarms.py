"""Alarms raised by the trials of each method: signs that a number does not mean what it seems to."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from stbench.trials.outcome import read_ended

from ..sections.section import Section, records
from ..tables.table import Cell, Table
from ..words.protocol import caption
from .part import Context, Part


def part(section: Section, context: Context) -> Part | None:
    """``None`` where no trial of a method finished; else also the good news that no alarm rang."""
    rows = section.rows
    finished = rows[(rows["state"] == "finished") & (rows["kind"] == "method")].drop_duplicates("key")
    if finished.empty:
        return None
    table = alarm_table(section, finished)
    title = "Did anything ring an alarm?"
    looked = (
        "Looked for after every trial: a contrastive loss or a retrieval no better than guessing, predictions that "
        "hardly vary, predictions that do not depend on the image or that depend on the company of other spots in a "
        "batch, predictions far outside the target's range, a training loss that grew, values that are not finite."
    )
    if table.empty:
        return Part("alarms", title, [f"No alarm in {len(finished)} finished trials of methods.", looked])
    lead = f"{len(table)} alarms over {table['entry'].nunique()} of {finished['entry'].nunique()} methods."
    return Part("alarms", title, [lead, looked], (_table(section, table),), frames={"alarms.csv": table})


def alarm_table(section: Section, finished: pd.DataFrame) -> pd.DataFrame:
    """One row for each entry and kind of alarm: entry, label, kind, trials, of_trials, example (one trial's words)."""
    raised: list[tuple[object, ...]] = []
    for row in records(finished):
        state = read_ended(Path(row.directory) / "trials" / row.key)
        if state is not None:
            raised += [(row.entry, row.key, alarm.kind, alarm.text) for alarm in state.alarms or []]
    table = pd.DataFrame(raised, columns=["entry", "key", "kind", "text"])
    grouped = table.groupby(["entry", "kind"], sort=False)
    counted = grouped.agg(trials=("key", "nunique"), example=("text", "first")).reset_index()
    counted["of_trials"] = counted["entry"].map(finished.groupby("entry").size())
    counted.insert(1, "label", counted["entry"].map(section.entries["label"]))
    return counted[["entry", "label", "kind", "trials", "of_trials", "example"]]


def _table(section: Section, table: pd.DataFrame) -> Table:
    rows = tuple(
        (
            Cell(row.label, row.label.lower()),
            Cell(row.kind, row.kind),
            Cell(f"{row.trials}/{row.of_trials}", row.trials / row.of_trials),
            Cell(row.example, row.example),
        )
        for row in records(table)
    )
    return Table(
        name="alarms",
        caption=caption(section, "alarms"),
        columns=("method", "alarm", "trials", "for example"),
        blocks=(rows,),
        text_columns=frozenset({0, 1, 3}),
    )
