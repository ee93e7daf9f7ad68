"""What a trial costs where no past one tells: a table beside the methods, as data, and a stated guess for all others.

The table is the file ``costs.toml`` of the package that registers a method, or of a package above it. It has one part
for a method and preset, ``[stnet.published]``; other presets of the method count as ``published``::

    [mine.published]
    core_s = 0.02         # seconds of one core, for one training spot in one epoch
    gpu_s = 0.0005        # seconds of a data-centre GPU, for the same
    memory_mib = 2000     # resident memory at its peak, on a CPU, libraries included
    gpu_memory_mib = 4000 # the same of a GPU
    model_mib = 30        # a trained model, where it is kept

``gpu_s`` and ``gpu_memory_mib`` are not looked at where steps of the method were counted (``counted.json``). What a
method out of a TOML file costs, that file says itself.
"""

from __future__ import annotations

import os
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DamagedFileError, UserError, first_problem
from ..registry import is_toml, method
from .beside import beside

FILE = "costs.toml"
PUBLISHED = "published"


class Rate(BaseModel):
    """What a method costs under one preset. A row of the table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    core_s: float  # seconds of one core, for one training spot in one epoch
    memory_mib: float  # resident memory at its peak, on a CPU
    model_mib: float  # a trained model, where it is kept
    gpu_s: float = 0.001  # seconds of a GPU, for the same as core_s
    gpu_memory_mib: float = 6000  # of a GPU, at its peak
    fit_s: float = 0.0  # of training a fold, whatever its size, where its author says it


# A method that no table knows, such as a plug-in: a small convolutional network on patches of 224 px.
UNKNOWN = Rate(core_s=0.1, memory_mib=3000, model_mib=50)


@cache
def rate(name: str, preset: str, origin: str = "") -> Rate:
    """The row of a method and preset: its own, else the method's ``published``, else :data:`UNKNOWN`.

    ``origin``: where the method was found (:func:`stbench.registry.origin`), which may be a TOML file.
    """
    if is_toml(origin):
        return _declared(origin)
    rows = _rows(name)
    return rows.get(preset) or rows.get(PUBLISHED) or UNKNOWN


def _declared(origin: str) -> Rate:
    try:
        said = getattr(method(origin), "costs", {})
    except UserError:  # the file, or its environment, is on another machine: the estimate rests on less
        return UNKNOWN
    changes = {
        "fit_s": 60 * said.get("minutes", 0.0),
        "memory_mib": 1024 * said["memory_gib"] if "memory_gib" in said else UNKNOWN.memory_mib,
        "gpu_memory_mib": 1024 * said["gpu_memory_gib"] if "gpu_memory_gib" in said else UNKNOWN.gpu_memory_mib,
        "model_mib": said.get("model_mib", UNKNOWN.model_mib),
    }
    return UNKNOWN.model_copy(update=changes)


def _rows(name: str) -> dict[str, Rate]:
    path = beside(name, FILE)
    rows = {} if path is None else _read(path).get(name, {})
    try:
        return {preset: Rate.model_validate(row) for preset, row in rows.items()}
    except ValidationError as error:
        raise DamagedFileError(f"{path}, [{name}]: {first_problem(error)}") from error


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
