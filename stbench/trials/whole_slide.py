"""Whether a training step fits into memory: said before training rather than found out by it.

What cannot be is refused (:func:`too_large`): methods that learn a whole slide at once take at least its images and
expression. What a step takes in all is counted (:mod:`stbench.training.step_memory`), and warned of where that is more
than there is (:func:`does_not_fit`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..data.prepared import PreparedSlide
from ..method import Method
from ..system.cores import usable_memory
from ..system.sharing import USABLE
from ..system.wording import amount

FLOAT32 = 4
SETTING = "activation_checkpointing"  # of methods that have it


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


def does_not_fit(
    method: type[Method], config: Any, slides: Iterable[PreparedSlide], device: str, at_a_time: int = 1
) -> str | None:
    """What a training step is counted to take, where that is more than there is, and what can be done; in a line.

    ``None`` where it fits, or where the method does not learn by torch in this process. ``at_a_time``: trials that
    share a GPU. It is a warning: libraries take a little more than is counted, and swap may hold it all the same.
    """
    batching = getattr(method, "batching", None)
    largest = max(slides, key=lambda slide: slide.n_spots, default=None)
    if batching not in ("slides", "spots") or largest is None:
        return None
    from ..training.step_memory import NotCountedError, step_bytes, surely_fits

    batch = int(getattr(config, "batch_size", largest.n_spots))
    n_spots = int(largest.n_spots) if batching == "slides" else batch
    what = f"the {n_spots:,} spots of {largest.id}" if batching == "slides" else f"a batch of {n_spots:,} spots"
    n_genes = len(largest.genes)
    on_gpu = device.startswith("cuda")
    free = _memory(device) // (at_a_time if on_gpu else 1)
    usable = USABLE["cuda" if on_gpu else "cpu"] * free
    if surely_fits(config, n_spots, n_genes, free):
        return None
    try:
        wanted = step_bytes(method, config, n_spots, n_genes)
        if wanted <= usable:
            return None
        setting = getattr(config, SETTING, None)
        again = None
        if setting in ("auto", "off"):
            again = step_bytes(method, config.model_copy(update={SETTING: "on"}), n_spots, n_genes)
    except NotCountedError as error:
        return f"what a training step on {what} takes cannot be counted ({error})"
    has = f"{amount(free)} {'of its GPU are there for it' if on_gpu else 'are free'}"
    told = f"a training step on {what} takes about {amount(wanted)}, and {has}"
    smaller = "give it slides of fewer spots, for example larger bins, or a device with more memory"
    if batching == "spots":
        return f"{told} - lower --set {method.name}.batch_size, or use a device with more memory"
    if again is None:
        return f"{told} - {smaller}"
    less = f"{amount(again)} where activations are computed again in the backward pass"
    if again > usable:
        return f"{told}, nor the {less} - {smaller}"
    if setting == "off":
        return f"{told} - --set {method.name}.{SETTING}=on takes about {less}, with the same numbers"
    return f"{told}: it takes about {less}, as it will be, with the same numbers and in more time"


def _memory(device: str) -> int:
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    return usable_memory()
