"""One training step of every method, as the harness runs it, against the usual loader and step around the same network.

The usual way: torchvision transforms on PIL images one by one, collate, fp32, zero_grad, forward, backward, step. Its
images are already cut and resized, which its loaders do again and again.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from PIL import Image
from plain_step import METHODS, configured, made_up_slides, opened, plain_loss
from torchvision import transforms

from stbench.torch_method import TorchMethod
from stbench.training.batches import Batch
from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD

N_SPOTS, N_GENES, WINDOW = 64, 100, 112
STEPS = 2  # a round; every one on another batch


def usual_transform(method: TorchMethod) -> transforms.Compose:
    """The method's augmentation and pixel scale in torchvision's words, for one PIL image."""
    config = method.config
    steps: list[Callable] = []
    recipe = getattr(config, "augment", None) or getattr(config, "augmentation", "none")
    if recipe in ("d4", "flip-quarter-turns"):
        turns = transforms.RandomChoice([transforms.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)])
        steps += [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), turns]
    elif recipe != "none":
        raise ValueError(f"no usual transform is written for {recipe}")
    steps.append(transforms.ToTensor())
    scale = getattr(config, "pixels", None) or getattr(config, "pixel_scale", None)
    if scale == "imagenet":
        steps.append(transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD))
    return transforms.Compose(steps)


usual_copy = transforms.Compose(  # Hist2ST's augmented copy of a whole slide: one draw for all its patches
    [transforms.RandomGrayscale(0.1), transforms.RandomRotation(90), transforms.RandomHorizontalFlip(0.2)]
)


@pytest.mark.parametrize("name", METHODS)
def test_a_training_step(times_as_fast: Callable, name: str) -> None:
    method = configured(name, "quick", {})
    start = opened(method, made_up_slides(STEPS, N_SPOTS, N_GENES, WINDOW), "cpu")
    groups = start.groups[:STEPS]
    batches = list(start.data.batches(groups))
    transform, copies = usual_transform(method), getattr(method.config, "copies", 0)
    pictures = {id(batch): [Image.fromarray(p.numpy()) for p in batch.patches.permute(0, 2, 3, 1)] for batch in batches}
    plain_network = copy.deepcopy(start.network)
    plain_optimiser, _ = method.optimiser(plain_network, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    start.network.to(memory_format=torch.channels_last)  # as TorchMethod does

    def ours() -> None:
        for batch in start.data.batches(groups, generator, epoch=1):
            method.loss(start.network, batch)["loss"].backward()
            start.optimiser.step()
            start.optimiser.zero_grad(set_to_none=True)

    def usual_step(batch: Batch) -> None:
        images = torch.stack([transform(picture) for picture in pictures[id(batch)]])
        views = [images, *(usual_copy(images) for _ in range(copies))]
        if name == "histogene":
            views = [images.permute(0, 3, 2, 1).flatten(1)]
        plain_optimiser.zero_grad()
        plain_loss(method, plain_network, views, batch).backward()
        plain_optimiser.step()

    times_as_fast(ours, lambda: [usual_step(batch) for batch in batches])
