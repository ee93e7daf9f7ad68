"""Random augmentation of a batch of patches on the device: every patch has a draw of its own, all are done at once.

Images are (B, 3, S, S). Flips and turns work on uint8 as on float; colours and free rotation want float in [0, 1]
(:func:`to_float`). Every function draws from the generator that it is handed and waits for nothing.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample

from ..system.precision import float32, no_autocast

GREY = (0.2989, 0.587, 0.114)  # ITU-R 601 luma, as torchvision rounds it
BLOCK = 8  # images that a CPU changes at a time: float32 at 224 px, with what is made of them, they fit into its cache


def to_float(patches: Tensor, memory_format: torch.memory_format = torch.channels_last) -> Tensor:
    """uint8 to float32 in [0, 1], channels-last in memory."""
    if patches.device.type == "cpu":
        return patches.to(torch.float32, memory_format=memory_format).div_(255)
    return (patches / 255).contiguous(memory_format=memory_format)  # in one pass, which is slow on a CPU


def in_blocks(change: Callable[..., Tensor], images: Tensor, *drawn: Tensor) -> Tensor:
    """``change(images, *drawn)``, float32 of the images' shape, where what becomes of an image hangs on it alone and on
    its rows of ``drawn``.

    On a CPU a few images are changed at a time, so that what is made on the way stays in its cache: the same numbers
    for a fraction of the memory traffic. None is changed alone, as torch would then sum over it in another order.
    """
    n_blocks = len(images) // BLOCK
    if images.device.type != "cpu" or n_blocks < 2:
        return change(images, *drawn)
    changed = torch.empty(images.shape, dtype=torch.float32, memory_format=torch.channels_last)
    parts = (each.tensor_split(n_blocks) for each in (changed, images, *drawn))
    for into, block, *theirs in zip(*parts, strict=True):
        into.copy_(change(block, *theirs))
    return changed


def standardise(images: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(image - mean) / std per channel; ``mean`` and ``std`` are (3,)."""
    return (images - mean.view(1, -1, 1, 1)).div_(std.view(1, -1, 1, 1))


def flip_and_quarter_turn(images: Tensor, generator: Generator) -> Tensor:
    """STnet's augmentation: left-right flip, up-down flip, quarter turn counter-clockwise, each with probability 1/2.

    In that order; uniform over the 8 symmetries of the square.
    """
    return _moved(images, generator, 3)


def flip_and_quarter_turns(images: Tensor, generator: Generator) -> Tensor:
    """BLEEP's augmentation: left-right and up-down with probability 1/2 each, then 0, 1, 2 or 3 quarter turns."""
    return _moved(images, generator, 4)


def _moved(images: Tensor, generator: Generator, n_draws: int) -> Tensor:
    """Images flipped left-right, then up-down, then turned a quarter counter-clockwise, then by half a turn, as each
    has drawn; every pixel is moved once. Channels-last."""
    device = images.device
    draws = torch.stack([torch.rand(len(images), generator=generator, device=device) for _ in range(n_draws)])
    ways = ((draws < 0.5) * _bits(device)[:n_draws]).sum(0)
    if device.type != "cpu":
        return _looked_up(images, ways)
    moved = torch.empty(images.shape, dtype=images.dtype, memory_format=torch.channels_last)
    for into, image, way in zip(moved, images, ways.tolist(), strict=True):
        into.copy_(_one_way(image, way))
    return moved


def _one_way(image: Tensor, way: int) -> Tensor:
    """(..., S, S) in one of 16 ways: the bits of ``way`` are the four moves, in their order."""
    across, down, quarter, half = (bool(way & bit) for bit in (1, 2, 4, 8))
    if quarter:  # which exchanges the axes, and flips the new rows
        image, across, down = image.transpose(-2, -1), down, not across
    return image.flip([axis for axis, flips in ((-1, across), (-2, down)) if flips != half])


def _looked_up(images: Tensor, ways: Tensor) -> Tensor:
    """The same for (B,) ``ways`` on the device, which nothing waits for: where each pixel comes from is looked up."""
    n, channels, side, _ = images.shape
    pixels = images.permute(0, 2, 3, 1).reshape(n, side**2, channels)
    places = _places(side, images.device)[ways]
    found = pixels.gather(1, places[:, :, None].expand(-1, -1, channels))
    return found.view(n, side, side, channels).permute(0, 3, 1, 2)


@functools.lru_cache(maxsize=8)
def _places(side: int, device: torch.device) -> Tensor:
    """(16, side * side) int64: for each way to draw, which pixel of an image comes to each place."""
    with torch.inference_mode(False):
        pixels = torch.arange(side * side, device=device).view(side, side)
        return torch.stack([_one_way(pixels, way) for way in range(16)]).flatten(1)


@functools.lru_cache(maxsize=8)
def _bits(device: torch.device) -> Tensor:
    """(4, 1): what each of the four draws adds to the number of the way."""
    with torch.inference_mode(False):
        return torch.tensor([[1], [2], [4], [8]], device=device)


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


def jitter_flip_and_rotate(patches: Tensor, generator: Generator) -> Tensor:
    """mclSTExp's augmentation on HER2+ and cSCC: uint8 to float32 in [0, 1], its colours jittered by half, flipped
    left-right with probability 1/2, turned by any angle."""
    factors, order = _jitter_draws(patches, generator)
    heads, angles = _heads(patches, 0.5, generator), _angles(patches, generator)
    return in_blocks(_jittered_flipped_and_rotated, patches, factors, order, heads, angles)


def _jittered_flipped_and_rotated(
    patches: Tensor, factors: Tensor, order: Tensor, heads: Tensor, angles: Tensor
) -> Tensor:
    planes = patches.device.type == "cpu"  # which is faster where a channel lies in one piece
    images = to_float(patches, torch.contiguous_format if planes else torch.channels_last)
    images = adjust_colours(images, factors, order)
    return rotate_by(_where(heads, images, lambda some: some.flip(-1)), angles)


def colour_jitter(
    images: Tensor, generator: Generator, brightness: float = 0.5, contrast: float = 0.5, saturation: float = 0.5
) -> Tensor:
    """torchvision's ColorJitter without hue, a draw per image: factors uniform in [1 - x, 1 + x], in random order."""
    return adjust_colours(images, *_jitter_draws(images, generator, (brightness, contrast, saturation)))


def _jitter_draws(
    images: Tensor, generator: Generator, spreads: tuple[float, float, float] = (0.5, 0.5, 0.5)
) -> tuple[Tensor, Tensor]:
    """Factors and order for :func:`adjust_colours`."""
    n, device = len(images), images.device
    draws = torch.rand((n, 3), generator=generator, device=device)
    ranges = [(max(0.0, 1 - spread), 1 + spread) for spread in spreads]
    if len(set(ranges)) == 1:
        low, high = ranges[0]
        factors = low + (high - low) * draws
    else:
        scaled = [low + (high - low) * draw for (low, high), draw in zip(ranges, draws.unbind(1), strict=True)]
        factors = torch.stack(scaled, dim=1)
    return factors, torch.rand((n, 3), generator=generator, device=device).argsort(dim=1)


def adjust_colours(images: Tensor, factors: Tensor, order: Tensor) -> Tensor:
    """Brightness (0), contrast (1) and saturation (2) of float images in [0, 1], each blended with another image.

    ``factors`` (B, 3) are indexed by the adjustment; ``order`` (B, 3) holds the adjustments in the order they are made.
    The other images are black, the image's mean grey, and its grey version.
    """
    made = factors.gather(1, order)
    rest = (1 - made) * (order != 0)  # of the other image, which is black for brightness
    saturates = order == 2
    for step in range(3):
        factor, other_share, from_grey = (each[:, step, None, None, None] for each in (made, rest, saturates))
        grey = to_grey(images)
        other = torch.where(from_grey, grey, grey.mean(dim=(-2, -1), keepdim=True)).mul_(other_share)
        images = images * factor if step == 0 else images.mul_(factor)  # the caller's are not written to
        images.add_(other).clamp_(0, 1)
    return images


def to_grey(images: Tensor) -> Tensor:
    """(B, 1, S, S) luma."""
    red, green, blue = images.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).unsqueeze(1)


def rotate(images: Tensor, generator: Generator, degrees: float = 180.0) -> Tensor:
    """Each image turned by a uniform angle in [-``degrees``, ``degrees``]: nearest neighbour, same size, corners 0."""
    return rotate_by(images, _angles(images, generator, degrees))


def rotate_by(images: Tensor, angles: Tensor) -> Tensor:
    """Float images turned counter-clockwise about their centre by (B,) ``angles`` in degrees.

    In float32 under every precision: in bf16 a fifth of the pixels would come from a place one pixel off.
    """
    with no_autocast(images.device):
        grid = _turned_grid(images.shape[-1], angles)
        return grid_sample(float32(images), grid, mode="nearest", padding_mode="zeros", align_corners=False)


def turned_places(side: int, angles: Tensor) -> Tensor:
    """Which pixel comes to each place when images of ``side`` pixels are turned by (B,) ``angles`` in degrees.

    (B, ``side``, ``side``) int64: pixels are counted row by row, and what comes from outside is ``side**2``. They are
    the pixels that :func:`torch.nn.functional.grid_sample` takes as the nearest.
    """
    at = (((_turned_grid(side, angles) + 1) * side - 1) / 2).round().long()
    inside = ((at >= 0) & (at < side)).all(-1)
    return torch.where(inside, at[..., 1] * side + at[..., 0], side**2)


def _turned_grid(side: int, angles: Tensor) -> Tensor:
    """(B, ``side``, ``side``, 2): where images are sampled that are turned, in float32."""
    radians = angles.to(torch.float32) * (math.pi / 180)
    cos, sin, zero = radians.cos(), radians.sin(), torch.zeros_like(radians)
    inverse = torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3)
    with no_autocast(angles.device):
        return affine_grid(inverse, [len(angles), 1, side, side], align_corners=False)


def _sometimes(images: Tensor, p: float, generator: Generator, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Each image changed with probability ``p``; the same result on every device for the same draws.

    A GPU changes all and chooses, since asking which to change would make it wait; a CPU changes only those.
    """
    return _where(_heads(images, p, generator), images, change)


def _where(heads: Tensor, images: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    if images.device.type != "cpu":
        return torch.where(heads.view(-1, 1, 1, 1), change(images), images)
    chosen = heads.nonzero().squeeze(1)
    return images.index_copy(0, chosen, change(images[chosen])) if len(chosen) else images


def _heads(images: Tensor, p: float, generator: Generator) -> Tensor:
    """(B,) bool: a draw for each image, true with probability ``p``."""
    return torch.rand(len(images), generator=generator, device=images.device) < p


def _angles(images: Tensor, generator: Generator, degrees: float = 180.0) -> Tensor:
    """(B,) angles, uniform in [-``degrees``, ``degrees``]."""
    return (2 * torch.rand(len(images), generator=generator, device=images.device) - 1) * degrees
