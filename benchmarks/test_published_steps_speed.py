"""A training step of every method at its published size, against a loop like the published repositories' own.

    pytest -q benchmarks/test_published_steps_speed.py

Their way: no workers; every spot's window is cut from the slide's picture, put through torchvision's transforms and
collated; the network in torch's own memory format; the optimiser as ``torch.optim`` gives it; ``zero_grad``, forward,
backward, ``step``. Both run the method's own network, so how the published ones are written (Hist2ST's passes one copy
after the other, none has fused attention) is not compared. Contrastive methods take 16 spots a batch in place of 128,
with which a step of either way takes a minute of one core.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from plain_step import METHODS, configured, made_up_slides, opened, plain_loss
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import transforms

from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD

N_GENES = 785
SPOTS = {"stnet": 32, "bleep": 16, "mclstexp": 16, "histogene": 187, "hist2st": 187, "thitogene": 187}
PICTURE = 3000  # side of the slide's picture, in pixels
ROUNDS = 2


@dataclass
class Windows:
    """A published dataset class of spots: windows cut from a PIL image, through torchvision's transforms."""

    picture: Image.Image
    corners: Sequence[Sequence[int]]
    side: int
    transform: Callable[[Image.Image], Tensor]

    def __len__(self) -> int:
        return len(self.corners)

    def __getitem__(self, index: int) -> Tensor:
        x, y = self.corners[index]
        return self.transform(self.picture.crop((x, y, x + self.side, y + self.side)))


def published_transform(name: str) -> Callable[[Image.Image], Tensor]:
    flips: list[Any] = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()]
    normalise = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    match name:
        case "stnet":
            turn = transforms.RandomApply([transforms.RandomRotation((90, 90))])
            return transforms.Compose([*flips, turn, transforms.ToTensor()])  # its network standardises here
        case "bleep":
            turns = transforms.RandomChoice([transforms.RandomRotation((angle, angle)) for angle in (180, 90, 0, -90)])
            return transforms.Compose([*flips, turns, transforms.ToTensor(), normalise])
        case "mclstexp":
            jitter = transforms.ColorJitter(0.5, 0.5, 0.5)
            return transforms.Compose([jitter, flips[0], transforms.RandomRotation(180), transforms.ToTensor()])
    raise ValueError(f"{name} has no transform of single spots")


published_copy = transforms.Compose(  # Hist2ST's: one draw for all patches of a slide
    [transforms.RandomGrayscale(0.1), transforms.RandomRotation(90), transforms.RandomHorizontalFlip(0.2)]
)


def published_views(name: str, whole: Tensor, corners: Sequence[Sequence[int]], side: int, copies: int) -> list[Tensor]:
    """A published loader's slide: every spot's window sliced from the picture as a tensor, columns before rows."""
    patches = torch.zeros((len(corners), side, side, 3))
    for place, (x, y) in enumerate(corners):
        patches[place] = whole[x : x + side, y : y + side]
    if name == "histogene":
        return [patches.flatten(1)]
    images = patches.permute(0, 3, 1, 2)
    return [images, *(published_copy(images) for _ in range(copies))]


@pytest.mark.parametrize("name", METHODS)
def test_a_published_step(times_as_fast: Callable, name: str) -> None:
    n_spots = SPOTS[name]
    method = configured(name, "published", {"batch_size": n_spots})
    by_spots = method.batching == "spots"
    side = method.input_px  # of the windows, too: as published, nothing is resized
    start = opened(method, made_up_slides(1, n_spots, N_GENES, side), "cpu")
    group = [torch.arange(n_spots)] if by_spots else start.groups
    (batch,) = start.data.batches(group)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (PICTURE, PICTURE, 3), dtype=np.uint8)
    corners = rng.integers(0, PICTURE - side, (n_spots, 2)).tolist()
    their_network = copy.deepcopy(start.network)
    settings = {name: start.optimiser.defaults.get(name) for name in ("lr", "momentum", "weight_decay")}
    their_optimiser = type(start.optimiser)(
        their_network.parameters(), **{name: value for name, value in settings.items() if value is not None}
    )
    start.network.to(memory_format=torch.channels_last)  # as TorchMethod does
    if not by_spots:
        method._kept_pixels = {}  # as while it is fit
        whole = torch.from_numpy(pixels).float()
    else:
        windows = Windows(Image.fromarray(pixels), corners, side, published_transform(name))
        loader = DataLoader(windows, batch_size=n_spots, shuffle=True)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)

    def ours() -> None:
        for ours_of in start.data.batches(group, generator, epoch=1):
            method.loss(start.network, ours_of)["loss"].backward()
            start.optimiser.step()
            start.optimiser.zero_grad(set_to_none=True)

    def theirs() -> None:
        if by_spots:
            views = list(loader)
        else:
            views = published_views(name, whole, corners, side, getattr(method.config, "copies", 0))
        their_optimiser.zero_grad()
        plain_loss(method, their_network, views, batch).backward()
        their_optimiser.step()

    times_as_fast(ours, theirs, ROUNDS)
