"""Space Ranger folders in manifests and imports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from stbench.system.compressed import existing

from ..reader import Opened, Reader
from .files import find, is_output
from .section import VISIUM_PITCH_UM, read


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    image = values.get("image")
    files = find(values["folder"], None if image is None else existing(image))
    pitch_um = values.get("pitch_um", VISIUM_PITCH_UM)
    return partial(read, slide_id, patient, files, pitch_um=pitch_um), files.paths()


def _recognises(path: Path) -> str | None:
    return "it holds spatial/ and a feature-barcode matrix" if is_output(path) else None


READER = Reader(
    name="space-ranger",
    what="an output folder of Space Ranger",
    source="folder",
    open=_open,
    recognises=_recognises,
    optional_paths=("image",),
    numbers=("pitch_um",),
)
