"""Whether methods that learn a whole slide at once can hold it: said before training rather than found out by it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..data.prepared import PreparedSlide
from ..method import Method
from ..system.cores import usable_memory

FLOAT32 = 4


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a training step on all spots of a slide takes at the very least; what layers keep comes on top."""

    patches: int  # as the network's input
    expression: int  # target, prediction and its gradient
    pairs: int  # tables of all pairs of spots, of a network that writes them out

    @property
    def total(self) -> int:
        return self.patches + self.expression + self.pairs

    def __str__(self) -> str:
        parts = {"patches": self.patches, "expression": self.expression, "pairs of spots": self.pairs}
        return ", ".join(f"{what} {size / 2**30:,.1f}" for what, size in parts.items() if size)


def at_least(slide: PreparedSlide, config: Any) -> StepMemory:
    """What training on all spots of ``slide`` at once takes, whatever else a network does."""
    side = getattr(config, "input_px", None) or getattr(config, "patch_px", None) or slide.patches.shape[1]
    n_spots = int(slide.n_spots)
    written_out = getattr(config, "attention", "fused") == "explicit"
    tables = int(getattr(config, "heads", 1)) * int(getattr(config, "n_layers", 1)) if written_out else 0
    return StepMemory(
        n_spots * int(side) ** 2 * 3 * FLOAT32,
        3 * n_spots * len(slide.genes) * FLOAT32,
        tables * n_spots**2 * FLOAT32,
    )


def too_large(method: type[Method], config: Any, slides: Iterable[PreparedSlide], device: str) -> str | None:
    """Why a method cannot be trained on ``slides``, in a line; ``None`` where nothing speaks against it.

    Of methods alone whose training step is a whole slide (:attr:`stbench.torch_method.TorchMethod.batching`).
    """
    if getattr(method, "batching", None) != "slides":
        return None
    largest = max(slides, key=lambda slide: at_least(slide, config).total, default=None)
    if largest is None:
        return None
    wanted, free = at_least(largest, config), _memory(device)
    if wanted.total <= free:
        return None
    return (
        f"it learns all spots of a slide at once: the {largest.n_spots:,} of {largest.id} take at least "
        f"{wanted.total / 2**30:,.1f} GiB in a step (in GiB: {wanted}), before what its layers keep, and "
        f"this machine has {free / 2**30:,.1f} GiB {'free' if device == 'cpu' else 'on its GPU'} - leave it out, or "
        "give it slides of fewer spots, for example larger bins"
    )


def _memory(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return usable_memory()
