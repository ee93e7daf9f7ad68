"""SpatialData stores in manifests and imports; what needs the library is imported when a store is read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from stbench.errors import UserError
from stbench.slides.slide import Slide

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


READER = Reader(
    name="spatialdata",
    what="a SpatialData store (.zarr)",
    source="folder",
    open=_open,
    recognises=_recognises,
    numbers=("pitch_um",),
    words=("library", "table", "picture", "coordinate_system", "layer", "label"),
)
