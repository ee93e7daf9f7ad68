"""The ablations that the mclSTExp supplement printed (Tables S4 to S7, Figure S4), beside which ours are shown."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pandas as pd

from stbench.system.tables import read_csv

METHOD = "mclstexp"
NAMES = ("dataset", "answers", "variant", "metric", "note")


@cache
def published_ablations() -> pd.DataFrame:
    """dataset, answers (Table S4), variant, metric, mean, spread (NaN: none printed), note (known flaws)."""
    return read_csv(Path(__file__).with_suffix(".csv"), NAMES)


def printed(dataset: str, answers: str, variant: str, metric: str) -> float:
    """The printed mean of the variant that the method's switch calls so (``k = 200``); NaN: none."""
    table = published_ablations()
    here = table[
        (table["dataset"] == dataset)
        & (table["answers"] == answers)
        & (table["metric"] == metric)
        & (table["variant"] == variant)
    ]
    return float(here["mean"].iloc[0]) if len(here) else float("nan")


def flaws(dataset: str, answers: str) -> list[str]:
    """What is known to be wrong with the printed numbers, each once."""
    table = published_ablations()
    notes = table.loc[(table["dataset"] == dataset) & (table["answers"] == answers), "note"]
    return list(dict.fromkeys(clause for note in notes for clause in note.split("; ")))
