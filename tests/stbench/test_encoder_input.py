"""What encoders are fed: their own size, resampling, crop and scaling, as an image library does it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from stbench.method import Run
from stbench.training.encoder_input import note_foreign_input, own_input
from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD
from stbench.training.foundation.table import published_encoders

SLIDES = [row.name for row in published_encoders().values() if row.images == "slides"]


@pytest.fixture(scope="module")
def patch() -> np.ndarray:
    """Smooth colours, of 300 px: Pillow cuts what overshoots at an edge off after each of its two passes."""
    y, x = np.mgrid[:300, :300] / 300
    return np.stack([200 * x, 120 + 100 * np.sin(9 * y), 60 + 150 / (1 + np.exp(20 * (x - y)))], axis=-1).astype(
        np.uint8
    )


@pytest.mark.parametrize("name", ["uni", "prov-gigapath", "kaiko-vits16", "lunit-vits8", "conch", "retccl", "pathdino"])
def test_patches_become_what_torchvisions_transforms_make_of_their_pictures(name: str, patch: np.ndarray) -> None:
    row = published_encoders()[name]
    mode = {"bicubic": v2.InterpolationMode.BICUBIC, "bilinear": v2.InterpolationMode.BILINEAR}[row.interpolation]
    transform = v2.Compose(
        [
            v2.Resize(row.resize_px or row.input_px, mode),
            v2.CenterCrop(row.input_px),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(row.mean, row.std),
        ]
    )
    expected = transform(Image.fromarray(patch))
    given = own_input(name)(torch.from_numpy(patch)[None].permute(0, 3, 1, 2))
    assert given.shape == (1, 3, row.input_px, row.input_px)
    assert float((given[0] - expected).abs().max()) < 1.5 / 255 / min(row.std)  # which it rounds, too


def test_every_row_has_an_input_of_its_own_and_other_names_are_scaled_as_for_imagenet() -> None:
    for name in SLIDES:
        row, fed = published_encoders()[name], own_input(name)
        assert (fed.mean, fed.std, fed.input_px) == (row.mean, row.std, row.input_px)
    for name in ("densenet121", "resnet50", "resnet18", "vit_small_patch16_224"):
        fed = own_input(name)
        assert (fed.mean, fed.std) == (IMAGENET_MEAN, IMAGENET_STD)
        assert (fed.input_px, fed.resize_px, fed.interpolation) == (224, 224, "bilinear")
    assert own_input("kaiko-vits16").mean == (0.5, 0.5, 0.5)


def test_another_size_keeps_the_share_that_is_cut_out() -> None:
    assert (own_input("prov-gigapath").input_px, own_input("prov-gigapath").resize_px) == (224, 256)
    assert (own_input("prov-gigapath", 112).input_px, own_input("prov-gigapath", 112).resize_px) == (112, 128)


def test_a_method_that_feeds_an_encoder_otherwise_says_so_with_what_to_set() -> None:
    def notes(encoder: str, mean: tuple, std: tuple, px: int = 224, pooling: str = "native") -> list[str]:
        run = Run()
        note_foreign_input(run, "bleep", encoder, mean, std, px, pooling, "pixels")  # type: ignore[arg-type]
        return run.notes

    assert notes("uni", IMAGENET_MEAN, IMAGENET_STD) == []
    assert notes("densenet121", (0, 0, 0), (1, 1, 1)) == []
    (scaled,) = notes("kaiko-vits16", IMAGENET_MEAN, IMAGENET_STD)
    assert "mean 0.485/0.456/0.406" in scaled
    assert "not 0.5/0.5/0.5" in scaled
    assert "bleep.pixels=encoder" in scaled
    (sized,) = notes("conch", own_input("conch").mean, own_input("conch").std)
    assert "images have 224 px, not 448 px (bleep.input_px=448" in sized
    (pooled,) = notes("virchow2", IMAGENET_MEAN, IMAGENET_STD, pooling="average")
    assert "its own features are the class token and mean of patch tokens (bleep.pooling=native)" in pooled
