"""A section of a store as a slide: rows of a table, joined to the shapes that they annotate, over an image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, unknown
from stbench.slides.image import Level
from stbench.slides.slide import Slide

from ..array_indices import indices_of_positions
from ..assemble import assemble, unmatched
from ..h5ad.counts import counts_and_genes
from ..h5ad.scale import um_per_px_of
from .picture import StoreImage
from .store import SIZES, Chosen, chosen, matrix_of, opened, transformations

SQUARE = re.compile(r"square_0*(\d+)um")  # as the bins of Visium HD are called
MICRONS = ("micron", "microns", "um", "µm")  # names of coordinate systems
XENIUM_UM = 0.2125  # of a pixel of its coordinate system "global", which its shapes are scaled to


def read(
    slide_id: str,
    patient: str,
    folder: Path,
    *,
    library: str | None = None,
    table: str | None = None,
    picture: str | None = None,
    coordinate_system: str | None = None,
    layer: str | None = None,
    label: str | None = None,
    pitch_um: float | None = None,
) -> Slide:
    """Read the region ``library`` with its ``table`` over the image ``picture``: each may be left out if it is alone.

    Spots are in the table's order, their centres those of circles, or centroids of polygons or labels, taken to pixels
    of the image by the transformations of a coordinate system in which both lie. ``layer`` says where the counts are.

    Raises ``UserError`` for a store that cannot be read, and where there is something to choose.
    """
    store = opened(folder)
    parts = chosen(folder, store, library, table, picture, coordinate_system)
    rows = _rows(folder, store.tables[parts.table], parts)
    notes: list[str] = []
    names, places, diameter = _places(folder, store, parts)
    rows, own = _joined(folder, rows, names, places, parts, notes)
    counts, genes = counts_and_genes(folder, rows, layer, notes)
    image, to_pixels = _image(folder, parts)
    centres = own @ to_pixels[:2, :2].T + to_pixels[:2, 2]
    scale = float(np.sqrt(abs(np.linalg.det(to_pixels[:2, :2]))))
    array_xy, on_array = _array_xy(rows, centres, notes)
    diameter_px = None if diameter is None or not on_array else diameter * scale
    um_per_px, source = _um_per_px(store, parts, to_pixels, array_xy, centres, diameter_px, pitch_um)
    notes.append(f"{parts.region} of the table {parts.table} is placed on {parts.image} by '{parts.systems[0]}'")
    return assemble(
        slide_id,
        patient,
        counts=counts,
        genes=genes,
        spot_ids=_spot_ids(rows, parts),
        array_xy=array_xy,
        centres=centres,
        image=image,
        um_per_px=um_per_px,
        um_per_px_from=source,
        spot_diameter_px=diameter_px,
        labels=_labels(folder, rows, label),
        notes=notes,
    )


def _rows(folder: Path, table: Any, parts: Chosen) -> Any:
    """The rows of the table that annotate the region, those under tissue where it says so."""
    for key in (parts.region_key, parts.instance_key):
        if key not in table.obs:
            raise UserError(f"{folder}: the table {parts.table} lacks obs['{key}'] - write it again with spatialdata")
    of_region = (table.obs[parts.region_key].astype(str) == parts.region).to_numpy()
    if "in_tissue" in table.obs:
        of_region &= (table.obs["in_tissue"].astype(str).isin(["1", "1.0", "True"])).to_numpy()
    if not of_region.any():
        raise UserError(f"{folder}: the table {parts.table} has no row under tissue of the region {parts.region}")
    rows = table[of_region].copy()
    instances = rows.obs[parts.instance_key].astype(str)
    if instances.duplicated().any():
        twice = instances[instances.duplicated()].iloc[0]
        raise UserError(f"{folder}: the table {parts.table} has several rows of {twice} of {parts.region}")
    return rows


def _places(folder: Path, store: Any, parts: Chosen) -> tuple[list[str], np.ndarray, float | None]:
    """Names of the region's instances, their places (n, 2) in its own coordinates, and the diameter of circles."""
    if parts.region in store.shapes:
        frame = store.shapes[parts.region]
        middle = frame.geometry.centroid
        radius = np.asarray(frame["radius"], dtype=np.float64) if "radius" in frame else np.empty(0)
        places = np.column_stack([middle.x, middle.y]).astype(np.float64)
        known = len(radius) and np.isfinite(radius).all() and np.ptp(radius) <= 0.01 * radius.max()
        return [str(name) for name in frame.index], places, 2 * float(radius.mean()) if known else None
    from spatialdata import get_centroids

    system = parts.systems[0]
    points = get_centroids(store.labels[parts.region], coordinate_system=system).compute()
    back = np.linalg.inv(matrix_of(transformations(store[parts.region])[system]))
    places = points[["x", "y"]].to_numpy(dtype=np.float64) @ back[:2, :2].T + back[:2, 2]
    return [str(name) for name in points.index], places, None


def _joined(
    folder: Path, rows: Any, names: list[str], places: np.ndarray, parts: Chosen, notes: list[str]
) -> tuple[Any, np.ndarray]:
    """The rows that have a place, and their places; a table need not be in the order of what it annotates."""
    if len(set(names)) < len(names):
        raise UserError(f"{folder}: {parts.region} has several instances of one name - give each its own")
    row = {name: position for position, name in enumerate(names)}
    instances = [str(name) for name in rows.obs[parts.instance_key]]
    kept = [position for position, name in enumerate(instances) if name in row]
    if 2 * len(kept) < len(instances) or not kept:
        ours, theirs = unmatched(instances, names)
        raise UserError(
            f"{folder}: only {len(kept)} of {len(instances)} rows of the table {parts.table} are in {parts.region} "
            f"({ours} there, {theirs} here) - the two do not belong together"
        )
    if len(kept) < len(instances):
        notes.append(f"{len(instances) - len(kept)} of {len(instances)} rows have no place and are left out")
        rows = rows[kept].copy()
    own = places[[row[instances[position]] for position in kept]]
    if not np.isfinite(own).all():
        bad = int((~np.isfinite(own).all(axis=1)).sum())
        raise UserError(f"{folder}: {bad} instances of {parts.region} have no place (NaN) - leave them out")
    return rows, own


def _image(folder: Path, parts: Chosen) -> tuple[StoreImage, np.ndarray]:
    """The image, and the matrix from the region's coordinates to full-resolution pixels.

    Where spots are circles over a small picture of Visium, their own coordinates are the full-resolution pixels, of
    which the picture is a reduced copy; else the finest level of the image is at full resolution.
    """
    place = folder / "images" / parts.image
    match, linear = SIZES.fullmatch(parts.image), parts.to_image[:2, :2]
    small: Level | None = {"hires": "hires", "lowres": "lowres"}.get(match[2]) if match is not None else None  # type: ignore[assignment]
    scale = float(linear[0, 0])
    if small is None or not 0 < scale < 1 or not np.allclose(parts.to_image, np.diag([scale, scale, 1]), atol=1e-6):
        return StoreImage(folder=place, channels=parts.channels), parts.to_image
    return StoreImage(scale=scale, level=small, folder=place, channels=parts.channels), np.eye(3)


def _array_xy(rows: Any, centres: np.ndarray, notes: list[str]) -> tuple[np.ndarray, bool]:
    """(n, 2) int64: array column, array row; and whether the table says them."""
    import pandas as pd

    if {"array_row", "array_col"} <= set(rows.obs):
        columns = [pd.to_numeric(rows.obs[name], errors="coerce") for name in ("array_col", "array_row")]
        given = np.stack([column.to_numpy(dtype=np.float64, na_value=np.nan) for column in columns], axis=1)
        if np.isfinite(given).all() and (given == np.rint(given)).all():
            return given.astype(np.int64), True
        notes.append("array_row and array_col are no integers")
    notes.append("places on an array are made up from the positions")
    return indices_of_positions(centres), False


def _um_per_px(
    store: Any,
    parts: Chosen,
    to_pixels: np.ndarray,
    array_xy: np.ndarray,
    centres: np.ndarray,
    diameter_px: float | None,
    pitch_um: float | None,
) -> tuple[float | None, str]:
    """µm per full-resolution pixel, and where that comes from."""
    own = transformations(store[parts.region])
    per_unit = float(np.sqrt(abs(np.linalg.det(to_pixels[:2, :2]))))  # pixels to a unit of the region
    for name in own:
        if name.lower() in MICRONS:
            um = float(np.sqrt(abs(np.linalg.det(matrix_of(own[name])[:2, :2]))))
            return um / per_unit, f"the coordinate system '{name}'"
    if "global" in own and np.allclose(matrix_of(own["global"]), np.diag([1 / XENIUM_UM] * 2 + [1]), rtol=1e-4):
        return 1 / per_unit, "its shapes, which are in µm as Xenium's"
    square = SQUARE.search(parts.region)
    if square is not None and pitch_um is None:
        pitch_um = float(square[1])
    factors = {} if diameter_px is None else {"spot_diameter_fullres": diameter_px}
    return um_per_px_of(factors, array_xy, centres, pitch_um)


def _spot_ids(rows: Any, parts: Chosen) -> list[str]:
    """The table's own names where they are unique, as barcodes are; else those of the instances."""
    return [str(name) for name in (rows.obs_names if rows.obs_names.is_unique else rows.obs[parts.instance_key])]


def _labels(folder: Path, rows: Any, column: str | None) -> list[str | None] | None:
    if column is None:
        return None
    if column not in rows.obs:
        raise unknown(f"column of obs in {folder}", column, map(str, rows.obs.columns))
    values = rows.obs[column].astype(object)
    return [None if missing else str(value) or None for value, missing in zip(values, values.isna(), strict=True)]
