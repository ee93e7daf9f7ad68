"""Writing the folders that a command is given, and reading the predictions that it leaves.

Version 1. A folder holds ``exchange.json``, which names all that is in it, and for every slide a table (``.h5ad``) and
its patches (``.h5``). That of a slide to be predicted has no expression in it at all. The page docs/adding.md tells it
as an interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..external.predictions import read_prediction
from ..method import TestSlide, TrainingSlide
from ..system.files import write_json
from .definition import EXCHANGE
from .table_file import write_table

ABOUT = "exchange.json"
AT_A_TIME = 64 << 20  # bytes of patches in memory


@dataclass(frozen=True)
class Asked:
    """A slide whose prediction a command is to write, as predictions are matched to it."""

    id: str
    spot_ids: tuple[str, ...]
    genes: tuple[str, ...]
    array_xy: np.ndarray
    path: Path

    @property
    def n_spots(self) -> int:
        return len(self.spot_ids)

    @cached_property
    def predicted(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """(n_spots, n_genes) float32, NaN in every spot of a gene that is missing; what a reader must know.

        Raises ``UserError`` where the file is missing or does not fit.
        """
        found = read_prediction(self.path, self)
        return found.values, found.notes


def write_training(folder: Path, slides: Sequence[TrainingSlide], common: Mapping[str, Any]) -> None:
    """Write what a train command is given. ``common``: settings and places, as every task has them."""
    entries = []
    for number, slide in enumerate(slides):
        name = _file_name(number, slide.id)
        write_table(
            folder / f"{name}.h5ad",
            spot_names(slide),
            slide.genes,
            _positions(slide) | {"total_counts": slide.total_counts},
            {"spatial": slide.pixel_xy},
            slide.target,
            {"counts": slide.counts},
        )
        entries.append(_entry(folder, name, slide, None))
    _write_about(folder, "train", entries, common)


def write_test(
    folder: Path, slides: Iterable[TestSlide], genes: tuple[str, ...], common: Mapping[str, Any]
) -> list[Asked]:
    """Write what a predict command is given, slide by slide; what is expected of it."""
    entries, asked = [], []
    (folder / "predictions").mkdir()
    for number, slide in enumerate(slides):
        name = _file_name(number, slide.id)
        prediction = f"predictions/{name}.h5ad"
        spots = spot_names(slide)
        write_table(folder / f"{name}.h5ad", spots, genes, _positions(slide), {"spatial": slide.pixel_xy})
        entries.append(_entry(folder, name, slide, prediction))
        asked.append(Asked(slide.id, tuple(spots), genes, np.asarray(slide.array_xy), folder / prediction))
    _write_about(folder, "predict", entries, common)
    return asked


def spot_names(slide: TestSlide) -> list[str]:
    """A name for every spot: its place on the array, ``10x13``, or a number where places come more than once."""
    places = [f"{int(x)}x{int(y)}" for x, y in slide.array_xy]
    return places if len(set(places)) == len(places) else [f"spot{number}" for number in range(len(places))]


def _write_about(folder: Path, task: str, entries: list[dict[str, Any]], common: Mapping[str, Any]) -> None:
    write_json(folder / ABOUT, {"exchange": EXCHANGE, "task": task, **common, "slides": entries})


def _entry(folder: Path, name: str, slide: TestSlide, prediction: str | None) -> dict[str, Any]:
    """Of a slide in ``exchange.json``, once its patches are written."""
    write_patches(folder / f"{name}.h5", slide)
    return {
        "id": slide.id,
        "patient": slide.patient,
        "n_spots": slide.n_spots,
        "um_per_px": slide.um_per_px,
        "table": f"{name}.h5ad",
        "patches": f"{name}.h5",
        "prediction": prediction,
    }


def write_patches(path: Path, slide: TestSlide) -> None:
    """Write patches as HDF5, however they are kept, with no more than ``AT_A_TIME`` of them in memory.

    They lie in one piece and are not compressed, so that they can be mapped.
    """
    shape = slide.patches.shape
    with h5py.File(path, "w", libver=("earliest", "v108")) as file:
        if slide.margins is not None:
            file.create_dataset("margins", data=slide.margins)
        space = h5py.h5s.create_simple(shape)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        dataset = h5py.h5d.create(file.id, b"patches", h5py.h5t.NATIVE_UINT8, space, properties)
        offset = dataset.get_offset()
    step = max(1, AT_A_TIME // max(1, int(np.prod(shape[1:]))))
    # written past HDF5, whose own complaints of a full disk go on long after they were caught
    with open(path, "r+b") as handle:
        handle.seek(offset)
        for start in range(0, shape[0], step):
            handle.write(np.ascontiguousarray(slide.patches[start : start + step]).data)


def _positions(slide: TestSlide) -> dict[str, np.ndarray]:
    array_xy = np.asarray(slide.array_xy)
    return {"array_row": array_xy[:, 1], "array_col": array_xy[:, 0]}


def _file_name(number: int, slide: str) -> str:
    """Of a slide's files: its number, as two slides may have the same name, and its name as far as files take it."""
    return f"{number:03d}_{re.sub(r'[^A-Za-z0-9_-]', '_', slide)[:60]}"
