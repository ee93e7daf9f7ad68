"""What an image encoder is fed: the size, resampling, crop and scaling of pixels that it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..method import Run
from .encoders import IMAGENET_MEAN, IMAGENET_STD, Pooling
from .foundation.table import PublishedEncoder, pathology_encoder
from .patch_store import resized

DEFAULT_PX = 224  # of encoders that are not of the table, as the field's networks of ImageNet are used


@dataclass(frozen=True)
class EncoderInput:
    """From uint8 patches to what an encoder sees.

    Patches are resized to ``resize_px``, rounded to uint8, their centre of ``input_px`` is cut out, and channels in
    [0, 1] are standardised with ``mean`` and ``std``.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    input_px: int
    resize_px: int
    interpolation: Literal["bilinear", "bicubic"]

    def __call__(self, patches: Tensor) -> Tensor:
        """(B, 3, s, s) uint8 to (B, 3, ``input_px``, ``input_px``) float32, channels-last in memory."""
        images = resized(patches.permute(0, 2, 3, 1), self.resize_px, self.interpolation)
        start = (self.resize_px - self.input_px) // 2
        images = images[:, start : start + self.input_px, start : start + self.input_px].permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values, device=images.device)[:, None, None] for values in (self.mean, self.std))
        return (images / 255 - mean) / std


def own_input(name: str, input_px: int | None = None) -> EncoderInput:
    """What the encoder ``name`` was trained on; for ``input_px`` of another side, everything in proportion.

    The table's encoders of pathology have a row of their own. All others are standardised as for ImageNet and see whole
    patches, bilinear: the photographers' custom of cutting off the border would cut a spot's surroundings off.
    """
    row = pathology_encoder(name)
    if row is None:
        side = input_px or DEFAULT_PX
        return EncoderInput(IMAGENET_MEAN, IMAGENET_STD, side, side, "bilinear")
    side = input_px or row.input_px
    return EncoderInput(row.mean, row.std, side, round(side * _resize_px(row) / row.input_px), row.interpolation)


def note_foreign_input(
    run: Run,
    method: str,
    encoder: str,
    mean: Sequence[float],
    std: Sequence[float],
    input_px: int,
    pooling: Pooling,
    setting: str,
) -> None:
    """Tell the run where a method, by what is published of it, feeds or pools an encoder not as it was trained.

    ``mean`` and ``std`` of channels in [0, 1] are what the method standardises with; ``setting`` is its setting for
    that, which takes ``encoder``. Only the table's encoders have anything to differ from.
    """
    row = pathology_encoder(encoder)
    if row is None:
        return
    own, differing = own_input(encoder), []
    given = torch.tensor([list(mean), list(std)])
    if not torch.allclose(given, torch.tensor([own.mean, own.std]), atol=1e-3):
        differing.append(
            f"pixels are scaled with mean {_channels(mean)} and deviation {_channels(std)}, not {_channels(own.mean)} "
            f"and {_channels(own.std)} ({method}.{setting}=encoder takes the encoder's)"
        )
    if input_px != own.input_px:
        differing.append(
            f"images have {input_px} px, not {own.input_px} px ({method}.input_px={own.input_px} resizes them)"
        )
    if pooling == "average" and row.pooling.startswith("class token"):
        differing.append(
            f"its patch tokens are averaged, its own features are the {row.pooling} ({method}.pooling=native)"
        )
    if differing:
        run.note(f"{method} does not use {encoder} as it was trained, but as {method} is set: {'; '.join(differing)}")


def _resize_px(row: PublishedEncoder) -> int:
    return row.resize_px or row.input_px


def _channels(values: Sequence[float]) -> str:
    return "/".join(f"{float(value):.3g}" for value in values)
