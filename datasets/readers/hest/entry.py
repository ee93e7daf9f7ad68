"""HEST samples in manifests and imports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from stbench.errors import UserError

from ..reader import Opened, Reader
from .files import expression_of, find, is_collection, is_sample, samples_in
from .metadata import patient_in, read_metadata
from .sample import read


def _open(slide_id: str, patient: str, values: dict[str, Any]) -> Opened:
    files = find(values["sample"], slide_id, values.get("image"))
    return partial(read, slide_id, patient, files, label=values.get("label")), files.paths()


def _recognises(path: Path) -> str | None:
    if is_sample(path):
        return "it lies in st/ or adata/, with its metadata, image or patches beside"
    return "it holds st/ or adata/ with samples of HEST" if is_collection(path) else None


def _patient_of(path: Path, slide_id: str) -> str | None:
    try:
        expression = expression_of(path, slide_id)
        return patient_in(read_metadata(expression.absolute().parent.parent / "metadata" / f"{expression.stem}.json"))
    except UserError:  # nothing is said where it should be, and whoever reads the sample is told what is wrong
        return None


READER = Reader(
    name="hest",
    what="a sample of HEST-1k (st/ID.h5ad), or the folder of the collection",
    source="sample",
    open=_open,
    recognises=_recognises,
    patient_of=_patient_of,
    several=samples_in,
    optional_paths=("image",),
    words=("label",),
)
