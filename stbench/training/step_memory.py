"""What a training step of a torch method holds at its peak, counted before there is one.

The step is taken on the ``meta`` device as a GPU would take it (:mod:`.as_on_gpu`), with the method's own network, loss
and optimiser under its own settings. Counted are weights, gradients, the optimiser's state, the patches of a batch, its
target, and all that a step computes, in float32. Not counted are what libraries take inside of an operation, what CUDA
itself takes (about 0.5 GiB), memory that the allocator cannot use again, and the other batches' data.
"""

from __future__ import annotations

import json
import weakref
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ..errors import said
from ..method import MethodConfig, TrainingSlide
from .as_on_gpu import META, as_on_gpu
from .batches import TrainingData
from .patch_bank import Group, PatchBank

# No network of the published methods keeps more than 300 times the float32 images that it sees, and their weights with
# what belongs to them take less than this: where there is so much more room, nothing need be counted
AT_MOST, WEIGHTS = 1000, 4 * 2**30
LARGEST = 8192  # spots that are counted


class PeakBytes(TorchDispatchMode):
    """``peak_bytes`` is the most that was alive at a time, of memory that was taken while this was entered."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live_bytes = self.peak_bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tensors(out):
            self.watch(tensor)
        return out

    def watch(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        address = storage._cdata
        if address in self._seen:
            return
        self._seen.add(address)
        n_bytes = storage.nbytes()
        self.live_bytes += n_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        weakref.finalize(storage, self._forget, address, n_bytes)

    def _forget(self, address: int, n_bytes: int) -> None:
        self._seen.discard(address)
        self.live_bytes -= n_bytes


def tensors(tree: Any) -> list[Tensor]:
    """All in nested results or arguments of an operation."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def surely_fits(config: Any, n_spots: int, n_genes: int, free: int) -> bool:
    """Whether ``free`` bytes are so many that a step on ``n_spots`` need not be counted."""
    side = int(getattr(config, "input_px", None) or getattr(config, "patch_px", None) or 224)
    return AT_MOST * 4 * n_spots * (3 * side**2 + n_genes) + WEIGHTS < free


class NotCountedError(Exception):
    """A step of the method cannot be taken without values, for the reason that is the message."""


def step_bytes(method: type, config: MethodConfig, n_spots: int, n_genes: int) -> int:
    """Bytes of a training step at its peak, of a torch method, on a slide or a batch of ``n_spots``.

    Counted once in a process. Above ``LARGEST`` spots, whose graph and constants would take memory themselves, it is a
    quadratic function through three counted sizes, as attention over all spots makes it.

    Raises :class:`NotCountedError`.
    """
    settings = config.model_dump_json()
    try:
        if n_spots <= LARGEST:
            return _counted(method, settings, n_spots, n_genes)
        sizes = (LARGEST // 2, 3 * LARGEST // 4, LARGEST)
        known = [_counted(method, settings, size, n_genes) for size in sizes]
    except Exception as error:  # of a stranger's network: what it raises on this device
        raise NotCountedError(said(error)) from error
    return int(np.polyval(np.polyfit(sizes, known, 2), n_spots))


@lru_cache(maxsize=256)
def _counted(method_class: type, config: str, n_spots: int, n_genes: int) -> int:
    method = method_class(method_class.Config(**json.loads(config)))  # type: ignore[attr-defined]
    slide = shapes_of_a_slide(n_spots, n_genes, method.config.patch_px)
    method.shape = method.describe(TrainingData([slide], _NoPatches(n_spots, method.input_px, torch.device("cpu"))))
    with torch.random.fork_rng(devices=[]), as_on_gpu(), PeakBytes() as held:
        data = TrainingData([slide], _NoPatches(n_spots, method.input_px, META))
        network = method.network(method.shape).to(META)
        network.to(memory_format=torch.channels_last).train()
        if method.batching == "slides":
            constants = method.slide_constants(slide)
            data.constants = ({name: value.to(META) for name, value in constants.items()},)
        optimiser, _ = method.optimiser(network, META)
        for parameter in network.parameters():
            parameter.grad = torch.empty_like(parameter) if parameter.requires_grad else None
        optimiser.step()  # makes its state
        optimiser.zero_grad(set_to_none=True)
        groups = data.whole_slides() * min(method.accumulate, 2)  # of the second the gradients are there before it
        for batch in data.batches(groups, torch.Generator(), epoch=1):
            (method.loss(network, batch)["loss"] / method.accumulate).backward()
        optimiser.step()
    return held.peak_bytes


class _NoPatches(PatchBank):
    """One slide's, of which only the shape is known."""

    def __init__(self, n_spots: int, input_px: int, device: torch.device) -> None:
        self.device, self.input_px, self.offsets = device, input_px, [0, n_spots]

    def stream(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Tensor]]:
        for group in groups:
            shape = (len(self), self.input_px, self.input_px, 3)
            yield group, torch.empty(shape, dtype=torch.uint8, device=self.device).permute(0, 3, 1, 2)


def shapes_of_a_slide(n_spots: int, n_genes: int, side: int, number: int = 0) -> TrainingSlide:
    """A slide on a full square array, whose patches, target and counts are one number each in memory.

    ``side``: of its windows, in pixels. ``number``: tells it and its patient from others.
    """
    columns = int(np.ceil(np.sqrt(n_spots)))
    array_xy = np.stack([np.arange(n_spots) % columns, np.arange(n_spots) // columns], axis=1).astype(np.int64)
    return TrainingSlide(
        id=f"S{number}",
        patient=f"P{number}",
        patches=np.broadcast_to(np.uint8(0), (n_spots, side, side, 3)),
        array_xy=array_xy,
        pixel_xy=array_xy * 100.0,
        um_per_px=None,
        genes=tuple(f"GENE{gene}" for gene in range(n_genes)),
        target=np.broadcast_to(np.float32(0), (n_spots, n_genes)),
        counts=np.broadcast_to(np.int32(1), (n_spots, n_genes)),
        total_counts=np.full(n_spots, n_genes, np.int64),
    )
