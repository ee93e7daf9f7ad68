"""CSV tables, read so that a name stays what it is.

pandas guesses: a slice called NA (normal adjacent) becomes a missing value, 01 becomes 1, 1e3 becomes 1000.0 and True a
truth value. Here every field is text as it stands in the file, and the columns that hold numbers are turned into
numbers because the reader says so. All CSV files that the package writes, or has beside its code, are read here.
"""

from __future__ import annotations

from collections.abc import Collection
from io import StringIO
from pathlib import Path

import pandas as pd

from ..errors import UserError, reason_of

AGAIN = "run the same command again to write it anew"


def read_csv(path: Path, text: Collection[str] = (), remedy: str = AGAIN, content: str | None = None) -> pd.DataFrame:
    """The table in ``path`` with the columns ``text`` as they stand there (a blank field is ``""``), others as numbers.

    A blank number is NaN; a column of whole numbers without blanks is int64, any other float64, to the last bit of what
    was written. ``content``: what the file would hold, instead of what it does. Raises ``UserError``, with ``remedy``,
    for what is not a table, and for a column of numbers that holds something else.
    """
    table = read_text(path, remedy, content)
    for name in table.columns:
        if name not in text:
            table[name] = numbers(table[name], path, remedy)
    return table


def read_text(path: Path, remedy: str = AGAIN, content: str | None = None) -> pd.DataFrame:
    """The table in ``path``, all of it text. See :func:`read_csv`."""
    try:
        return pd.read_csv(
            path if content is None else StringIO(content),
            dtype=str,
            keep_default_na=False,
            index_col=False,
            encoding="utf-8",
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        reason = reason_of(error)
        raise UserError(f"{path} is not a readable table ({reason}) - {remedy}") from error


def numbers(column: pd.Series, path: Path, remedy: str = AGAIN) -> pd.Series:
    """A column of text as numbers; ``path`` is for messages."""
    try:
        return as_numbers(column)
    except ValueError as error:
        raise UserError(f"{path}: {error} - {remedy}") from error


def as_numbers(column: pd.Series) -> pd.Series:
    """A column of text as int64 where all of it are whole numbers, else as float64, NaN for what is blank.

    Exact, which pandas' own parser is not. ``ValueError`` for anything but numbers.
    """
    if len(column) and column.str.fullmatch(r"-?\d{1,18}").all():
        return column.astype("int64")
    try:
        return column.where(column != "", "nan").map(float).astype(float)
    except ValueError as error:
        raise ValueError(f"column {column.name} holds something other than numbers ({error})") from error
