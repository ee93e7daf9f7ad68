"""Published checkpoints: their tensors under the names used here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch

# (regular expression for a published name, its replacement) pairs, of which the first full match counts
Renames = Sequence[tuple[str, str]]


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
