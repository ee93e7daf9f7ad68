"""The fill behind the specified golden values of BLEEP and mclSTExp: sines of the published names, nothing random."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn


def phase(name: str) -> float:
    return 2 * math.pi * (zlib.crc32(name.encode()) % 1000) / 1000


def filled(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of the given published names and shapes, float64 (counters as they are, zero)."""
    return {name: _fill(name, value) for name, value in state.items()}


def _fill(name: str, value: Tensor) -> Tensor:
    if name.endswith("num_batches_tracked"):
        return torch.zeros_like(value)
    wave = torch.sin(0.7 * torch.arange(1, value.numel() + 1, dtype=torch.float64) + phase(name)).reshape(value.shape)
    if name.endswith("running_mean"):
        return 0.05 * wave
    if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
        return 1 + 0.1 * wave
    if value.ndim == 1:
        return 0.1 * wave
    return wave * math.sqrt(2 / math.prod(value.shape[1:]))


def n_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _count(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


IMAGES = (0.5 + 0.5 * torch.sin(0.013 * _count(6 * 3 * 64 * 64))).reshape(6, 3, 64, 64)
EXPRESSION = (2 * torch.sin(0.37 * _count(6 * 12) + 0.2).abs()).reshape(6, 12)
POSITIONS = torch.tensor([[(7 * i + 3) % 40, (11 * i + 5) % 40] for i in range(6)])

KEYS = torch.sin(1.1 * _count(40)).reshape(10, 4)
QUERIES = torch.cos(0.9 * _count(12)).reshape(3, 4)
VALUES = (2 * torch.sin(0.5 * _count(30)).abs()).reshape(10, 3)
