"""What a trial costs where no past one tells: a table beside the methods, as data, and a stated guess for all others.

The table is the file ``costs.toml`` of the package that registers a method, or of a package above it. It has one part
for a method and preset, ``[stnet.published]``; other presets of the method count as ``published``::

    [mine.published]
    core_s = 0.02         # seconds of one core, for one training spot in one epoch
    gpu_s = 0.0005        # seconds of a data-centre GPU, for the same
    memory_mib = 2000     # resident memory at its peak, on a CPU, libraries included
    gpu_memory_mib = 4000 # the same of a GPU
    model_mib = 30        # a trained model, where it is kept
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DamagedFileError, first_problem
from ..registry import METHODS

FILE = "costs.toml"
PUBLISHED = "published"


class Rate(BaseModel):
    """What a method costs under one preset. A row of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    core_s: float  # seconds of one core, for one training spot in one epoch
    gpu_s: float  # seconds of a GPU, for the same
    memory_mib: float  # resident memory at its peak, on a CPU
    gpu_memory_mib: float
    model_mib: float  # a trained model, where it is kept


# A method that no table knows, such as a plug-in: a small convolutional network on patches of 224 px.
UNKNOWN = Rate(core_s=0.1, gpu_s=0.001, memory_mib=3000, gpu_memory_mib=6000, model_mib=50)


@cache
def rate(method: str, preset: str) -> Rate:
    """The row of a method and preset: its own, else the method's ``published``, else :data:`UNKNOWN`."""
    rows = _rows(method)
    return rows.get(preset) or rows.get(PUBLISHED) or UNKNOWN


def _rows(method: str) -> dict[str, Rate]:
    for entry in entry_points(group=METHODS, name=method):
        path = _table_of(entry.module)
        if path is not None:
            rows = _read(path).get(method, {})
            try:
                return {preset: Rate.model_validate(row) for preset, row in rows.items()}
            except ValidationError as error:
                raise DamagedFileError(f"{path}, [{method}]: {first_problem(error)}") from error
    return {}


def _table_of(module: str) -> Path | None:
    """The nearest table to the top of a module's package; only packages above the module are imported, never itself."""
    parts = module.split(".")
    for depth in range(1, len(parts)):
        package = find_spec(".".join(parts[:depth]))
        for folder in [] if package is None else package.submodule_search_locations or []:
            path = Path(folder) / FILE
            if path.is_file():
                return path
    return None


@cache
def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DamagedFileError(f"{path} is not valid TOML ({error})") from error


def has_gpu() -> bool:
    """Whether this machine shows a GPU, as far as can be told without importing torch."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    return not hidden and any(os.path.exists(node) for node in ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg"))
