"""From uint8 patches to what a contrastive method's image encoder sees: an augmentation recipe, then a pixel scale."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Generator, Tensor

from stbench.training import augment
from stbench.training.encoder_input import own_input
from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD

Augmentation = Literal["jitter-flip-rotate", "flip-quarter-turns", "none"]
PixelScale = Literal["unit", "imagenet", "bgr-255", "encoder"]
Channels = tuple[float, float, float]


def scaling(scale: PixelScale, encoder: str) -> tuple[Channels, Channels]:
    """Mean and deviation per channel that channels in [0, 1] are standardised with, ``encoder``'s own if that is asked
    for. ``bgr-255`` is no standardisation of RGB: its deviation is 1 / 255.
    """
    if scale == "encoder":
        own = own_input(encoder)
        return own.mean, own.std
    if scale == "imagenet":
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255) if scale == "bgr-255" else (1.0, 1.0, 1.0)


@functools.lru_cache(maxsize=16)
def on_device(statistics: tuple[Channels, Channels], device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation per channel as tensors that are made once: (3,) each, float32."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(values, device=device) for values in statistics)
        return mean, std


def encoder_input(
    patches: Tensor, scale: PixelScale, augmentation: Augmentation, generator: Generator | None, encoder: str = ""
) -> Tensor:
    """(B, 3, S, S) uint8 RGB -> float32 of the same shape; without a ``generator`` nothing is augmented.

    ``encoder``: its name, where pixels are scaled as it was trained (scale ``encoder``).

    ``jitter-flip-rotate`` is mclSTExp's recipe on HER2+ and cSCC: brightness, contrast and saturation within 0.5 to
    1.5, left-right flip, any angle. ``flip-quarter-turns`` is BLEEP's, and mclSTExp's on Alex+10x: both flips, quarter
    turns.
    """
    if generator is not None and augmentation == "jitter-flip-rotate":
        return _scaled(augment.jitter_flip_and_rotate(patches, generator), scale, encoder)
    if generator is not None and augmentation == "flip-quarter-turns":  # of bytes: a quarter of what there is to move
        patches = augment.flip_and_quarter_turns(patches, generator)
    return augment.in_blocks(lambda block: _scaled(augment.to_float(block), scale, encoder), patches)


def _scaled(images: Tensor, scale: PixelScale, encoder: str) -> Tensor:
    if scale in ("imagenet", "encoder"):
        return augment.standardise(images, *on_device(scaling(scale, encoder), images.device))
    if scale == "bgr-255":
        return images.flip(1) * 255
    return images


def input_at_test(
    patches: Tensor, scale: PixelScale, augmentation: Augmentation, augment_at_test: bool, encoder: str = ""
) -> Tensor:
    """What the image encoder sees of test patches: as :func:`encoder_input`, from a generator of its own where they are
    augmented, so that a prediction does not depend on what was predicted before it.
    """
    generator = torch.Generator(patches.device).manual_seed(0) if augment_at_test else None
    return encoder_input(patches, scale, augmentation, generator, encoder)
