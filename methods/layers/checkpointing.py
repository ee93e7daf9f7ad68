"""Activation checkpointing: what a part of a network computes on its way is not kept for the backward pass but computed
again in it. Less memory for more time, and the same numbers: dropout draws again what it drew, and BatchNorm's running
statistics see a batch once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from stbench.method import Run
from stbench.system.sharing import USABLE
from stbench.system.wording import amount
from stbench.torch_method import TorchMethod
from stbench.training.batches import TrainingData
from stbench.training.device import free_memory
from stbench.training.step_memory import NotCountedError, step_bytes, surely_fits

ActivationCheckpointing = Literal["auto", "on", "off"]


class Parts(nn.Module):
    """A network, or a part of one, that computes its parts by :meth:`part`."""

    checkpointing: bool = False  # whether their activations are not kept; no part of the state dict

    def part(self, compute: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
        """``compute(*inputs)``. Under checkpointing only ``inputs`` are kept; autocast and torch's global generators
        are in the backward pass as they were here, other state that ``compute`` depends on is not.
        """
        if not self.checkpointing or not torch.is_grad_enabled():
            return compute(*inputs)
        return self._checkpointed(compute, *inputs)

    # the compiler knows no contexts of the backward pass: of a compiled network such parts stay eager
    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _checkpointed(self, compute: Callable[..., torch.Tensor], *inputs: Any) -> torch.Tensor:
        again = lambda: (nullcontext(), statistics_kept(self))  # noqa: E731 - forward's context, and the backward pass's
        return checkpoint(compute, *inputs, use_reentrant=False, context_fn=again)


def checkpoint_activations(network: nn.Module, on: bool) -> None:
    """Tell all of a network that computes in parts whether to keep their activations."""
    for module in network.modules():
        if isinstance(module, Parts):
            module.checkpointing = on


def wants_checkpointing(method: TorchMethod, data: TrainingData, run: Run) -> bool:
    """Whether a method that learns whole slides is to checkpoint its activations on ``data``: as its setting
    ``activation_checkpointing`` says. ``auto`` compares what a step on the largest slide takes with what is free, and
    notes in ``run`` where that is too little.
    """
    asked = method.config.activation_checkpointing
    if asked != "auto":
        return bool(asked == "on")
    largest = max(data.slides, key=lambda slide: slide.n_spots)
    free = free_memory(data.device)
    size = largest.n_spots, data.n_genes
    if surely_fits(method.config, *size, free):
        return False

    def under(setting: ActivationCheckpointing) -> int:
        return step_bytes(type(method), method.config.model_copy(update={"activation_checkpointing": setting}), *size)

    try:
        kept = under("off")
        if kept <= USABLE[data.device.type] * free:
            return False
        again = under("on")
    except NotCountedError as error:  # of a network that somebody derived from ours
        run.note(f"what a step takes cannot be counted ({error}): activation_checkpointing = auto is off")
        return False
    run.note(
        f"a step on the {largest.n_spots:,} spots of {largest.id} takes about {amount(kept)}, and {amount(free)} "
        f"are free on {data.device}: activations are computed again in the backward pass, which takes about "
        f"{amount(again)} and changes no number"
    )
    return True


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Inside, BatchNorms of ``network`` update copies of their running statistics, which are thrown away."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    try:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value.clone())
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, value in buffers.items():
                setattr(norm, name, value)
