"""Tables of sections: CSV as spreadsheets write it, one section a row.

The first line names the columns: ``path`` and ``patient``, perhaps ``slice`` and ``reader``, and any key of a reader
(``image``, ``um_per_px``, ``library``). Fields are separated by commas, semicolons or tabs, and may be quoted. A
byte-order mark and blank lines are passed over; a blank field says nothing.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from stbench.errors import UserError, unknown
from stbench.system.compressed import open_text

from ..readers.table import READERS

OWN_COLUMNS = ("path", "slice", "patient", "reader")
SUFFIXES = (".csv", ".tsv", ".txt")
SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
LARGEST = 10_000_000  # bytes: a table of sections is small, a table of counts may not be


def known_columns() -> list[str]:
    return list(dict.fromkeys([*OWN_COLUMNS, *(key for reader in READERS.values() for key in reader.keys)]))


def is_table(path: Path) -> bool:
    """Whether a file is a table of sections: its first line names a column ``path``. Raises nothing."""
    if not path.is_file() or path.suffix.lower() not in SUFFIXES:
        return False
    try:
        with open_text(path) as text:
            first = next((line for line in iter(lambda: text.readline(LARGEST), "") if line.strip()), "")
            return "path" in _header(first)[0]
    except (UserError, OSError, csv.Error):
        return False


@dataclass(frozen=True)
class Row:
    """One row: its number as a spreadsheet counts them (the header has 1), and its fields by column."""

    number: int
    fields: dict[str, str]
    fault: str | None  # what is wrong with the row as a whole


def read_table(path: Path) -> list[Row]:
    """The rows of a table of sections. What their fields say is not looked at.

    Raises ``UserError`` where the table as a whole cannot be used.
    """
    with open_text(path) as text:
        content = text.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise UserError(f"{path} is too large for a table of sections - give one line per section")
    try:
        columns, separator = _header(next((line for line in content.splitlines() if line.strip()), ""))
        records = list(csv.reader(io.StringIO(content, newline=""), delimiter=separator))
    except csv.Error as error:
        raise UserError(f"{path} is not a readable table ({error}) - write it anew as CSV") from error
    _check_columns(path, columns)
    stripped = [(number, [field.strip() for field in fields]) for number, fields in enumerate(records, start=1)]
    filled = [(number, fields) for number, fields in stripped if any(fields)]
    rows = [_row(number, fields, columns, separator) for number, fields in filled[1:]]
    if not rows:
        raise UserError(f"{path} lists no section - write one row for each")
    return rows


def _check_columns(path: Path, columns: list[str]) -> None:
    known = known_columns()
    for name in columns:
        if name not in known:
            raise unknown(f"column of {path}:", name, known)
    if "path" not in columns:
        raise UserError(f"{path} has no column 'path' - its first line must name the columns: path, patient, ...")
    twice = next((name for name in columns if columns.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"{path} has two columns '{twice}' - keep one")


def _row(number: int, fields: list[str], columns: list[str], separator: str) -> Row:
    fault = None
    if any(fields[len(columns) :]):
        fault = (
            f"has {len(fields)} fields where the header names {len(columns)} columns - put quotes around a field that "
            f"holds {SEPARATORS[separator]}"
        )
    return Row(number, dict(zip(columns, fields, strict=False)), fault)


def _header(line: str) -> tuple[list[str], str]:
    """The names of the columns and what separates them: whatever gives a column ``path``, else the most columns."""
    found = {
        separator: [name.strip().lower() for name in next(csv.reader([line], delimiter=separator), [])]
        for separator in SEPARATORS
    }
    separator = max(found, key=lambda one: ("path" in found[one], len(found[one])))
    columns = found[separator]
    while columns and not columns[-1]:  # spreadsheets leave separators behind the last column
        columns = columns[:-1]
    return columns, separator
