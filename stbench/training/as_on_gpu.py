"""A training step on torch's ``meta`` device, which knows shapes and no values, as a GPU would be given it.

Where torch issues something else for CUDA tensors than for ``meta``, that is issued: one fused attention kernel each
way (of rank-4 tensors alone), one cuDNN call for an LSTM, one operation for dropout. Nothing is computed, so a step
takes a second at any size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Variable
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

aten = torch.ops.aten
META = torch.device("meta")


class AsOnGPU(TorchFunctionMode):
    """The operations that torch issues for CUDA tensors, where it chooses others for ``meta``."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if func is scaled_dot_product_attention and args[0].dim() == 4 and len(args) == 3 and not kwargs:
            return aten._scaled_dot_product_efficient_attention(*args, None, True)[0]
        if name == "dropout" and args[0].is_meta:
            return _one_dropout(func, *args, **kwargs)
        if name == "lstm" and len(args) == 9 and args[0].is_meta:
            return _cudnn_lstm(*args)
        if func is Tensor.backward:
            ones = torch.ones_like(args[0])
            with self:  # what is computed again in it too; torch's own function would leave this mode
                return Variable._execution_engine.run_backward((args[0],), (ones,), False, False, (), True, True)
        return func(*args, **kwargs)


def _one_dropout(func: Any, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Draws and multiplies in one operation."""
    if training and 0 < p < 1 and not inplace:
        return aten.native_dropout(x, p, True)[0]
    return func(x, p, training, inplace)


def _cudnn_lstm(
    x: Tensor, state: Any, weights: Any, bias: bool, layers: int, dropout: float, train: bool, both: bool, first: bool
) -> tuple[Tensor, Tensor, Tensor]:
    each, hidden = (4 if bias else 2), state[0].shape[-1]
    buffer = torch.empty(0, device=META)  # the weights once more, in one piece: they are that already
    options: tuple[Any, ...] = (2, hidden, 0, layers, first, dropout, train, both, [], None)
    found = aten._cudnn_rnn(x, list(weights), each, buffer, state[0], state[1], *options)
    steps_and_sequences = x.shape[0] * x.shape[1]
    per_state = 5 * layers + layers - 1  # gates and cell of each layer, states of those below the last
    kept = per_state * steps_and_sequences * hidden
    return _Kept.apply(found[0], kept), found[1], found[2]


class _Kept(torch.autograd.Function):
    """The tensor, with what cuDNN keeps beside it until its backward pass, which torch does not know of ``meta``."""

    @staticmethod
    def forward(ctx: Any, output: Tensor, n: int) -> Tensor:
        ctx.save_for_backward(torch.empty(n, device=META))
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient, None


def _cudnn_backward(x: Tensor, weight: list[Tensor], stride: int, buffer: Any, hx: Tensor, cx: Any, *rest: Any) -> Any:
    """Shapes of the gradients: torch has none for ``meta``."""
    return (
        *(torch.empty_like(x), torch.empty_like(hx), torch.empty_like(cx)),
        [torch.empty_like(each) for each in weight],
    )


# torch has none for this device
_library = torch.library.Library("aten", "IMPL")
_library.impl("_cudnn_rnn_backward", _cudnn_backward, "Meta")
_library.impl("_fused_sgd_", lambda *_, **__: None, "Meta")


@contextmanager
def as_on_gpu() -> Iterator[None]:
    """Inside, ``meta`` tensors are given the operations of a GPU; fused optimisers and float32 autocast take them."""
    optimizer: Any = import_module("torch.optim.optimizer")  # the package hides it behind a class
    supported, autocast = optimizer._get_fused_kernels_supported_devices, torch.autocast
    optimizer._get_fused_kernels_supported_devices = lambda: [*supported(), "meta"]
    torch.autocast = lambda device_type, **options: autocast(  # type: ignore[misc, assignment]
        "cpu" if device_type == "meta" else device_type, **options
    )
    try:
        with AsOnGPU():
            yield
    finally:
        optimizer._get_fused_kernels_supported_devices = supported
        torch.autocast = autocast  # type: ignore[misc]
