"""What a card computes in: TF32 and bf16 where they are asked for, float32 where they are not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stbench.errors import UserError
from stbench.system.precision import (
    AMPERE,
    Precision,
    autocast,
    exact_products,
    require_capable,
    tf32_allowed,
    tf32_flags,
    tf32_used,
)
from stbench.system.torch_state import torch_precisions

TF32_ERROR = 2.0**-11  # of an operand: ten bits of mantissa, rounded
FLOAT32_ERROR = 2.0**-24


def has_tf32(device: str) -> bool:
    return device == "cuda" and torch.cuda.get_device_capability() >= AMPERE


def product_error(device: str) -> float:
    """Root mean square error of a product of large matrices, as a share of the result."""
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(512, 512, generator=generator) for _ in range(2))
    exact = a.double() @ b.double()
    return _error((a.to(device) @ b.to(device)).cpu(), exact)


def convolution_error(device: str) -> float:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(8, 64, 28, 28, generator=generator)
    kernel = torch.randn(64, 64, 3, 3, generator=generator)
    exact = torch.nn.functional.conv2d(images.double(), kernel.double(), padding=1)
    images, kernel = (each.to(device, memory_format=torch.channels_last) for each in (images, kernel))
    return _error(torch.nn.functional.conv2d(images, kernel, padding=1).cpu(), exact)


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).square().mean().sqrt() / exact.square().mean().sqrt())


@pytest.mark.parametrize("precision", ["fp32", "tf32"])
def test_products_are_in_tf32_where_that_is_asked_for_and_the_card_has_it(device: str, precision: Precision) -> None:
    before = torch_precisions()
    with tf32_flags(precision):
        error = product_error(device)
        with exact_products(torch.device(device)):
            within = product_error(device)
    assert torch_precisions() == before
    assert within < 100 * FLOAT32_ERROR
    if precision == "tf32" and has_tf32(device):
        assert 0.1 * TF32_ERROR < error < 3 * TF32_ERROR
        assert "products" in tf32_used(precision, device)
    else:
        assert error < 100 * FLOAT32_ERROR
        assert "products" not in tf32_used(precision, device)


def test_convolutions_may_be_in_tf32_under_every_precision(device: str) -> None:
    with tf32_flags("fp32"):
        error = convolution_error(device)
    assert error < 3 * TF32_ERROR  # cuDNN chooses an algorithm: it may be a more exact one
    assert tf32_allowed("fp32") == ("convolutions",)
    assert tf32_used("fp32", device) == (("convolutions",) if has_tf32(device) else ())


def test_a_precision_that_the_device_lacks_is_refused_and_others_are_not(device: str) -> None:
    require_capable("fp32", device)
    if has_tf32(device):
        require_capable("tf32", device)
        require_capable("bf16", device)
        return
    with pytest.raises(UserError, match="has no TF32"):
        require_capable("tf32", device)
    if device == "cpu":
        require_capable("bf16", device)
    else:
        with pytest.raises(UserError, match="does not compute in bf16"):
            require_capable("bf16", device)


def test_under_bf16_products_are_in_it(device: str) -> None:
    a = torch.randn(64, 64, device=device)
    with autocast(torch.device(device), "bf16"):
        half = a @ a
        with exact_products(torch.device(device)):
            whole = a @ a
    assert half.dtype == torch.bfloat16
    assert whole.dtype == torch.float32
    with autocast(torch.device(device), "fp32"):
        assert (a @ a).dtype == torch.float32
