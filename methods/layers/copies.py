"""Augmented copies of a whole slide's images, as Hist2ST's teacher sees them."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from stbench.training.augment import rotate_by, to_grey, turned_places


def augmented_copies(images: Tensor, copies: int, generator: Generator, per_spot: bool = False) -> list[Tensor]:
    """Copies of images ``(n, 3, side, side)``, each in grey (p 0.1), turned by up to 90 degrees either way (black
    corners), and flipped (p 0.2).

    One draw for all images of a copy, as published, or one for each. Equal to torchvision's RandomGrayscale,
    RandomRotation (nearest neighbour) and RandomHorizontalFlip, which cannot draw on the device.
    """
    n = len(images) if per_spot else 1
    draws = [torch.rand((3, n, 1, 1, 1), generator=generator, device=images.device) for _ in range(copies)]
    if per_spot:
        return [_drawn_alone(images, *each) for each in draws]
    return _drawn_together(images, torch.stack(draws).view(copies, 3)) if copies else []


def _drawn_alone(images: Tensor, grey: Tensor, turn: Tensor, flip: Tensor) -> Tensor:
    images = torch.where(grey < 0.1, to_grey(images).expand_as(images), images)
    images = rotate_by(images, 180 * turn.flatten() - 90)
    return torch.where(flip < 0.2, images.flip(-1), images)


def _drawn_together(images: Tensor, draws: Tensor) -> list[Tensor]:
    """All images of a copy take their pixels from the same places, which are worked out once: of the image, or of its
    grey version behind it.
    """
    n, channels, side, _ = images.shape
    grey, flip = draws[:, 0] < 0.1, draws[:, 2] < 0.2
    places = turned_places(side, 180 * draws[:, 1] - 90)  # or behind the pixels, where it is black
    places = torch.where(flip.view(-1, 1, 1), places.flip(-1), places).flatten(1)
    pixels = images.permute(0, 2, 3, 1).reshape(n, side**2, channels)
    black = pixels.new_zeros(n, 1, channels)
    there = [pixels, black]
    if images.device.type != "cpu" or grey.any():  # a GPU would wait for the answer
        there += [to_grey(images).flatten(2).mT.expand_as(pixels), black]
        places = places + (side**2 + 1) * grey.view(-1, 1)
    source = torch.cat(there, dim=1)
    return [source.index_select(1, each).view(n, side, side, channels).permute(0, 3, 1, 2) for each in places]
