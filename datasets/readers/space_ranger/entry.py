"""Space Ranger folders in manifests and imports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from stbench.errors import UserError
from stbench.system.compressed import existing

from ..reader import Opened, Reader
from .files import find
from .layout import AGGREGATED, is_cells, is_high_definition, is_output
from .names import files_named
from .scale import VISIUM_PITCH_UM
from .section import read


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    image = values.get("image")
    files = find(
        values["folder"],
        None if image is None else existing(image),
        bin_um=values.get("bin_um"),
        cells=values.get("cells", False),
        prefix=values.get("prefix"),
    )
    pitch_um = values.get("pitch_um", VISIUM_PITCH_UM)
    return partial(read, slide_id, patient, files, pitch_um=pitch_um), files.paths()


def _recognises(path: Path) -> str | None:
    try:
        if is_high_definition(path):
            return "it holds the bins of a Visium HD run"
        if is_cells(path):
            return "it holds the segmented cells of a Visium HD run"
        if is_output(path):
            return "it holds positions of spots and a feature-barcode matrix"
        if path.is_dir() and any(files_named(path, name) for name in AGGREGATED):
            return "it holds what 'spaceranger aggr' writes"
    except UserError:  # of several sections, for instance: said when it is opened
        return "it holds files as Space Ranger writes them"
    except OSError:  # it may not be read: not for this question to say
        return None
    return None


READER = Reader(
    name="space-ranger",
    what="an output folder of Space Ranger",
    source="folder",
    open=_open,
    recognises=_recognises,
    optional_paths=("image",),
    numbers=("pitch_um", "bin_um"),
    words=("prefix",),
    switches=("cells",),
)
