"""Random augmentation of a batch of patches on the device: every patch has a draw of its own, all are done at once.

Images are (B, 3, S, S). Flips and turns work on uint8 as on float; colours and free rotation want float in [0, 1]
(:func:`to_float`). Every function draws from the generator that it is handed and waits for nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..system.precision import float32, no_autocast

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as torchvision rounds it


def to_float(patches: Tensor) -> Tensor:
    """uint8 to float32 in [0, 1], channels-last in memory."""
    return patches.to(torch.float32, memory_format=torch.channels_last).div_(255)


def standardise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(image - mean) / std per channel; ``mean`` and ``std`` are (3,)."""
    return (images - mean.view(1, -1, 1, 1)).div_(std.view(1, -1, 1, 1))


def flip_and_quarter_turn(images: Tensor, generator: Generator) -> Tensor:
    """STnet's augmentation: left-right flip, up-down flip, quarter turn counter-clockwise, each with probability 1/2.

    In that order; uniform over the 8 symmetries of the square.
    """
    across, down, turn = (_heads(images, 0.5, generator) for _ in range(3))
    return _moved(images, across, down, turn)


def flip_and_quarter_turns(images: Tensor, generator: Generator) -> Tensor:
    """BLEEP's augmentation: left-right and up-down with probability 1/2 each, then 0, 1, 2 or 3 quarter turns."""
    across, down, turn, half_turn = (_heads(images, 0.5, generator) for _ in range(4))
    return _moved(images, across ^ half_turn, down ^ half_turn, turn)  # half a turn is both flips, before or after


def _moved(images: Tensor, across: Tensor, down: Tensor, turn: Tensor) -> Tensor:
    """Images flipped left-right, then up-down, then turned a quarter counter-clockwise, where the (B,) bools say so.

    A GPU makes every change of all images and chooses, since asking which to change would make it wait; a CPU moves
    each pixel once.
    """
    if images.device.type != "cpu":
        images = torch.where(across.view(-1, 1, 1, 1), images.flip(-1), images)
        images = torch.where(down.view(-1, 1, 1, 1), images.flip(-2), images)
        return torch.where(turn.view(-1, 1, 1, 1), images.rot90(1, (-2, -1)), images)
    moved = torch.empty_like(images)
    ways = across + 2 * down + 4 * turn
    for way in range(8):
        rows = (ways == way).nonzero().squeeze(1)
        some = images[rows].flip([axis for axis, bit in ((-1, 1), (-2, 2)) if way & bit])
        moved[rows] = some.rot90(1, (-2, -1)) if way & 4 else some
    return moved


def hflip(images: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Left-right flip of each image with probability ``p``."""
    return _sometimes(images, p, generator, lambda some: some.flip(-1))


def vflip(images: Tensor, generator: Generator, p: float = 0.5) -> Tensor:
    """Up-down flip of each image with probability ``p``."""
    return _sometimes(images, p, generator, lambda some: some.flip(-2))


def symmetries(images: Tensor) -> list[Tensor]:
    """The 8 symmetries of the square in STnet's test-time order: outer loop left-right flip, then up-down flip, inner
    loop quarter turn counter-clockwise; the turn is applied first."""
    turned = [images, images.rot90(1, (-2, -1))]
    flipped_down = [*turned, *(image.flip(-2) for image in turned)]
    return [*flipped_down, *(image.flip(-1) for image in flipped_down)]


def colour_jitter(
    images: Tensor, generator: Generator, brightness: float = 0.5, contrast: float = 0.5, saturation: float = 0.5
) -> Tensor:
    """torchvision's ColorJitter without hue, a draw per image: factors uniform in [1 - x, 1 + x], in random order."""
    n, device = len(images), images.device
    draws = torch.rand((n, 3), generator=generator, device=device).unbind(1)
    factors = torch.stack(
        [
            max(0.0, 1 - spread) + (1 + spread - max(0.0, 1 - spread)) * draw
            for spread, draw in zip((brightness, contrast, saturation), draws, strict=True)
        ],
        dim=1,
    )
    order = torch.rand((n, 3), generator=generator, device=device).argsort(dim=1)
    return adjust_colours(images, factors, order)


def adjust_colours(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness (0), contrast (1) and saturation (2) of float images in [0, 1], each blended with another image.

    ``factors`` (B, 3) are indexed by the adjustment; ``order`` (B, 3) holds the adjustments in the order they are made.
    The other images are black, the image's mean grey, and its grey version.
    """
    for step in range(3):
        which = order[:, step].view(-1, 1, 1, 1)
        factor = factors.gather(1, order[:, step : step + 1]).view(-1, 1, 1, 1)
        grey = to_grey(images)
        other = torch.where(which == 2, grey, grey.mean(dim=(-2, -1), keepdim=True)) * (which != 0)
        images = (factor * images).add_((1 - factor) * other).clamp_(0, 1)
    return images


def to_grey(images: Tensor) -> Tensor:
    """(B, 1, S, S) luma."""
    red, green, blue = images.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(1)


def rotate(images: Tensor, generator: Generator, degrees: float = 180.0) -> Tensor:
    """Each image turned by a uniform angle in [-``degrees``, ``degrees``]: nearest neighbour, same size, corners 0."""
    angles = (2 * torch.rand(len(images), generator=generator, device=images.device) - 1) * degrees
    return rotate_by(images, angles)


def rotate_by(images: Tensor, angles: Tensor) -> Tensor:
    """Float images turned counter-clockwise about their centre by (B,) ``angles`` in degrees.

    In float32 under every precision: in bf16 a fifth of the pixels would come from a place one pixel off.
    """
    radians = angles.to(torch.float32) * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    inverse = torch.stack([torch.stack([cos, -sin, zero], 1), torch.stack([sin, cos, zero], 1)], 1)
    with no_autocast(images.device):
        grid = affine_grid(inverse, list(images.shape), align_corners=False)
        return grid_sample(float32(images), grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _sometimes(images: Tensor, p: float, generator: Generator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Each image changed with probability ``p``; the same result on every device for the same draws.

    A GPU changes all and chooses, since asking which to change would make it wait; a CPU changes only those.
    """
    heads = _heads(images, p, generator)
    if images.device.type != "cpu":
        return torch.where(heads.view(-1, 1, 1, 1), change(images), images)
    chosen = heads.nonzero().squeeze(1)
    return images.index_copy(0, chosen, change(images[chosen])) if len(chosen) else images


def _heads(images: Tensor, p: float, generator: Generator) -> Tensor:
    """(B,) bool: a draw for each image, true with probability ``p``."""
    return torch.rand(len(images), generator=generator, device=images.device) < p
