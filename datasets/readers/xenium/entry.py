"""Xenium bundles in manifests and imports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..reader import Opened, Reader
from .files import find, is_bundle
from .section import read


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    grid_um = values.get("grid_um")
    files = find(values["folder"], values.get("image"), values.get("alignment"), bins=grid_um is not None)
    return partial(read, slide_id, patient, files, grid_um=grid_um), files.paths()


def _recognises(path: Path) -> str | None:
    return "it holds experiment.xenium, or cells with their matrix" if is_bundle(path) else None


READER = Reader(
    name="xenium",
    what="an output folder of Xenium",
    source="folder",
    open=_open,
    recognises=_recognises,
    optional_paths=("image", "alignment"),
    numbers=("grid_um",),
)
