"""Golden numbers of the published implementations: where they lie, and the weights and pixels behind them.

A golden file holds what a published implementation computed on the CPU in float32 for one small configuration.
Weights and pixels are not stored: they follow from their names by the rule below, so that anyone can regenerate
them.

A parity test runs over every file of its method, whatever folder the files come from::

    @pytest.mark.parametrize("path", golden.files("histogene"), ids=golden.name)
    def test_forward(path):
        stored = golden.read(path)
        config = golden.config(stored)
        model.load_state_dict({name: torch.from_numpy(array) for name, array in golden.weights(stored).items()})
        patches = golden.pixels(stored, (1, 13, 192)).astype(np.float32)
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def folder() -> Path:
    """The folder of golden files: ``STBENCH_PARITY`` where it is set, else ``fixtures`` beside this file."""
    place = Path(os.environ.get("STBENCH_PARITY") or Path(__file__).parent / "fixtures")
    if not place.is_dir():
        raise FileNotFoundError(f"STBENCH_PARITY names {place}, which is not a folder")
    return place


def files(prefix: str) -> list[Path]:
    """Every golden file whose name begins with ``prefix``: ``histogene`` finds histogene.npz, histogene_wide.npz"""
    return sorted(path for path in folder().glob(f"{prefix}*.npz"))


def name(path: Path) -> str:
    return path.stem


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in stored.files}


def config(stored: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arguments of the published model's constructor."""
    return json.loads(str(stored["config"]))


def weights(stored: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The published model's state dict, in its order and under its names: float32, counters int64."""
    salt = str(stored["salt"])
    names_and_shapes = zip(stored["weight_names"], stored["weight_shapes"], strict=True)
    return {str(name): _weight(salt, str(name), tuple(json.loads(str(shape)))) for name, shape in names_and_shapes}


def pixels(stored: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """The patches that were fed, uint8, of ``shape``; the published networks took them as float32 0..255."""
    return _generator(str(stored["salt"]), "input.patches").randint(0, 256, shape).astype(np.uint8)


def _generator(salt: str, name: str) -> np.random.RandomState:  # the legacy generator: its streams are fixed for ever
    return np.random.RandomState(zlib.crc32(f"{salt}/{name}".encode()))


def _weight(salt: str, name: str, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, dtype=np.int64)
    noise = _generator(salt, name).standard_normal(shape)
    if name.endswith("running_var"):
        values = 1 + 0.1 * np.abs(noise)
    elif len(shape) >= 2:
        values = noise / math.sqrt(math.prod(shape[1:]))
    else:
        values = 0.1 * noise + (1.0 if name.endswith("weight") else 0.0)
    return np.asarray(values, dtype=np.float32)
