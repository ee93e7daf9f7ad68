"""Published checkpoints: read without unpickling anything but tensors, and renamed to the names used here."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from stbench.errors import UserError

# (regular expression for a published name, its replacement) pairs, of which the first full match counts
Renames = Sequence[tuple[str, str]]


def read_checkpoint(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a published checkpoint by their published names.

    Lightning checkpoints hold them under ``state_dict``, others are the dictionary itself. Read with
    ``weights_only=True``: a file that needs anything else unpickled is refused with a ``UserError``.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"no checkpoint at {path} - give the path of a downloaded .ckpt or .pth file") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"{path} cannot be read as plain weights ({reason}) - it must hold tensors alone; nothing else is unpickled"
        ) from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state_dict - give a Lightning checkpoint or a saved state_dict")
    return dict(state)


def rename(state: Mapping[str, torch.Tensor], renames: Renames) -> dict[str, torch.Tensor]:
    """``state`` under the names used here; a name that no rule matches stays as it is."""
    renamed = {}
    for name, value in state.items():
        for pattern, replacement in renames:
            if re.fullmatch(pattern, name):
                name = re.sub(pattern, replacement, name)
                break
        renamed[name] = value
    return renamed
