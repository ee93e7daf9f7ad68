"""A grid over the tissue of an image: its pitch, its array, and what of the image counts as tissue."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from stbench.slides.image import SlideImage
from stbench.slides.tissue_grid import tissue_grid

SIDE, RADIUS, PITCH = 1200, 450, 30.0


def picture(*spared: tuple[int, int, int], dirt: tuple[int, int, int] | None = None) -> SlideImage:
    """A disc of tissue on glass, without circles (x, y, radius) of it; ``dirt``: a circle outside."""
    y, x = np.mgrid[:SIDE, :SIDE]
    tissue = np.hypot(x - SIDE / 2, y - SIDE / 2) < RADIUS
    for left, top, radius in spared:
        tissue &= np.hypot(x - left, y - top) >= radius
    if dirt is not None:
        tissue |= np.hypot(x - dirt[0], y - dirt[1]) < dirt[2]
    grain = np.random.default_rng(0).integers(-8, 9, (SIDE, SIDE, 1))
    colours = np.where(tissue[..., None], [170, 110, 160], [240, 238, 242]) + grain
    return SlideImage.from_array(colours.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(("shape", "area"), [("hexagonal", np.sqrt(0.75)), ("square", 1.0)])
def test_its_spots_are_a_pitch_apart_and_on_tissue(shape: str, area: float) -> None:
    grid = tissue_grid(picture(), PITCH, shape)  # type: ignore[arg-type]
    assert grid.on_tissue
    nearest, _ = cKDTree(grid.centres).query(grid.centres, k=2)
    np.testing.assert_allclose(nearest[:, 1], PITCH)
    distance = np.hypot(*(grid.centres - SIDE / 2).T)
    assert distance.max() < RADIUS + PITCH / 4
    assert len(grid.centres) == pytest.approx(np.pi * RADIUS**2 / (area * PITCH**2), rel=0.03)


def test_a_hexagonal_array_counts_as_visium_does() -> None:
    grid = tissue_grid(picture(), PITCH, "hexagonal")
    assert (grid.array_xy.sum(axis=1) % 2 == 0).all()
    assert grid.array_xy.min(axis=0).tolist() in ([0, 0], [1, 0])
    steps = np.array([PITCH / 2, PITCH * np.sqrt(0.75)])
    np.testing.assert_allclose(grid.centres - grid.centres[0], (grid.array_xy - grid.array_xy[0]) * steps)
    assert len(np.unique(grid.array_xy, axis=0)) == len(grid.array_xy)


def test_a_square_array_counts_from_zero() -> None:
    grid = tissue_grid(picture(), PITCH, "square")
    assert grid.array_xy.min(axis=0).tolist() == [0, 0]
    np.testing.assert_allclose(grid.centres - grid.centres[0], (grid.array_xy - grid.array_xy[0]) * PITCH)


def within(grid: np.ndarray, x: int, y: int, radius: float) -> int:
    return int((np.hypot(*(grid - [x, y]).T) < radius).sum())


def test_a_small_hole_is_of_the_tissue_a_large_one_is_not() -> None:
    whole = tissue_grid(picture(), PITCH).centres
    small, large = (500, 600, 28), (750, 600, 120)
    holed = tissue_grid(picture(small, large), PITCH).centres
    assert within(holed, *small) == within(whole, *small) > 0
    assert within(whole, *large) > 30
    assert within(holed, 750, 600, 105) == 0


def test_dirt_is_no_tissue() -> None:
    place = (90, 90, 25)
    grid = tissue_grid(picture(dirt=place), PITCH).centres
    assert within(grid, 90, 90, 60) == 0
    assert within(tissue_grid(picture(dirt=(90, 90, 60)), PITCH).centres, 90, 90, 60) > 0


def test_an_image_of_one_tone_is_covered_and_says_so() -> None:
    grey = SlideImage.from_array(np.full((300, 400, 3), 180, dtype=np.uint8))
    grid = tissue_grid(grey, 50.0, "square")
    assert not grid.on_tissue
    assert len(grid.centres) == 8 * 6


def test_a_coarse_picture_has_the_grid_of_full_resolution() -> None:
    fine = tissue_grid(picture(), PITCH)
    coarse = SlideImage.from_array(picture().read()[::3, ::3], scale=1 / 3, level="hires")
    found = tissue_grid(coarse, PITCH)
    assert abs(len(found.centres) - len(fine.centres)) < 0.02 * len(fine.centres)
    assert found.centres.max() > SIDE / 2


@pytest.mark.parametrize("name", ["B4", "C2"])
def test_it_lies_where_spots_of_a_real_section_do(data_root, name: str) -> None:
    from stbench import registry
    from stbench.slides.lattice import pitch

    slide = next(source for source in registry.dataset("her2st", data_root).find()[0] if source.id == name).read()
    step = pitch(slide.centres)
    grid = tissue_grid(slide.image, step, "square").centres
    near = 0.75 * step
    assert (cKDTree(grid).query(slide.centres)[0] < near).mean() > 0.97
    assert (cKDTree(slide.centres).query(grid)[0] < near).mean() > 0.93
