"""Spots whose positions are given: a table of positions, or an AnnData file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UserError, reason_of
from ..slides.lattice import pitch
from ..system.compressed import existing, is_parquet, open_binary, open_text
from ..system.tables import as_numbers

if TYPE_CHECKING:
    import pandas as pd

SPACE_RANGER = ("barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres")
# columns of x and y in full-resolution pixels, and those of the array beside them, as the first found is taken
POSITIONS = (
    (("pxl_col_in_fullres", "pxl_row_in_fullres"), ("array_col", "array_row")),
    (("pixel_x", "pixel_y"), ("x", "y")),
    (("x", "y"), ("array_col", "array_row")),
)
NAMES = ("barcode", "spot", "spot_id", "name", "")  # columns that name spots; "": a first column without a name
UNDER_TISSUE = ("in_tissue", "selected")  # columns that say so: Space Ranger's, first-generation arrays'
STEPS_PER_PITCH = 4  # of an array that is made up, as the readers make it up: neighbours seldom share a place
MADE_UP = (
    "no places on an array are given: they are made up from the positions, on a grid of a quarter of the spots' pitch, "
    "which matters to methods that look at them"
)


@dataclass(frozen=True)
class Spots:
    """Where to predict."""

    names: tuple[str, ...]
    centres: np.ndarray  # (n, 2) float64: x, y in full-resolution pixels
    array_xy: np.ndarray  # (n, 2) int64: array column, array row
    diameter: float | None = None  # full-resolution pixels; None: not given
    notes: tuple[str, ...] = ()


def read_spots(path: Path) -> Spots:
    """The spots in a table (CSV, TSV or Parquet, each perhaps gzipped) or an ``.h5ad`` file; of tissue alone.

    Positions are in full-resolution pixels of the image. Raises ``UserError`` for what holds none.
    """
    path = existing(Path(path))
    diameter = None
    if path.name.lower().endswith((".h5ad", ".h5ad.gz")):
        table, diameter = _of_annotated(path)
    else:
        table = _of_table(path)
    for column in UNDER_TISSUE:
        if column in table:
            table = table[_numbers(table, column, path) == 1]
    if table.empty:
        raise UserError(f"{path} lists no spot on tissue - give positions of spots")
    found = [both for both in POSITIONS if set(both[0]) <= set(table.columns)]
    if not found:
        raise UserError(
            f"{path} has no columns of positions (it has {', '.join(map(str, table.columns))}) - it needs x and y, "
            "in full-resolution pixels, or what Space Ranger writes"
        )
    position, place = found[0]
    centres = np.column_stack([_numbers(table, name, path).astype(np.float64) for name in position])
    if not np.isfinite(centres).all():
        row = int(np.argmin(np.isfinite(centres).all(axis=1)))
        raise UserError(f"{path}: spot {row + 1} has no position - give every spot's x and y, or leave it out")
    notes: tuple[str, ...] = ()
    if set(place) <= set(table.columns):
        places = np.column_stack([_numbers(table, name, path).astype(np.float64) for name in place])
        if not np.isfinite(places).all():
            raise UserError(f"{path}: {' or '.join(place)} of a spot is missing - give every spot's, or no such column")
        array_xy = np.rint(places).astype(np.int64)
    else:
        array_xy, notes = _made_up_array(centres), (MADE_UP,)
    return Spots(_names(table, array_xy, path), centres, array_xy, diameter, notes)


def _of_annotated(path: Path) -> tuple[pd.DataFrame, float | None]:
    """obs with columns x and y, and the spots' diameter where the file has it; nothing else of it is read."""
    import h5py
    import numpy as np
    from anndata.io import read_elem

    try:
        with open_binary(path) as stream, h5py.File(stream, "r") as file:
            obs = read_elem(file["obs"])
            positions = np.asarray(read_elem(file["obsm/spatial"]), dtype=np.float64)
            factors = [
                section.get("scalefactors/spot_diameter_fullres") for section in file.get("uns/spatial", {}).values()
            ]
            known = [float(factor[()]) for factor in factors if factor is not None]
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f'{path} holds no spots that can be read ({reason_of(error)}) - it needs obsm["spatial"]'
        ) from error
    if positions.ndim != 2 or positions.shape[1] < 2:
        raise UserError(f'{path}: obsm["spatial"] has the shape {positions.shape} - it needs x and y of every spot')
    kept = [name for name in ("in_tissue", "array_row", "array_col") if name in obs]
    table = obs[kept].copy()
    table["x"], table["y"], table["spot"] = positions[:, 0], positions[:, 1], obs.index.astype(str)
    return table, known[0] if len(known) == 1 and known[0] > 0 else None


def _of_table(path: Path) -> pd.DataFrame:
    """All of it text, or what Parquet holds."""
    import pandas as pd

    try:
        if is_parquet(path):
            with open_binary(path) as stream:
                return pd.read_parquet(stream)
        with open_text(path) as text:
            head = text.readline()
        split = "\t" if "\t" in head else ","
        fields = [field.strip().strip('"') for field in head.split(split)]
        plain = len(fields) == len(SPACE_RANGER) and "barcode" not in fields and fields[1] in ("0", "1")
        with open_text(path) as text:
            table = pd.read_csv(
                text, sep=split, dtype=str, keep_default_na=False, index_col=False, skipinitialspace=True,
                header=None if plain else 0, names=list(SPACE_RANGER) if plain else None,
            )  # fmt: skip
    except (OSError, ValueError) as error:  # pandas' and pyarrow's errors are subclasses of these
        raise UserError(f"{path} is not a table of positions ({reason_of(error)}) - give CSV or Parquet") from error
    return table.rename(columns=lambda name: "" if str(name).startswith("Unnamed: ") else str(name).strip())


def _numbers(table: pd.DataFrame, name: str, path: Path) -> np.ndarray:
    column = table[name]
    try:
        return np.asarray((as_numbers(column) if column.dtype == object else column.astype(float)).to_numpy())
    except ValueError as error:
        raise UserError(f"{path}: {reason_of(error)} - {name} must be numbers") from error


def _names(table: pd.DataFrame, array_xy: np.ndarray, path: Path) -> tuple[str, ...]:
    found = next((name for name in NAMES if name in table.columns), None)
    names = [f"{x}x{y}" for x, y in array_xy] if found is None else table[found].astype(str).tolist()
    if len(set(names)) < len(names):
        if found is not None:
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"{path} names the spot {twice} more than once - each must stand there once")
        names = [f"spot{number}" for number in range(1, len(names) + 1)]
    return tuple(names)


def _made_up_array(centres: np.ndarray) -> np.ndarray:
    """(n, 2) int64 of places from 0 on."""
    distance = pitch(centres)
    step = distance / STEPS_PER_PITCH if np.isfinite(distance) else 1.0
    return np.floor((centres - centres.min(axis=0)) / step).astype(np.int64)
