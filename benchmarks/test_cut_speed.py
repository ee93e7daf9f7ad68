"""Cutting the windows of a section and writing them, against slicing them one by one into an array that is saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from stbench.slides.image import SlideImage
from stbench.system.array_file import ArrayFile

SIDE, PX, SPOTS = 6000, 224, 600


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.tile(rng.integers(0, 256, (600, 600, 3), dtype=np.uint8), (SIDE // 600, SIDE // 600, 1))


def centres() -> np.ndarray:
    return np.random.default_rng(1).integers(PX, SIDE - PX, (SPOTS, 2)).astype(np.float64)


def ours(image: SlideImage, path: Path) -> None:
    path.unlink(missing_ok=True)
    with ArrayFile(path, (SPOTS, PX, PX, 3), np.uint8) as patches:
        image.cut(centres(), PX, out=patches)


def one_by_one(pixels: np.ndarray, path: Path) -> None:
    corners = centres().astype(int) - PX // 2
    np.save(path, np.stack([np.asarray(pixels[y : y + PX, x : x + PX]) for x, y in corners]))


def test_windows_of_a_decoded_image(picture: np.ndarray, tmp_path: Path, times_as_fast: Callable) -> None:
    image = SlideImage.from_array(picture)
    times_as_fast(lambda: ours(image, tmp_path / "a.npy"), lambda: one_by_one(picture, tmp_path / "b.npy"))
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()


def test_windows_of_a_tiled_tiff(picture: np.ndarray, tmp_path: Path, times_as_fast: Callable) -> None:
    """As before 0.3 they were read: window by window through zarr."""
    path = tmp_path / "slide.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(256, 256), compression="jpeg")

    def usual() -> None:
        with tifffile.TiffFile(path) as file:
            one_by_one(zarr.open(file.series[0].aszarr(level=0), mode="r"), tmp_path / "b.npy")

    times_as_fast(lambda: ours(SlideImage.from_file(path), tmp_path / "a.npy"), usual, rounds=3)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
