"""Files of weights: read without running anything that is in them, and their entries under the names of a network."""

from __future__ import annotations

import argparse
import contextlib
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from .pretrained import weights_file

CLASSIFIERS = ("classifier.", "fc.", "head.", "last_linear.")
ENTRIES = ("state_dict", "model", "teacher")  # checkpoints keep weights beside the optimiser's state, or a student's


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a .pth or .safetensors file by name, of its entry ``state_dict``, ``model`` or ``teacher`` where
    it has one.

    Nothing but tensors and plain containers is ever unpickled. Raises ``UserError``.
    """
    state: object
    weights_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            with _namespaces_allowed():
                state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own words on a pickle advise to load it unsafely
        reason = "it is no file of tensors" if isinstance(error, pickle.UnpicklingError) else str(error)[:160]
        raise UserError(
            f"cannot read weights from {path} ({type(error).__name__}: {' '.join(reason.split())}) - a .pth or"
            " .safetensors file of plain tensors is needed, nothing else is unpickled"
        ) from error
    for key in ENTRIES:
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict - save one with torch.save(model.state_dict(), path)")
    return dict(state)


@contextlib.contextmanager
def _namespaces_allowed() -> Iterator[None]:
    """Checkpoints of DINO and iBOT keep their command line's arguments, which are a namespace of plain values."""
    before = torch.serialization.get_safe_globals()
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)


def select(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """The entries of ``state`` that belong to the trunk, under the names ``expected``, whatever stands before them.

    Found by the trunk's first entry: ``module.features.conv0.weight`` and ``conv0.weight`` are both
    ``features.conv0.weight``. What stands under another prefix (a projection head, another network) is not the trunk's.
    Raises ``KeyError`` where there is no such entry.
    """
    state = {_modern_name(key): value for key, value in state.items()}
    first = expected[0]
    container, _, bare = first.partition(".") if first.startswith("features.") else ("", "", first)
    for anchor, added in ((first, ""), (bare, f"{container}." if container else "")):
        matches = [key for key in state if key == anchor or key.endswith("." + anchor)]
        if matches:
            prefix = min(matches, key=len).removesuffix(anchor)
            inside = {added + key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
            return pooled_names(without_classifier(inside, expected), expected)
    raise KeyError(f"no entry is named {first}; the first of the file is {next(iter(state))}")


def without_classifier(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """``state`` without a classifier that the trunk does not have; what else is superfluous stays, to be refused."""
    return {key: value for key, value in state.items() if key in expected or not key.startswith(CLASSIFIERS)}


def pooled_names(state: Mapping[str, Tensor], expected: list[str]) -> dict[str, Tensor]:
    """``state`` under the names ``expected``: a ViT that averages calls its last norm ``fc_norm``, files ``norm``."""
    if "fc_norm.weight" not in expected or "fc_norm.weight" in state:
        return dict(state)
    return {f"fc_{key}" if key in ("norm.weight", "norm.bias") else key: value for key, value in state.items()}


def published_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """torchvision's published ``state`` under its networks' names, without the classifier."""
    return {_modern_name(key): value for key, value in state.items() if not key.startswith(CLASSIFIERS)}


def _modern_name(key: str) -> str:
    """torchvision's published DenseNet files say ``denselayer1.norm.1.weight`` for ``denselayer1.norm1.weight``."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", key)
