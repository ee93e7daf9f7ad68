"""Reads what stbench hands to a command, and writes predictions back. Needs h5py and numpy, nothing of stbench.

It lies on the command's PYTHONPATH under the name stbench_exchange, and may be copied. Version 1 of the folder::

    task = Task(sys.argv[1])
    for slide in task.slides:
        slide.patches[0], slide.target[0]  # of the first spot; target, counts, total_counts: of training slides alone
        slide.write(prediction)  # (n_spots, n_genes), of a slide to be predicted
"""

from __future__ import annotations

import json
import os
from typing import Any

import h5py
import numpy as np


class Task:
    """A folder that a command was given: its settings, its places and its slides."""

    def __init__(self, folder: str) -> None:
        with open(os.path.join(folder, "exchange.json"), encoding="utf-8") as file:
            self.about = json.load(file)
        if self.about["exchange"] != 1:
            raise ValueError("this reader knows version 1 of the folder")
        for name in ("settings", "genes", "seed", "device", "threads", "model", "checkpoint"):
            setattr(self, name, self.about[name])
        self.slides = [Slide(folder, entry, self.about["genes"]) for entry in self.about["slides"]]

    @staticmethod
    def progress(done: int, total: int, text: str = "") -> None:
        print(f"stbench-progress {done}/{total} {text}", flush=True)

    @staticmethod
    def log(epoch: int, **values: float) -> None:
        pairs = " ".join(f"{name}={float(value)!r}" for name, value in values.items())
        print(f"stbench-log {epoch} {pairs}", flush=True)


class Slide:
    """One slide: id, patient, um_per_px, spots, array_xy, pixel_xy, patches, margins; of training slides the truth."""

    def __init__(self, folder: str, entry: dict[str, Any], genes: list[str]) -> None:
        self.id, self.patient, self.um_per_px, self.genes = entry["id"], entry["patient"], entry["um_per_px"], genes
        self.prediction = os.path.join(folder, entry["prediction"]) if entry["prediction"] else None
        with h5py.File(os.path.join(folder, entry["table"]), "r") as file:
            names = file["obs/_index"][:]
            self.spots = [name.decode() if isinstance(name, bytes) else name for name in names]
            self.array_xy = np.stack([file["obs/array_col"][:], file["obs/array_row"][:]], axis=1)
            self.pixel_xy = file["obsm/spatial"][:]
            if "X" in file:
                self.target, self.counts = file["X"][:], file["layers/counts"][:]
                self.total_counts = file["obs/total_counts"][:]
        path = os.path.join(folder, entry["patches"])
        with h5py.File(path, "r") as file:
            patches = file["patches"]  # mapped rather than read: as large as it may be, and safe in forked workers
            self.patches = np.memmap(path, np.uint8, "r", patches.id.get_offset(), patches.shape)
            self.margins = file["margins"][:] if "margins" in file else None

    def write(self, values: np.ndarray) -> None:
        """Write the prediction, (n_spots, n_genes), as the .h5ad file that is expected."""
        with h5py.File(self.prediction, "w") as file:
            file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
            matrix = file.create_dataset("X", data=np.asarray(values, dtype=np.float32))
            matrix.attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
            for name, names in (("obs", self.spots), ("var", self.genes)):
                frame = file.create_group(name)
                frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0", "_index": "_index"})
                frame.attrs.create("column-order", [], dtype=h5py.special_dtype(vlen=str))
                index = frame.create_dataset("_index", data=names, dtype=h5py.special_dtype(vlen=str))
                index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
