"""SpatialData stores in manifests and imports; what needs the library is imported when a store is read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from stbench.errors import UserError
from stbench.slides.slide import Slide

from ..h5ad.normalised import normalised_in
from ..reader import Opened, Reader
from .store import is_store, require_library, store_files


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    folder = values["folder"]
    if not is_store(folder):
        raise UserError(
            f"{folder} is not a SpatialData store with a table that annotates shapes - give the .zarr folder"
        )
    require_library()
    options = {name: value for name, value in values.items() if name != "folder"}
    return partial(_read, slide_id, patient, folder, options), store_files(folder)


def _read(slide_id: str, patient: str, folder: Path, options: dict[str, Any]) -> Slide:
    from .section import read

    return read(slide_id, patient, folder, **options)


def _recognises(path: Path) -> str | None:
    return "it is a Zarr store with tables and shapes" if is_store(path) else None


def _refuses(values: dict[str, Any]) -> str | None:
    """As of an AnnData file; the table need not be named where it is alone."""
    if "layer" in values:
        return None
    import zarr

    tables = values["folder"] / "tables"
    named = values.get("table") or next((path.name for path in sorted(tables.glob("*/")) if path.is_dir()), "")
    try:
        fault = normalised_in(values["folder"], zarr.open_group(tables / named, mode="r"))
    except Exception:  # noqa: BLE001 - of a damaged store, which is told in words when it is read
        return None
    return None if fault is None else str(fault)


READER = Reader(
    name="spatialdata",
    what="a SpatialData store (.zarr)",
    source="folder",
    open=_open,
    recognises=_recognises,
    refuses=_refuses,
    numbers=("pitch_um",),
    words=("library", "table", "picture", "coordinate_system", "layer", "label"),
)
