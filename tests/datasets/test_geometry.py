"""What belongs together passes in every reader and form, byte for byte; what cannot is named in every reader.

One made-up section, written for each reader: 9 x 8 spots of a hexagonal array (a square one for the first generation),
pitch 48 px, on a picture without symmetry, tissue in its middle.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from stbench.data.prepare import prepare
from stbench.datasets.readers import h5ad, legacy_st, space_ranger
from stbench.slides.checks import Problem, check_slide
from stbench.slides.geometry import array_map, likeness
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

GENES = [f"G{i}" for i in range(6)]
PITCH, DIAMETER, HIRES = 48.0, 29.0, 0.5


def picture(seed: int = 0, width: int = 540, height: int = 420) -> np.ndarray:
    """(height, width, 3): white glass around tissue, darker towards one corner, with folds that depend on ``seed``."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    inside = ((x - width / 2) / (0.46 * width)) ** 2 + ((y - height / 2) / (0.46 * height)) ** 2 < 1
    phases = rng.uniform(0, 6, 4)
    folds = np.sin(x / 41 + phases[0]) * np.cos(y / 37 + phases[1]) + np.sin((x + 2 * y) / 67 + phases[2])
    shade = np.clip(0.45 + 0.3 * x / width - 0.25 * y / height + 0.2 * folds, 0, 1)[..., None]
    tissue = np.array([235.0, 170, 205]) * (1 - shade) + np.array([95.0, 50, 140]) * shade
    grain = rng.normal(0, 3, (height, width, 1))
    return (np.where(inside[..., None], tissue, 246.0) + grain).clip(0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Section:
    """What a section is, before a reader's format holds it."""

    names: list[str]
    array: np.ndarray  # (n, 2) row, column
    centres: np.ndarray  # (n, 2) x, y
    counts: np.ndarray
    image: np.ndarray
    small: np.ndarray  # the image at half its size
    tissue: np.ndarray  # (n,) bool: under tissue by the table of positions

    def permuted(self, order: np.ndarray) -> Section:
        return replace(
            self,
            names=[self.names[i] for i in order],
            array=self.array[order],
            centres=self.centres[order],
            counts=self.counts[order],
            tissue=self.tissue[order],
        )


def section(square: bool = False, seed: int = 0) -> Section:
    rng = np.random.default_rng(seed)
    row, index = (axis.ravel() for axis in np.mgrid[:8, :9])
    column = index if square else 2 * index + row % 2
    x, y = 70 + column * (PITCH if square else PITCH / 2), 50 + row * PITCH * (1 if square else 0.866)
    image = picture(seed)
    small = np.asarray(Image.fromarray(image).resize((270, 210)))
    names = [f"{c + 2}x{r + 3}" for c, r in zip(column, row, strict=True)] if square else _barcodes(rng, len(row))
    array = np.column_stack([row, column]) + ([3, 2] if square else [0, 0])
    counts = rng.poisson(4, (len(row), len(GENES))) + 2
    return Section(names, array, np.column_stack([x, y]), counts, image, small, np.ones(len(row), dtype=bool))


def _barcodes(rng: np.random.Generator, n: int) -> list[str]:
    return ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in range(n)]


Writer = Callable[[Path, np.ndarray], object]


def write_tiff(path: Path, pixels: np.ndarray) -> None:
    tifffile.imwrite(path, pixels, photometric="rgb")


def read_space_ranger(one: Section, folder: Path, write_image: Writer = write_tiff, filtered: bool = True) -> Slide:
    spatial = folder / "spatial"
    spatial.mkdir(parents=True, exist_ok=True)
    kind = "filtered" if filtered else "raw"
    place = folder / f"{kind}_feature_bc_matrix"
    place.mkdir(exist_ok=True)
    matrix = sparse.coo_matrix(one.counts.T)
    entries = [f"{r + 1} {c + 1} {v}" for r, c, v in zip(matrix.row, matrix.col, matrix.data, strict=True)]
    shape = f"{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}"
    text = "\n".join(["%%MatrixMarket matrix coordinate integer general", shape, *entries])
    (place / "matrix.mtx").write_text(text + "\n")
    (place / "barcodes.tsv").write_text("\n".join(one.names) + "\n")
    (place / "features.tsv").write_text("".join(f"E{gene}\t{gene}\tGene Expression\n" for gene in GENES))
    order = np.argsort(one.names)  # the two files have their own orders
    pd.DataFrame(
        {
            "barcode": one.names,
            "in_tissue": one.tissue.astype(int),
            "array_row": one.array[:, 0],
            "array_col": one.array[:, 1],
            "pxl_row_in_fullres": one.centres[:, 1],
            "pxl_col_in_fullres": one.centres[:, 0],
        }
    ).iloc[order].to_csv(spatial / "tissue_positions.csv", index=False)
    factors = {"tissue_hires_scalef": HIRES, "tissue_lowres_scalef": 0.1, "spot_diameter_fullres": DIAMETER}
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    Image.fromarray(one.small).save(spatial / "tissue_hires_image.png")
    write_image(folder / "image.tif", one.image)
    return space_ranger.read("S", "P", space_ranger.find(folder))


def read_h5ad(one: Section, folder: Path, write_image: Writer = write_tiff) -> Slide:
    adata = anndata.AnnData(sparse.csr_matrix(one.counts.astype(np.float32)))
    adata.obs_names, adata.var_names = one.names, GENES
    adata.obs["array_row"], adata.obs["array_col"] = one.array.T
    adata.obsm["spatial"] = one.centres.copy()
    adata.uns["spatial"] = {
        "L": {
            "images": {"hires": one.small},
            "scalefactors": {"tissue_hires_scalef": HIRES, "spot_diameter_fullres": DIAMETER},
            "metadata": {},
        }
    }
    folder.mkdir(parents=True, exist_ok=True)
    adata.write_h5ad(folder / "section.h5ad")
    write_image(folder / "picture", one.image)
    return h5ad.read("S", "P", folder / "section.h5ad", image=folder / "picture")


def read_legacy(one: Section, folder: Path, write_image: Writer = write_tiff) -> Slide:
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(one.counts, index=one.names, columns=GENES).to_csv(folder / "counts.tsv", sep="\t")
    table = pd.DataFrame(
        {"x": one.array[:, 1], "y": one.array[:, 0], "pixel_x": one.centres[:, 0], "pixel_y": one.centres[:, 1]}
    )
    table.iloc[::-1].to_csv(folder / "spots.tsv", sep="\t", index=False)
    write_image(folder / "picture", one.image)
    return legacy_st.read("S", "P", counts=folder / "counts.tsv", spots=folder / "spots.tsv", image=folder / "picture")


READERS: dict[str, Callable[..., Slide]] = {
    "space-ranger": read_space_ranger,
    "h5ad": read_h5ad,
    "legacy-st": read_legacy,
}


def of(reader: str) -> Section:
    return section(square=reader == "legacy-st")


def said(problems: list[Problem], severity: str | None = None) -> str:
    return "; ".join(problem.text for problem in problems if severity in (None, problem.severity))


# --- what belongs together -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", READERS)
def test_a_sound_section_has_no_problem_in_any_reader(reader: str, tmp_path: Path) -> None:
    assert check_slide(READERS[reader](of(reader), tmp_path)) == []


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_section_that_was_imaged_turned_is_sound(reader: str, quarter_turns: int, tmp_path: Path) -> None:
    """Image, small image and positions turn together, the array stays: so some real sections are."""
    one = of(reader)
    x, y = one.centres.T
    width, height = 540, 420
    places = {1: (y, width - 1 - x), 2: (width - 1 - x, height - 1 - y), 3: (height - 1 - y, x)}[quarter_turns]
    turned = replace(
        one,
        image=np.ascontiguousarray(np.rot90(one.image, quarter_turns)),
        small=np.ascontiguousarray(np.rot90(one.small, quarter_turns)),
        centres=np.column_stack(places),
    )
    assert check_slide(READERS[reader](turned, tmp_path)) == []


def as_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(pixels).save(path, "PNG")


def as_clear_png(path: Path, pixels: np.ndarray) -> None:
    Image.fromarray(np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])).save(path, "PNG")


def as_tiff(**options: Any) -> Writer:
    return lambda path, pixels: tifffile.imwrite(path, pixels, photometric="rgb", **options)


LOSSLESS: dict[str, Writer] = {
    "PNG": as_png,
    "PNG, opaque alpha": as_clear_png,
    "TIFF, tiled, deflate": as_tiff(tile=(64, 64), compression="deflate", predictor=True),
    "TIFF, big-endian": as_tiff(byteorder=">", rowsperstrip=7),
    "BigTIFF, lossless JPEG 2000": as_tiff(bigtiff=True, tile=(128, 128), compression="jpeg2000"),
    "TIFF, planes apart": lambda path, pixels: tifffile.imwrite(
        path, np.moveaxis(pixels, -1, 0), photometric="rgb", planarconfig="separate", compression="lzw"
    ),
    "TIFF, 16 bits": lambda path, pixels: tifffile.imwrite(path, pixels.astype(np.uint16) * 257, photometric="rgb"),
}


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(reader=st.sampled_from(sorted(READERS)), form=st.sampled_from(sorted(LOSSLESS)), seed=st.integers(0, 2**31))
def test_order_of_spots_and_form_of_the_image_change_no_byte_of_any_patch(
    reader: str, form: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one, folder = of(reader), tmp_path_factory.mktemp("forms")
    order = np.random.default_rng(seed).permutation(len(one.names))
    slide = READERS[reader](one.permuted(order), folder, LOSSLESS[form])
    assert [problem for problem in check_slide(slide) if "of 16 bits" not in problem.text] == []
    assert slide.spot_ids == [one.names[i] for i in order]
    np.testing.assert_array_equal(slide.adata.X.toarray(), one.counts[order])
    patches, n_padded = slide.image.cut(slide.centres, 32)
    for patch, (x, y) in zip(patches, np.floor(one.centres[order]).astype(int), strict=True):
        np.testing.assert_array_equal(patch, one.image[y - 16 : y + 16, x - 16 : x + 16])
    assert n_padded == 0


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_few_spots_or_a_single_row_have_no_orientation(n: int, tmp_path: Path) -> None:
    one = section(square=True)
    row = one.permuted(np.arange(n))
    assert check_slide(read_legacy(row, tmp_path)) == []
    assert array_map(row.array[:, ::-1], row.centres) is None


# --- what cannot be --------------------------------------------------------------------------------------------------


def swapped(one: Section) -> Section:
    """All positions are inside the image in either order."""
    inside = one.permuted(np.flatnonzero((one.centres < 400).all(axis=1)))
    return replace(inside, centres=inside.centres[:, ::-1])


def shuffled(one: Section) -> Section:
    return replace(one, centres=np.random.default_rng(1).permutation(one.centres))


def two_at_the_wrong_place(one: Section) -> Section:
    order = np.arange(len(one.names))
    order[[10, 60]] = order[[60, 10]]
    return replace(one, centres=one.centres[order])


def from_the_bottom(one: Section) -> Section:
    return replace(one, centres=np.column_stack([one.centres[:, 0], 419 - one.centres[:, 1]]))


BROKEN_POSITIONS: dict[str, tuple[Callable[[Section], Section], str, str]] = {
    "x and y exchanged": (swapped, "notice", "x and y of the positions are probably exchanged"),
    "in another order": (shuffled, "error", "do not follow their places on the array"),
    "two spots exchanged": (two_at_the_wrong_place, "notice", "2 of 72 spots lie more than a pitch"),
    "counted from the bottom": (from_the_bottom, "notice", "mirror image of the array"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("fault", BROKEN_POSITIONS)
def test_positions_that_do_not_fit_the_array_are_named_in_every_reader(reader: str, fault: str, tmp_path: Path) -> None:
    spoil, severity, words = BROKEN_POSITIONS[fault]
    problems = check_slide(READERS[reader](spoil(of(reader)), tmp_path))
    assert words in said(problems, severity)


BROKEN_IMAGES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "180": (lambda image: image[::-1, ::-1], "it fits turned by 180 degrees"),
    "left to right": (lambda image: image[:, ::-1], "it fits mirrored left to right"),
    "top to bottom": (lambda image: image[::-1], "it fits mirrored top to bottom"),
    "quarter": (lambda image: np.rot90(image), "it fits turned by 90 degrees clockwise"),
    "other section": (lambda image: picture(5), "shows something else than"),
    "half the size": (lambda image: image[::2, ::2], "one of another scale (0.5 times as large)"),
    "twice the size": (lambda image: image.repeat(2, axis=0).repeat(2, axis=1), "another scale (2 times as large)"),
    "cut": (lambda image: image[:-60], "540 x 360 px, but by"),
}


@pytest.mark.parametrize("reader", ["space-ranger", "h5ad"])
@pytest.mark.parametrize("fault", BROKEN_IMAGES)
def test_an_image_unlike_the_smaller_one_is_refused_in_every_reader(reader: str, fault: str, tmp_path: Path) -> None:
    spoil, words = BROKEN_IMAGES[fault]
    one = of(reader)
    centre = one.permuted(np.flatnonzero((one.centres < 200).all(axis=1)))  # inside the half image, too
    spoilt = replace(centre, image=np.ascontiguousarray(spoil(one.image)))
    assert words in said(check_slide(READERS[reader](spoilt, tmp_path)), "error")


@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    reader=st.sampled_from(["space-ranger", "h5ad"]),
    fault=st.sampled_from(sorted(BROKEN_IMAGES)),
    form=st.sampled_from(sorted(LOSSLESS)),
    seed=st.integers(0, 2**31),
)
def test_no_form_of_the_image_and_no_order_of_spots_hides_a_wrong_image(
    reader: str, fault: str, form: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one = of(reader)
    centre = one.permuted(np.flatnonzero((one.centres < 200).all(axis=1)))
    centre = centre.permuted(np.random.default_rng(seed).permutation(len(centre.names)))
    spoilt = replace(centre, image=np.ascontiguousarray(BROKEN_IMAGES[fault][0](one.image)))
    problems = check_slide(READERS[reader](spoilt, tmp_path_factory.mktemp("wrong"), LOSSLESS[form]))
    assert BROKEN_IMAGES[fault][1] in said(problems, "error")


def test_a_small_image_is_held_against_the_smaller_one(tmp_path: Path) -> None:
    """Which of the two is wrong is not known, so that it is a notice."""
    one = section()
    read_space_ranger(one, tmp_path)
    (tmp_path / "image.tif").unlink()
    small = Image.fromarray(one.image).resize((54, 42))
    small.save(tmp_path / "spatial/tissue_lowres_image.png")
    assert "hires one" in said(check_slide(space_ranger.read("S", "P", space_ranger.find(tmp_path))))
    small.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "spatial/tissue_lowres_image.png")
    problems = check_slide(space_ranger.read("S", "P", space_ranger.find(tmp_path)))
    assert "it fits turned by 180 degrees" in said(problems, "notice")


@pytest.mark.parametrize("reader", ["space-ranger", "h5ad"])
def test_positions_in_pixels_of_the_small_image_are_refused(reader: str, tmp_path: Path) -> None:
    one = of(reader)
    problems = check_slide(READERS[reader](replace(one, centres=one.centres * HIRES), tmp_path))
    assert "positions are in pixels of the hires image (0.5 per full-resolution pixel)" in said(problems, "error")


def test_a_spot_diameter_that_fits_no_array_is_said(tmp_path: Path) -> None:
    one = section()
    read_h5ad(one, tmp_path)
    adata = anndata.read_h5ad(tmp_path / "section.h5ad")
    for diameter, words in ((2.9, "may be in pixels of different images"), (60.0, "in pixels of different images")):
        adata.uns["spatial"]["L"]["scalefactors"]["spot_diameter_fullres"] = diameter
        adata.write_h5ad(tmp_path / "other.h5ad")
        assert words in said(check_slide(h5ad.read("S", "P", tmp_path / "other.h5ad")), "notice")


def test_spots_in_a_corner_of_glass_are_said_without_any_smaller_picture(tmp_path: Path) -> None:
    """Positions counted from the other corner: the array cannot tell, since they are only turned; the tissue does."""
    image = np.full((1260, 1620, 3), 246, dtype=np.uint8)
    image[:420, :540] = picture()
    one = replace(section(square=True), image=image)
    assert check_slide(read_legacy(one, tmp_path / "right")) == []
    turned = replace(one, centres=[1619, 1259] - one.centres)
    problems = check_slide(read_legacy(turned, tmp_path / "turned"))
    assert "with positions turned by 180 degrees they would lie on the tissue" in said(problems, "notice")


def test_an_image_of_the_wrong_size_is_named_once(tmp_path: Path) -> None:
    """That spots lie outside it follows, and is not another fault."""
    one = section()
    problems = check_slide(read_h5ad(replace(one, image=one.image[::2, ::2]), tmp_path))
    assert [problem.text.partition(" is ")[2][:12] for problem in problems] == ["270 x 210 px"]


def test_positions_of_another_scale_are_told_with_what_mends_them(tmp_path: Path) -> None:
    image = np.full((840, 1080, 3), 246, dtype=np.uint8)
    image[:420, :540] = picture()
    one = replace(section(), image=image)
    read_h5ad(replace(one, centres=one.centres / 8), tmp_path)
    adata = anndata.read_h5ad(tmp_path / "section.h5ad")
    del adata.uns["spatial"]["L"]["images"]
    adata.write_h5ad(tmp_path / "bare.h5ad")
    write_tiff(tmp_path / "he.tif", image)
    problems = check_slide(h5ad.read("S", "P", tmp_path / "bare.h5ad", image=tmp_path / "he.tif"))
    assert "in pixels of different images; with positions multiplied by 8" in said(problems, "notice")


def test_exchanged_array_indices_are_told_from_exchanged_positions(tmp_path: Path) -> None:
    one = section()
    problems = check_slide(read_h5ad(replace(one, array=one.array[:, ::-1]), tmp_path))
    assert "exchange array_row and array_col" in said(problems, "notice")


def test_barcodes_of_a_filtered_matrix_lie_under_tissue(tmp_path: Path) -> None:
    one = section()
    off = one.tissue.copy()
    off[:30] = False
    problems = check_slide(read_space_ranger(replace(one, tissue=off), tmp_path / "a"))
    assert "30 of the 72 barcodes" in said(problems, "error")
    assert "different sections" in said(problems, "error")
    off[1:30] = True  # one of 72 is less than 2 %: set off by hand, perhaps
    problems = check_slide(read_space_ranger(replace(one, tissue=off), tmp_path / "b"))
    assert "1 of the 72 barcodes" in said(problems, "notice")
    off[:30] = False
    assert check_slide(read_space_ranger(replace(one, tissue=off), tmp_path / "c", filtered=False)) == []


def test_two_sections_in_one_object_are_refused(tmp_path: Path) -> None:
    one, other = section(), section(seed=1)
    both = replace(
        one,
        names=[*one.names, *other.names],
        array=np.concatenate([one.array, other.array]),
        centres=np.concatenate([one.centres, other.centres + 3]),
        counts=np.concatenate([one.counts, other.counts]),
        tissue=np.ones(144, dtype=bool),
    )
    problems = check_slide(read_h5ad(both, tmp_path))
    assert "72 of 144 spots lie where another one lies on the array" in said(problems, "error")


@pytest.mark.parametrize("how_many", [1, 72])
def test_spots_without_a_position_are_named(how_many: int, tmp_path: Path) -> None:
    one = section()
    centres = one.centres.copy()
    centres[:how_many] = np.nan
    problems = check_slide(read_h5ad(replace(one, centres=centres), tmp_path))
    assert f"{how_many} of 72 spots have no position (NaN), the first is {one.names[0]}" in said(problems, "error")


# --- what is told on -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OneSlide:
    """A dataset of one slide."""

    source: Any
    name: str = "one"
    title: str = "one"
    patch_px: int = 32
    slices: tuple[str, ...] = ("S",)
    how_to_get: str = ""
    citation: str = ""

    def patient(self, slice_id: str) -> str:
        return "P"

    def panel(self) -> list[str]:
        return GENES

    def find(self) -> tuple[list[Any], list[Any]]:
        return [self.source], []


def test_a_suspicion_is_kept_with_the_prepared_slide(tmp_path: Path) -> None:
    from stbench.dataset import SlideSource

    slide = read_h5ad(swapped(section()), tmp_path)
    source = SlideSource("S", "P", lambda: slide, (tmp_path / "section.h5ad",), {})
    prepared = prepare(OneSlide(source), "lognorm", tmp_path / "cache").slides["S"]
    assert any(note.startswith("S: the spots on the image are the mirror image") for note in prepared.notes)


# --- the measures ----------------------------------------------------------------------------------------------------


@given(
    turn=st.floats(0, 6.28),
    column=st.floats(5, 500),
    row=st.floats(5, 500),
    mirrored=st.booleans(),
    shift=st.floats(-1e4, 1e4),
)
def test_the_map_of_the_array_is_found_and_its_sign_is_that_of_the_determinant(
    turn: float, column: float, row: float, mirrored: bool, shift: float
) -> None:
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ np.diag([column, row])
    if mirrored:
        matrix = matrix[::-1]
    array = np.array([[c, r] for r in range(3) for c in range(4)])
    found = array_map(array, array @ matrix.T + shift)
    assert found is not None
    np.testing.assert_allclose(np.column_stack([found.column_step, found.row_step]), matrix, atol=1e-6)
    assert np.sign(found.turn) == np.sign(np.linalg.det(matrix)) == (-1 if mirrored else 1)
    assert found.explained == pytest.approx(1)


def test_likeness_names_what_has_to_be_done_to_the_first_picture() -> None:
    """Against Pillow's own turns: clockwise, as one sees it."""
    one = Image.fromarray(picture())
    ways = {
        "turned by 90 degrees clockwise": Image.Transpose.ROTATE_270,  # Pillow counts anticlockwise
        "turned by 90 degrees anticlockwise": Image.Transpose.ROTATE_90,
        "turned by 180 degrees": Image.Transpose.ROTATE_180,
        "mirrored left to right": Image.Transpose.FLIP_LEFT_RIGHT,
        "mirrored top to bottom": Image.Transpose.FLIP_TOP_BOTTOM,
        "mirrored across the diagonal": Image.Transpose.TRANSPOSE,
        "mirrored across the other diagonal": Image.Transpose.TRANSVERSE,
    }
    for name, way in ways.items():
        found = likeness(np.asarray(one), np.asarray(one.transpose(way)))
        assert max(found, key=lambda key: found[key]) == name
        assert found[name] > 0.99
    assert likeness(np.asarray(one), np.full((50, 50, 3), 200, dtype=np.uint8)) == {}


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_picture_that_its_name_keeps_out_is_said(tmp_path: Path) -> None:
    one = section()
    read_space_ranger(one, tmp_path)
    (tmp_path / "image.tif").rename(tmp_path / "HE_full.tif")
    Image.fromarray(one.small).save(tmp_path / "tissue_hires_image.png")  # Space Ranger's own is not meant
    slide = space_ranger.read("S", "P", space_ranger.find(tmp_path))
    assert slide.image.level == "hires"
    (note,) = [note for note in slide.notes if "has the size of the full-resolution one" in note]
    assert str(tmp_path / "HE_full.tif") in note
    named = space_ranger.read("S", "P", space_ranger.find(tmp_path, tmp_path / "HE_full.tif"))
    assert (named.image.level, named.notes) == ("full", ())


@pytest.mark.parametrize("named", ["full.png", "/home/someone/data/full.png", r"C:\data\full.png"])
def test_an_image_that_an_object_names_by_a_path_of_another_machine_is_found_beside_it(
    named: str, tmp_path: Path
) -> None:
    one = section()
    read_h5ad(one, tmp_path)
    adata = anndata.read_h5ad(tmp_path / "section.h5ad")
    adata.uns["spatial"]["L"]["metadata"]["source_image_path"] = named
    adata.write_h5ad(tmp_path / "named.h5ad")
    as_png(tmp_path / "full.png", one.image)
    slide = h5ad.read("S", "P", tmp_path / "named.h5ad")
    assert (slide.image.level, slide.image.path) == ("full", tmp_path / "full.png")
    assert h5ad.named_image(tmp_path / "named.h5ad") == tmp_path / "full.png"
    assert check_slide(slide) == []


def test_an_image_array_needs_no_file(tmp_path: Path) -> None:
    assert SlideImage.from_array(picture()).remarks() == []
