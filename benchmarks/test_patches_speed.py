"""Augmented patches per second against the usual per-item loader: PIL crop, torchvision transforms, collate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from stbench.method import TrainingSlide
from stbench.training import augment
from stbench.training.patch_bank import PatchBank

SIDE, BATCH, N_SPOTS = 224, 32, 128


def _slide(picture: np.ndarray, corners: np.ndarray) -> TrainingSlide:
    patches = np.stack([picture[y : y + SIDE, x : x + SIDE] for x, y in corners])
    nothing: dict[str, Any] = {
        "genes": ("A",),
        "target": np.zeros((N_SPOTS, 1), np.float32),
        "counts": np.zeros((N_SPOTS, 1), np.int32),
        "total_counts": np.zeros(N_SPOTS, np.int64),
    }
    positions = np.zeros((N_SPOTS, 2))
    return TrainingSlide("S", "P", patches, positions.astype(np.int64), positions, None, **nothing)


RECIPES: dict[str, tuple[Callable[..., torch.Tensor], list[Callable]]] = {
    "flips and quarter turns": (  # STnet's
        lambda patches, generator: augment.to_float(augment.flip_and_quarter_turn(patches, generator)),
        [
            transforms.RandomHorizontalFlip(),
            transforms.RandomVerticalFlip(),
            transforms.RandomApply([transforms.RandomRotation((90, 90))]),
        ],
    ),
    "jitter, flip and rotation": (  # mclSTExp's
        augment.jitter_flip_and_rotate,
        [
            transforms.ColorJitter(0.5, 0.5, 0.5),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(180),
        ],
    ),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_epoch_of_augmented_patches(times_as_fast: Callable, recipe: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (3000, 3000, 3), dtype=np.uint8)
    corners = rng.integers(0, 3000 - SIDE, (N_SPOTS, 2))
    bank = PatchBank([_slide(picture, corners)], SIDE, SIDE, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    groups: Sequence[torch.Tensor] = torch.randperm(N_SPOTS, generator=generator).split(BATCH)
    augmented, usual_steps = RECIPES[recipe]

    def ours() -> None:
        for _, patches in bank.stream(groups):
            augmented(patches, generator)

    whole = Image.fromarray(picture)
    steps = transforms.Compose([*usual_steps, transforms.ToTensor()])

    def usual() -> None:
        for group in groups:
            torch.stack([steps(whole.crop((x, y, x + SIDE, y + SIDE))) for x, y in corners[group.numpy()].tolist()])

    times_as_fast(ours, usual)
