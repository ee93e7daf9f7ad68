"""Whether ``X`` of a file holds counts at all, told from a part of it, before anything is imported."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError
from stbench.slides.counts import count_fault

from .counts import no_counts
from .file import open_hdf5

SAMPLE = 1_000_000  # values that are looked at


def normalised(path: Path) -> UserError | None:
    """What to say where X holds normalised values and counts are elsewhere; ``None``: X may well hold counts.

    A reader takes counts from their usual places where X has none. Whoever imports a section is asked to say it.
    """
    with open_hdf5(path) as file:
        return normalised_in(path, file)


def normalised_in(path: Path, table: Any) -> UserError | None:
    """The same of an AnnData object in an open HDF5 file or Zarr group; ``path`` is what the message names."""
    places = dict(_places(table))
    faults = {place: count_fault(values) for place, values in places.items() if values.any()}
    fault = faults.get("X")
    sound = [place for place, other in faults.items() if other is None]
    return no_counts(path, {"X": fault}, sound) if fault is not None and sound else None


def _places(file: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Every matrix of numbers and its first values, those of the usual places first."""
    layers, raw = (part if hasattr(part, "keys") else {} for part in (file.get("layers"), file.get("raw")))
    names = sorted(layers, key=lambda name: name not in ("counts", "raw"))
    matrices = {"X": file.get("X"), **{f"layers['{name}']": layers[name] for name in names}}
    matrices["raw.X"] = raw.get("X")
    for place, matrix in matrices.items():
        data = matrix.get("data") if hasattr(matrix, "keys") else matrix
        if data is None or not data.shape or data.dtype.kind not in "iufb" or not data.size:
            continue
        rows = max(1, SAMPLE * data.shape[0] // data.size)
        yield place, np.asarray(data[:rows])
