"""Spots beside the tissue are seen on the image, and what would bring them onto it is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.readers import legacy_st
from stbench.datasets.readers.assemble import assemble
from stbench.slides.checks import check_slide
from stbench.slides.image import SlideImage
from stbench.slides.lattice import pitch
from stbench.slides.on_tissue import fit, tissue
from stbench.slides.slide import Slide

WIDTH, HEIGHT, STEP = 900, 700, 24


def outline(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tissue of a shape that no turn and no mirror brings onto itself."""
    body = ((x - 380) / 230) ** 2 + ((y - 300) / 150) ** 2 < 1
    return body | ((x > 480) & (x < 560) & (y > 300) & (y < 560)) | ((x > 200) & (x < 330) & (y > 100) & (y < 250))


def picture(background: int = 244, seed: int = 0) -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    stroma = np.array([205.0, 130, 175]) + np.random.default_rng(seed).normal(0, 12, (HEIGHT, WIDTH, 1))
    return np.where(outline(x, y)[..., None], stroma, background).clip(0, 255).astype(np.uint8)


def slide(centres: np.ndarray | None = None, pixels: np.ndarray | None = None) -> Slide:
    columns, rows = (axis.ravel() for axis in np.meshgrid(np.arange(WIDTH // STEP), np.arange(HEIGHT // STEP)))
    places = np.column_stack([columns, rows]) * STEP + STEP / 2
    under = outline(*places.T)
    n = int(under.sum())
    return assemble(
        "S1",
        "P1",
        counts=np.full((n, 2), 20),
        genes=["A", "B"],
        spot_ids=[f"{i}" for i in range(n)],
        array_xy=np.column_stack([columns, rows])[under],
        centres=places[under] if centres is None else centres,
        image=SlideImage.from_array(picture() if pixels is None else pixels),
        um_per_px=None,
    )


def told(found: Slide) -> str:
    return " ".join(problem.text for problem in check_slide(found) if problem.severity == "error" or problem.lasting)


@pytest.mark.parametrize("background", [255, 244, 150, 0], ids=["white", "glass", "dim", "masked in black"])
def test_a_sound_section_is_not_suspected(background: int) -> None:
    sound = slide(pixels=picture(background))
    assert told(sound) == ""
    found = fit(sound)
    assert found is not None
    assert found.correlation > 0.9


def test_a_part_of_the_tissue_may_have_no_spots() -> None:
    """An array is often smaller than the tissue: that some of it is not covered accuses nobody."""
    whole = slide()
    for keep in (whole.centres[:, 0] < 380, whole.centres[:, 1] < 300, np.arange(whole.n_spots) % 2 == 0):
        assert told(replace(whole, adata=whole.adata[keep].copy())) == ""


MISTAKES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "exchanged": (lambda c: c[:, ::-1], "with x and y exchanged they would"),
    "mirrored left to right": (lambda c: np.array([WIDTH - 1, 0]) + c * [-1, 1], "with x counted from the right"),
    "mirrored top to bottom": (lambda c: np.array([0, HEIGHT - 1]) + c * [1, -1], "with y counted from the bottom"),
    "turned by half": (lambda c: np.array([WIDTH - 1, HEIGHT - 1]) - c, "with positions turned by 180 degrees"),
    "turned to the right": (
        lambda c: np.column_stack([HEIGHT - 1 - c[:, 1], c[:, 0]]),
        "with positions turned by 90 degrees anticlockwise",
    ),
    "of a smaller image": (lambda c: c / 2, "with positions multiplied by 2.00"),
    "of a larger image": (lambda c: c * 2, "lie outside"),
    "of a slightly larger image": (lambda c: c * 1.15, "with positions multiplied by 0.87"),
    "shifted": (lambda c: c + np.array([6 * STEP, 0]), "with positions moved by 141 px to the left"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_positions_is_told_with_what_mends_it(mistake: str) -> None:
    make, words = MISTAKES[mistake]
    assert words in told(slide(make(slide().centres)))


def test_a_mirror_image_of_the_array_is_told_by_the_tissue_which_axis_to_count_otherwise() -> None:
    """Although a shape that is nearly its own mirror image fits nearly as well as it is."""
    x = np.arange(WIDTH)
    pixels = picture()
    pixels = np.where((np.abs(x - WIDTH / 2) < 250)[None, :, None] & (pixels[:, ::-1] < 230), pixels[:, ::-1], pixels)
    mirrored = slide(np.array([WIDTH - 1, 0]) + slide().centres * [-1, 1], pixels)
    text = told(mirrored)
    assert "mirror image of the array" in text
    assert "with x counted from the right they would lie on the tissue" in text


def cells(n: int = 600) -> np.ndarray:
    places = np.random.default_rng(0).uniform([0, 0], [WIDTH, HEIGHT], (20 * n, 2))
    return places[outline(*places.T)][:n]


def with_places(centres: np.ndarray) -> Slide:
    n = len(centres)
    names = [f"{i}" for i in range(n)]
    image = SlideImage.from_array(picture())
    counts, places = np.full((n, 2), 20), np.column_stack([np.arange(n), np.arange(n)])
    return assemble(
        *("S1", "P1"), counts=counts, genes=["A", "B"], spot_ids=names, array_xy=places, centres=centres, image=image,
        um_per_px=None,
    )  # fmt: skip


def test_scattered_cells_cover_the_tissue_between_them() -> None:
    right = fit(with_places(cells()))
    assert right is not None
    assert right.correlation > 0.8
    turned = fit(with_places(np.array([0, HEIGHT - 1]) + cells() * [1, -1]))
    assert turned is not None
    assert "with y counted from the bottom" in str(turned.better)


def test_spots_that_were_not_chosen_by_tissue_are_told_from_another_image() -> None:
    columns, rows = (axis.ravel() for axis in np.meshgrid(np.arange(WIDTH // STEP), np.arange(HEIGHT // STEP)))
    assert "leave out those off tissue" in told(with_places(np.column_stack([columns, rows]) * STEP + STEP / 2))


IMAGES: dict[str, tuple[np.ndarray, str]] = {
    "grey": (np.repeat(picture()[..., :1], 3, axis=2), "is grey: red, green and blue are the same"),
    "transparent": (np.full((HEIGHT, WIDTH, 3), 255, np.uint8), "is white all over"),
    "fluorescence": ((255 - picture(255)) // 2, "is dim on black, as images of fluorescence are"),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_that_cannot_be_one_of_h_and_e_is_told(kind: str) -> None:
    pixels, words = IMAGES[kind]
    assert words in told(slide(pixels=pixels))


def test_another_image_is_suspected_and_a_plain_one_says_nothing() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    elsewhere = (x > 600) & (y > 450)
    other = np.where(elsewhere[..., None], [200, 120, 170], 244).astype(np.uint8)
    assert "is the image of another section?" in told(slide(pixels=other))
    for plain in (np.full((HEIGHT, WIDTH, 3), 240, np.uint8), np.zeros((HEIGHT, WIDTH, 3), np.uint8)):
        assert tissue(plain) is None
        assert told(slide(pixels=plain)) == ""


def real_sections(data_root: Path) -> list[Slide]:
    visium = [open_dataset_path(place).find()[0][0].read() for place in sorted((data_root / "visium").glob("GSM*/"))]
    bulbs = [
        legacy_st.read(
            f"MOB{i}",
            "mouse",
            counts=data_root / f"mob/MOB{i}.tsv.gz",
            spots=data_root / f"mob/alignment_table_MOB{i}.tsv",
            image=data_root / f"mob/MOB{i}.jpg",
        )
        for i in (1, 3)
    ]
    return [*visium, *bulbs]


def test_on_real_sections_nothing_is_suspected_and_every_mistake_is_found(data_root: Path) -> None:
    for whole in real_sections(data_root):
        section = replace(whole, adata=whole.adata[:, :1].copy())  # counts are not looked at
        sound = fit(section)
        assert sound is not None
        assert sound.better is None
        assert sound.correlation > 0.7
        centres, (width, height) = section.centres, section.image.full_resolution_size
        far = np.array([width - 1, height - 1])
        for places, words in (
            (centres[:, ::-1], "x and y exchanged"),
            (far * [1, 0] + centres * [-1, 1], "x counted from the right"),
            (far - centres, "turned by 180 degrees"),
            (np.column_stack([centres[:, 1], width - 1 - centres[:, 0]]), "turned by 90 degrees clockwise"),
            (centres * 0.8, "positions multiplied by 1.2"),
            (centres + np.array([6 * pitch(centres), 0]), "to the left"),
        ):
            adata = section.adata.copy()
            adata.obsm["spatial"] = places
            found = fit(replace(section, adata=adata))
            assert found is not None
            assert words in str(found.better), section.id
