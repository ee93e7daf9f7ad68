"""A trained torch method in its folder: JSON for what it is, safetensors for what it has learnt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import UserError
from ..system.files import read_object, reading_tensors, replacing, write_json
from ..system.precision import Precision

TRAIN_AGAIN = "restore it, or train again"
FACTS = ("method", "shape", "precision", "weights_label")  # in shape.json
CONFIG, SHAPE, WEIGHTS, EXTRAS = "config.json", "shape.json", "weights.safetensors", "extras.safetensors"


@dataclass(frozen=True)
class SavedMethod:
    """What a model folder holds of a torch method."""

    method: str  # its name
    config: Mapping[str, Any]  # JSON-able
    shape: dict[str, Any]  # of the network, JSON-able
    precision: Precision  # in which it was trained
    weights_label: str  # where its weights started from
    weights: Mapping[str, Tensor]  # the network's state
    extras: Mapping[str, Tensor] = field(default_factory=dict)  # what it keeps beside the network

    def write(self, directory: Path) -> None:
        """Into an existing folder; without extras no file is written for them."""
        write_json(directory / CONFIG, self.config)
        write_json(directory / SHAPE, {name: getattr(self, name) for name in FACTS})
        _save_tensors(directory / WEIGHTS, self.weights)
        if self.extras:
            _save_tensors(directory / EXTRAS, self.extras)

    @classmethod
    def read(cls, directory: Path, method: str) -> SavedMethod:
        """The folder of a method of this name; ``UserError`` where files are missing, damaged or another method's."""
        for file in (CONFIG, SHAPE, WEIGHTS):
            if not (directory / file).is_file():
                raise UserError(
                    f"{directory} is not a saved {method} model: it has no {file} - give a trial's model folder"
                )
        facts = read_object(directory / SHAPE, TRAIN_AGAIN)
        absent = [name for name in FACTS if name not in facts]
        if absent:
            raise UserError(f"{directory / SHAPE} does not say {', '.join(absent)} - {TRAIN_AGAIN}")
        if facts["method"] != method:
            raise UserError(f"{directory} holds a {facts['method']} model, not {method}")
        return cls(
            **{name: facts[name] for name in FACTS},
            config=read_object(directory / CONFIG, TRAIN_AGAIN),
            weights=_load_tensors(directory / WEIGHTS),
            extras=_load_tensors(directory / EXTRAS) if (directory / EXTRAS).is_file() else {},
        )


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with reading_tensors(path):
        return load_file(path)
