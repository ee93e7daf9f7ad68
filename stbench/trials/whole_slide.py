"""Whether methods that learn a whole slide at once can hold it: said before training rather than found out by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..data.prepared import PreparedSlide
from ..method import Method
from ..system.cores import usable_memory

FLOAT32 = 4


def at_least(slide: PreparedSlide, config: Any) -> int:
    """Bytes that a training step on all spots of ``slide`` takes at the very least: its patches as the network's input.

    What the network makes of them comes on top, and a table of all pairs of spots where it writes one out.
    """
    side = getattr(config, "input_px", None) or getattr(config, "patch_px", None) or slide.patches.shape[1]
    return int(slide.n_spots) * int(side) ** 2 * 3 * FLOAT32


def too_large(method: type[Method], config: Any, slides: Iterable[PreparedSlide], device: str) -> str | None:
    """Why a method cannot be trained on ``slides``, in a line; ``None`` where nothing speaks against it.

    Of methods alone whose training step is a whole slide (:attr:`stbench.torch_method.TorchMethod.batching`).
    """
    if getattr(method, "batching", None) != "slides":
        return None
    largest = max(slides, key=lambda slide: at_least(slide, config), default=None)
    if largest is None:
        return None
    wanted, free = at_least(largest, config), _memory(device)
    if wanted <= free:
        return None
    pairs = largest.n_spots**2 * FLOAT32
    return (
        f"it learns all spots of a slide at once: the {largest.n_spots:,} patches of {largest.id} alone take "
        f"{wanted / 2**30:,.1f} GiB as its input (and a table of all pairs of spots {pairs / 2**30:,.0f} GiB), and "
        f"this machine has {free / 2**30:,.1f} GiB {'free' if device == 'cpu' else 'on its GPU'} - leave it out, or "
        "give it slides of fewer spots, for example larger bins"
    )


def _memory(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return usable_memory()
