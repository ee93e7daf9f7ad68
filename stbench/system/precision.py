"""In which arithmetic a trial computes, and which arithmetic is safe for which method.

* ``fp32``: PyTorch's own defaults. On GPUs from NVIDIA's Ampere on that is float32 with TF32 convolutions, as the
  published code computes on the same card; elsewhere float32 throughout.
* ``tf32``: matrix products in TF32 too (10 bits of mantissa; PyTorch's default before 1.12). It needs such a GPU.
* ``bf16``: autocast to bfloat16 (7 bits of mantissa), but for what a method keeps in float32.

A method says by its class attribute ``safe_precisions`` which ones it may be asked for; the tests hold it to that. What
is safe moves no prediction by more than 0.05 of the spread between spots, nor of the effect of exchanging the patches.
Controls compute in float32 whatever is asked.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, get_args

from ..errors import UserError
from .torch_state import restore_torch_precisions, torch_precisions

if TYPE_CHECKING:
    import torch
    from torch import Tensor


Precision = Literal["fp32", "tf32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
TF32 = Literal["convolutions", "products"]

AMPERE = (8, 0)  # the first compute capability with TF32


def tf32_allowed(precision: str) -> tuple[TF32, ...]:
    """What may be computed in TF32 where the device has it: torch's flags while a trial of that precision runs."""
    return ("convolutions", "products") if precision == "tf32" else ("convolutions",)


def tf32_used(precision: str, device: str) -> tuple[TF32, ...]:
    """What of it a device does: nothing but GPUs from Ampere on has TF32."""
    import torch

    if torch.device(device).type == "cuda" and torch.cuda.get_device_capability(device) >= AMPERE:
        return tf32_allowed(precision)
    return ()


def require_capable(precision: Precision, device: str) -> None:
    """``UserError`` where ``device`` does not compute in ``precision``: nothing is computed in another one silently.

    A CPU computes bf16 too, slowly.
    """
    import torch

    if precision == "fp32":
        return
    on_gpu = torch.device(device).type == "cuda"
    name = torch.cuda.get_device_name(device) if on_gpu else device
    if precision == "tf32" and not tf32_used(precision, device):
        raise UserError(f"{name} has no TF32, which takes an NVIDIA GPU from Ampere on - use --precision fp32")
    if precision == "bf16" and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"{name} does not compute in bf16 - use --precision fp32")


@contextlib.contextmanager
def tf32_flags(precision: str) -> Iterator[None]:
    """Torch's flags for ``precision`` inside, as they were outside. They are the process's: all threads see them."""
    import torch

    before = torch_precisions()
    allowed = tf32_allowed(precision)
    try:
        torch.backends.cuda.matmul.allow_tf32 = "products" in allowed
        torch.backends.cudnn.allow_tf32 = "convolutions" in allowed
        yield
    finally:
        restore_torch_precisions(before)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """To bfloat16 where that is the precision."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def no_autocast(device: torch.device) -> torch.autocast:
    """A part of a method that stays in float32 under bf16. Hand it inputs through :func:`float32`."""
    import torch

    return torch.autocast(device.type, enabled=False)


@contextlib.contextmanager
def exact_products(device: torch.device) -> Iterator[None]:
    """Matrix products in float32 under every precision: no autocast, no TF32. Not for what is to be compiled."""
    with no_autocast(device), tf32_flags("fp32"):
        yield


def float32(values: Tensor) -> Tensor:
    """In float32 if it was made in half of it; float32 and float64 as they are."""
    import torch

    return values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
