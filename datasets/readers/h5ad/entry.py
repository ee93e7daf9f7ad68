"""AnnData files in manifests and imports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from ..hest.files import is_sample as is_hest_sample
from ..reader import Opened, Reader, named_files
from .normalised import normalised
from .picture import named_image
from .read import read


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    files = named_files(values)
    named = named_image(values["file"], values.get("library"))
    if named is not None and "image" not in values:
        files += (named,)
    options = {name: value for name, value in values.items() if name != "file"}
    return partial(read, slide_id, patient, values["file"], **options), files


def _recognises(path: Path) -> str | None:
    if not path.is_file() or path.suffix.lower() != ".h5ad" or is_hest_sample(path):
        return None
    return "its name ends in .h5ad"


def _refuses(values: dict[str, Any]) -> str | None:
    fault = None if "layer" in values else normalised(values["file"])
    return None if fault is None else str(fault)


READER = Reader(
    name="h5ad",
    what="an AnnData file (.h5ad)",
    source="file",
    open=_open,
    recognises=_recognises,
    refuses=_refuses,
    optional_paths=("image",),
    numbers=("pitch_um",),
    words=("library", "label", "layer"),
)
