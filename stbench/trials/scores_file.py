"""The scores of a trial, read fast: a summary is derived from those of all trials, again and again."""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from .outcome import COLUMNS, TEXT, read_table
from .state import EndedState

Row = Mapping[str, float | str]

NAME = "metrics.csv"
WHOLE = re.compile(r"-?[0-9]{1,18}")


def read_scores(trial: Path, state: EndedState, slices: Collection[str]) -> Mapping[str, Row]:
    """The row of each test slice in ``metrics.csv`` of a trial that finished, column to value; NaN for what is blank.

    These are what :func:`stbench.trials.outcome.read_table` reads, without making a table of pandas for a line or two.
    A file that is not as it should be is left to that function, which says what is wrong: ``DamagedFileError``.
    """
    try:
        found = _read(trial, state)
    except (OSError, ValueError, KeyError, csv.Error):
        found = {}
    if found.keys() == set(slices) and all(row.keys() >= set(COLUMNS[NAME][0]) for row in found.values()):
        return found
    table = read_table(trial, NAME, slices)
    assert table is not None  # a finished trial without it has no state
    return {str(row["slice"]): {str(name): value for name, value in row.items()} for row in table.to_dict("records")}


def _read(trial: Path, state: EndedState) -> dict[str, Row]:
    """Raises ``OSError``, ``ValueError``, ``KeyError`` or ``csv.Error`` where anything is unusual."""
    record = (state.files or {})[NAME]
    with open(os.path.join(trial, NAME), "rb") as file:
        content = file.read()
    if hashlib.blake2b(content, digest_size=16).hexdigest() != record.digest:
        raise ValueError("it is not what the trial wrote")
    names, *lines = csv.reader(io.StringIO(content.decode("utf-8"), newline=""), strict=True)
    rows = [dict(zip(names, line, strict=True)) for line in lines]
    return {row["slice"]: {name: _value(name, text) for name, text in row.items()} for row in rows}


def _value(column: str, text: str) -> float | str:
    if column in TEXT:
        return text
    return int(text) if WHOLE.fullmatch(text) else float(text or "nan")
