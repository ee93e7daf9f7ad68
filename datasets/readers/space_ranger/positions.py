"""Where spots and bins lie: Space Ranger's table of positions in every form in which it is written."""

from __future__ import annotations

import csv
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.system.compressed import is_parquet, open_binary, open_text
from stbench.system.scalars import as_number

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
WHOLE = ("in_tissue", "array_row", "array_col")
FARTHEST = 2**31  # no index and no pixel lies beyond
_LOGICAL = {"TRUE": 1, "True": 1, True: 1, "FALSE": 0, "False": 0, False: 0}


@dataclass(frozen=True)
class Positions:
    """Every place of the array: spots under tissue and off it. Barcodes stay in Arrow: HD has millions of them."""

    barcodes: pa.Array  # (n,) texts, each once
    in_tissue: np.ndarray  # (n,) bool
    array_xy: np.ndarray  # (n, 2) int64: column, row
    centres: np.ndarray  # (n, 2) float64: x, y in full-resolution pixels

    def places_of(self, barcodes: list[str]) -> np.ndarray:
        """(n,) int64: the row of each barcode, -1 where it has none."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found = pc.index_in(pa.array(barcodes, type=self.barcodes.type), value_set=self.barcodes)
        return np.asarray(pc.fill_null(found, -1).to_numpy(zero_copy_only=False), dtype=np.int64)


def read_positions(path: Path) -> Positions:
    """Positions of all places of the array, from CSV with or without header, or parquet; any may be gzipped."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    frame = _parquet(path) if is_parquet(path) else _table(path)
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise UserError(f"{path} lacks the columns {', '.join(missing)} - it needs {', '.join(COLUMNS)}")
    if frame.empty:
        raise UserError(f"{path} lists no spot - it is cut off: fetch it again")
    numbers = {name: _numbers(path, frame, name) for name in COLUMNS[1:]}
    names = frame["barcode"]
    if names.isna().any():
        raise UserError(f"{path}: {int(names.isna().sum())} of {len(names)} spots have no barcode - fetch it again")
    barcodes = pa.array(names.astype("string[pyarrow]").array, type=pa.large_string())
    barcodes = barcodes.combine_chunks() if isinstance(barcodes, pa.ChunkedArray) else barcodes
    if pc.count_distinct(barcodes).as_py() < len(barcodes):
        twice = names[pd.Series(names).duplicated()].iloc[0]
        raise UserError(f"{path} names the spot {_shown(twice)} more than once - each barcode must stand there once")
    return Positions(
        barcodes,
        numbers["in_tissue"] == 1,
        np.column_stack([numbers["array_col"], numbers["array_row"]]),
        np.column_stack([numbers["pxl_col_in_fullres"], numbers["pxl_row_in_fullres"]]),
    )


def _numbers(path: Path, frame: pd.DataFrame, name: str) -> np.ndarray:
    """A column as int64, or float64 where it holds pixels."""
    import pandas as pd

    column = frame[name]
    if not pd.api.types.is_numeric_dtype(column) or pd.api.types.is_bool_dtype(column):
        column = pd.to_numeric(column.astype(object).map(_plain), errors="coerce")
    values = column.to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isfinite(values)
    form = "a number"
    if not wrong.any() and name in WHOLE:
        wrong, form = values != np.rint(values), "an integer"
        if name == "in_tissue":
            wrong, form = ~np.isin(values, [0, 1]), "0 or 1"
    if not wrong.any():
        wrong, form = np.abs(values) >= FARTHEST, "a place on an image"
    if wrong.any():
        row = int(np.argmax(wrong))
        first, value = _shown(frame["barcode"].iloc[row]), _shown(frame[name].iloc[row])
        if form == "a number":
            raise UserError(f"{path}: {name} of {first} is not a number ({value}) - correct it or fetch the file again")
        raise UserError(f"{path}: {name} of {first} is {value}, not {form} - the columns may be exchanged")
    return values.astype(np.int64) if name in WHOLE else values


def _shown(value: Any) -> str:
    """On one line, as a file may hold anything."""
    return " ".join(str(value).split())[:40]


def _plain(value: Any) -> Any:
    return _LOGICAL.get(value, value) if isinstance(value, str | bool | np.bool_) else value


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_binary(path) as stream:
        try:
            file = pq.ParquetFile(stream)
            table = file.read([name for name in COLUMNS if name in file.schema_arrow.names])
            return _as_frame(table.replace_schema_metadata(None))  # what pandas notes there is of no use here
        except (OSError, ValueError, KeyError, pa.ArrowException) as error:
            raise UserError(f"{path} is a damaged parquet file ({reason_of(error)}) - fetch it again") from error


def _as_frame(table: pa.Table) -> pd.DataFrame:
    """The same columns; barcodes stay in Arrow."""
    import pandas as pd
    import pyarrow as pa

    if len(set(table.column_names)) < len(table.column_names):
        raise ValueError(f"columns of one name: {', '.join(table.column_names)}")
    if "barcode" not in table.column_names:
        return table.to_pandas()
    texts = table["barcode"].cast(pa.large_string())
    frame = table.drop_columns(["barcode"]).to_pandas()
    frame["barcode"] = pd.array(texts, dtype="string[pyarrow]")
    return frame


def _table(path: Path) -> pd.DataFrame:
    """Old versions write no header, new ones do, and the name does not say which: the first line does."""
    import pandas as pd

    with open_text(path) as text:
        try:
            fields = [field.strip() for field in next(csv.reader([text.readline()]), [])]
        except csv.Error as error:
            raise UserError(f"{path} is not a table of positions ({reason_of(error)}) - fetch it again") from error
        headed = set(COLUMNS) <= set(fields)  # further columns do no harm
        if not headed and len(fields) != len(COLUMNS):
            raise UserError(
                f"{path} is not a table of positions (its first line has {len(fields)} fields separated by commas) - "
                f"it needs {', '.join(COLUMNS)}"
            )
        # by the positions: in_tissue may be 1, 1.0, TRUE, with or without quotes
        headless = all(as_number(field) is not None for field in fields[2:])
        text.seek(0)
        # no column may become the index where lines are longer than the header: that is warned of
        options: dict[str, Any] = {"skipinitialspace": True, "index_col": False}
        names: dict[str, Any] = {"header": None, "names": COLUMNS} if headless else {}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                table = pd.read_csv(text, converters={"barcode": str.strip}, **options, **names)
                return table.rename(columns=str.strip)
        except UnicodeDecodeError:
            raise  # who opened the text tells it
        except (ValueError, csv.Error, OverflowError, pd.errors.ParserWarning) as error:
            raise UserError(f"{path} is not a table ({reason_of(error)}) - fetch it again") from error
