"""Thumbnails show the whole slide at a known scale, and results keep them beside an index."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from PIL import Image

from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedDataset
from stbench.data.thumbnails import MAX_SIDE, spot_diameter, write_thumbnail
from stbench.dataset import Missing, SlideSource
from stbench.results.evidence import write_slides
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

WIDTH, HEIGHT = 1600, 1200  # of the image, full resolution
RED = (400, 300, 800, 900)  # left, top, right, bottom of a red rectangle on white


def picture(shrink: int = 1) -> np.ndarray:
    array = np.full((HEIGHT // shrink, WIDTH // shrink, 3), 255, dtype=np.uint8)
    left, top, right, bottom = (side // shrink for side in RED)
    array[top:bottom, left:right] = (255, 0, 0)
    return array


def slide(image: SlideImage, centres: list[tuple[float, float]] | None = None, **factors: float) -> Slide:
    centres = centres or [(500.0, 400.0), (600.0, 400.0), (700.0, 400.0)]
    counts = scipy.sparse.csr_matrix(np.ones((len(centres), 2), dtype=np.int32))
    obs = pd.DataFrame({"array_row": 0, "array_col": range(len(centres)), "in_tissue": 1})
    adata = anndata.AnnData(counts, obs=obs.set_index(obs.index.astype(str)), var=pd.DataFrame(index=["A", "B"]))
    adata.obsm["spatial"] = np.array(centres)
    adata.uns["spatial"] = {"S1": {"scalefactors": factors}}
    return Slide("S1", "P1", adata, image)


def red_box(path: Path, scale: float) -> np.ndarray:
    """Left, top, right, bottom of what is red in a thumbnail, in full-resolution pixels."""
    pixels = np.asarray(Image.open(path).convert("RGB")).astype(int)
    rows, columns = np.nonzero(pixels[..., 0] - pixels[..., 1] > 128)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / scale


@pytest.mark.parametrize("kind", ["array", "jpeg", "png", "hires"])
def test_a_thumbnail_covers_the_whole_image_and_its_scale_finds_things_in_it(tmp_path: Path, kind: str) -> None:
    if kind == "array":
        image = SlideImage.from_array(picture())
    elif kind == "hires":
        image = SlideImage.from_array(picture(shrink=2), scale=0.5, level="hires")
    else:
        Image.fromarray(picture()).save(tmp_path / f"image.{kind}", quality=95)
        image = SlideImage.from_file(tmp_path / f"image.{kind}")
    scale = write_thumbnail(slide(image), tmp_path / "thumbnail.jpg")
    with Image.open(tmp_path / "thumbnail.jpg") as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.size == (MAX_SIDE, round(MAX_SIDE * HEIGHT / WIDTH))
    assert scale == pytest.approx(MAX_SIDE / WIDTH)
    np.testing.assert_allclose(red_box(tmp_path / "thumbnail.jpg", scale), RED, atol=2 / scale)


def test_a_small_image_is_not_enlarged(tmp_path: Path) -> None:
    small = SlideImage.from_array(picture(shrink=4))  # 400 x 300 px, all there is
    scale = write_thumbnail(slide(small, [(10.0, 10.0), (90.0, 10.0)]), tmp_path / "thumbnail.jpg")
    assert scale == 1.0
    with Image.open(tmp_path / "thumbnail.jpg") as thumbnail:
        assert thumbnail.size == (400, 300)


def test_a_spots_diameter_is_the_known_one_or_half_the_distance_to_its_neighbour() -> None:
    image = SlideImage.from_array(picture())
    assert spot_diameter(slide(image, spot_diameter_fullres=72.5)) == 72.5
    assert spot_diameter(slide(image)) == 50.0
    assert spot_diameter(slide(image, [(500.0, 400.0)])) == pytest.approx(0.02 * WIDTH)


@dataclass
class Painted:
    """A dataset of slides that share one picture."""

    present: tuple[str, ...] = ("S1",)
    name: str = "painted"
    title: str = "Painted"
    slices: tuple[str, ...] = ("S1", "S2")
    patch_px: int = 16
    how_to_get: str = "It is made by its test."
    citation: str = ""

    def patient(self, slice_id: str) -> str:
        return "P1"

    def panel(self) -> list[str]:
        return ["A", "B"]

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        def read() -> Slide:
            return slide(SlideImage.from_array(picture()), spot_diameter_fullres=72.5)

        return [SlideSource(name, "P1", read, ()) for name in self.present], []


def prepared(cache: Path, *present: str) -> PreparedDataset:
    return prepare(Painted(present), "lognorm", cache)


def test_a_prepared_slide_has_its_thumbnail_and_its_spots_diameter(tmp_path: Path) -> None:
    made = prepared(tmp_path, "S1").slides["S1"]
    assert made.spot_diameter == 72.5
    np.testing.assert_allclose(red_box(made.thumbnail, made.thumbnail_scale), RED, atol=2 / made.thumbnail_scale)


def test_a_damaged_thumbnail_is_made_again(tmp_path: Path) -> None:
    thumbnail = prepared(tmp_path, "S1").slides["S1"].thumbnail
    content = thumbnail.read_bytes()
    thumbnail.write_bytes(content[:-50])
    again = prepared(tmp_path, "S1")
    assert any("thumbnail.jpg is truncated" in notice for notice in again.notices)
    assert again.slides["S1"].thumbnail.read_bytes() == content


def test_results_keep_the_thumbnails_and_an_index(tmp_path: Path) -> None:
    data = prepared(tmp_path / "cache", "S1")
    folder = write_slides(tmp_path / "results", data)
    assert folder == tmp_path / "results" / "evidence" / "slides-painted"
    index = json.loads((folder / "slides.json").read_text())
    assert index == {"S1": {"file": "S1.jpg", "scale": MAX_SIDE / WIDTH, "spot_diameter": 72.5}}
    assert (folder / "S1.jpg").read_bytes() == data.slides["S1"].thumbnail.read_bytes()


def test_slides_of_an_earlier_run_stay_in_the_index(tmp_path: Path) -> None:
    write_slides(tmp_path / "results", prepared(tmp_path / "cache", "S1"))
    folder = write_slides(tmp_path / "results", prepared(tmp_path / "cache", "S2"))
    assert set(json.loads((folder / "slides.json").read_text())) == {"S1", "S2"}
    assert {path.name for path in folder.iterdir()} == {"S1.jpg", "S2.jpg", "slides.json"}
