"""The picture of a slide shows every spot where it is, whatever the slide is like."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from anndata import AnnData
from PIL import Image
from scipy import ndimage, sparse

from stbench.reports.figures.slide_picture import draw_slide
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide


def make(centres: list[tuple[float, float]], counts: list[int], scale: float = 1.0) -> Slide:
    adata = AnnData(sparse.csr_matrix(np.array(counts, dtype=np.int32)[:, None]))
    adata.obsm["spatial"] = np.array(centres)
    adata.uns["spatial"] = {"S1": {"images": {}, "scalefactors": {"spot_diameter_fullres": 40.0}, "metadata": {}}}
    white = np.full((int(300 * scale), int(400 * scale), 3), 255, dtype=np.uint8)
    return Slide("S1", "P1", adata, SlideImage.from_array(white, scale, "full" if scale == 1 else "hires"))


def coloured(path: Path) -> np.ndarray:
    """(n, 2) x, y of the coloured pixels left of the colour bar, as fractions of the picture's width and height."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows, columns = np.nonzero(pixels.max(axis=2) - pixels.min(axis=2) > 60)
    keep = columns < 0.85 * pixels.shape[1]
    return np.column_stack([columns[keep] / pixels.shape[1], rows[keep] / pixels.shape[0]])


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_spot_is_drawn_where_it_is_at_any_scale_of_the_image(tmp_path: Path, scale: float) -> None:
    left = coloured(draw_slide(make([(60, 60), (60, 61)], [10, 1000], scale), tmp_path / "left.png"))
    right = coloured(draw_slide(make([(340, 240), (340, 241)], [10, 1000], scale), tmp_path / "right.png"))
    shift = right.mean(axis=0) - left.mean(axis=0)
    assert shift[0] > 0.5
    assert shift[1] > 0.4


def circles(path: Path) -> int:
    """How many separate things are coloured, specks left out."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    spots = (pixels.max(axis=2) - pixels.min(axis=2) > 30)[:, : int(0.85 * pixels.shape[1])]
    found, _ = ndimage.label(spots, structure=np.ones((3, 3)))
    return int((np.bincount(found.ravel())[1:] > 50).sum())


@pytest.mark.parametrize(
    ("centres", "counts"),
    [
        pytest.param([(200.0, 150.0)], [5], id="one spot"),
        pytest.param([(100.0, 150.0), (200.0, 150.0)], [0, 0], id="no counts"),
        pytest.param([(100.0, 150.0), (900.0, 150.0)], [3, 9], id="a spot beyond the border"),
    ],
)
def test_every_spot_of_an_unusual_slide_is_a_circle_of_its_own(
    tmp_path: Path, centres: list[tuple[float, float]], counts: list[int]
) -> None:
    path = draw_slide(make(centres, counts), tmp_path / "new folder" / "S1.png")
    assert circles(path) == len(centres)
