"""Visium HD: bins of every size, however the run is given, and segmented cells, read back as they were written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ten_x

from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.readers import space_ranger
from stbench.datasets.readers.space_ranger.cells import read_cells
from stbench.errors import UserError
from stbench.slides.checks import check_slide, validate
from stbench.slides.slide import Slide

BINS = {size: ten_x.binned(size) for size in (2, 8, 16)}


@pytest.fixture
def outs(tmp_path: Path) -> Path:
    return ten_x.write_high_definition(tmp_path / "run", BINS)


def read(folder: Path, image: Path | None = None, **which: Any) -> Slide:
    return space_ranger.read("S", "P", space_ranger.find(folder, image, **which))


def told(slide: Slide) -> str:
    return "\n".join([*slide.notes, *(problem.text for problem in check_slide(slide))])


def assert_is(slide: Slide, section: ten_x.Section) -> None:
    validate(slide)
    assert slide.spot_ids == section.names
    assert (slide.genes, slide.adata.var["gene_ids"].tolist()) == (section.genes, section.ids)
    np.testing.assert_array_equal(slide.adata.X.toarray(), section.counts[section.counted])
    np.testing.assert_array_equal(slide.array_xy, section.array[section.counted][:, ::-1])
    np.testing.assert_allclose(slide.centres, section.centres[section.counted])
    assert slide.um_per_px == 0.25


@pytest.mark.parametrize("bin_um", [2, 8, 16])
@pytest.mark.parametrize("given", ["", "outs", "outs/binned_outputs"])
def test_bins_of_every_size_are_read_wherever_the_run_is_given(outs: Path, given: str, bin_um: int) -> None:
    slide = read(outs.parent / given, bin_um=bin_um)
    assert_is(slide, BINS[bin_um])
    assert slide.notes == ()
    assert slide.adata.uns["spatial"]["S"]["scalefactors"]["spot_diameter_fullres"] == 4 * bin_um
    assert [problem.text for problem in check_slide(slide) if problem.lasting] == []


@pytest.mark.parametrize("bin_um", [None, 16])
def test_the_folder_of_one_bin_says_itself_which_it_is(outs: Path, bin_um: float | None) -> None:
    assert_is(read(outs / "binned_outputs/square_016um", bin_um=bin_um), BINS[16])


def test_windows_are_cut_from_the_image_beside_outs(outs: Path) -> None:
    image = ten_x.write_image(outs.parent / "he.tif", BINS[16])
    assert f"{image} has the size of the full-resolution one" in told(read(outs, bin_um=16))
    slide = read(outs, image, bin_um=16)
    assert_is(slide, BINS[16])
    np.testing.assert_array_equal(slide.image.cut(slide.centres, ten_x.PAINTED)[0], BINS[16].patches)


def test_without_a_size_one_line_lists_what_is_there(outs: Path) -> None:
    listed = r"is a Visium HD run \(square_002um, square_008um, square_016um\) - name one of its bins, for example "
    for folder in (outs.parent, outs, outs / "binned_outputs"):
        with pytest.raises(UserError, match=listed + r".*square_016um, or give bin_um = 16 \(--bin-um 16; or 8\)"):
            read(folder)
    with pytest.raises(UserError, match=listed):
        open_dataset_path(outs).find()
    with pytest.raises(UserError, match=r"holds no bins of 10 µm \(but square_002um, square_008um, square_016um\)"):
        read(outs, bin_um=10)
    with pytest.raises(UserError, match=r"holds bins of 16 µm, not of 8 µm - give .*square_008um"):
        read(outs / "binned_outputs/square_016um", bin_um=8)
    with pytest.raises(UserError, match="holds no segmented cells"):
        read(outs, cells=True)


def test_bins_of_two_runs_in_one_folder_are_refused(outs: Path, tmp_path: Path) -> None:
    for name in ("P1", "P2"):
        shutil.copytree(outs / "binned_outputs", tmp_path / f"both/{name}_binned_outputs")
    with pytest.raises(UserError, match=r"files of several sections \(P1_binned_outputs, P2_binned_outputs\)"):
        open_dataset_path(tmp_path / "both").find()
    shutil.rmtree(tmp_path / "both/P2_binned_outputs")
    assert_is(read(tmp_path / "both", bin_um=16), BINS[16])


def test_a_section_that_is_no_run_of_hd_has_no_bins(tmp_path: Path) -> None:
    ten_x.write_outs(tmp_path, ten_x.visium())
    with pytest.raises(UserError, match=r"holds no bins .* leave bin_um = 8 out"):
        read(tmp_path, bin_um=8)


def test_a_manifest_chooses_bins(outs: Path) -> None:
    manifest = outs.parent / "hd.toml"
    entry = 'id = "S"\npatient = "P"\nreader = "space-ranger"\nfolder = "outs"\nbin_um = 8\n'
    manifest.write_text(f'name = "hd"\n[[slide]]\n{entry}')
    assert_is(open_dataset_path(manifest).find()[0][0].read(), BINS[8])


def test_pictures_may_lie_in_the_runs_own_folder_alone(outs: Path) -> None:
    """Copies of bins are often made without their pictures, which are the same in all."""
    for path in (outs / "binned_outputs").rglob("*.png"):
        path.unlink()
    slide = read(outs, bin_um=2)
    assert slide.image.path == outs / "spatial/tissue_hires_image.png"


def test_a_bin_that_was_not_counted_is_left_out_and_an_empty_one_stays(tmp_path: Path) -> None:
    section = ten_x.binned(8)
    section = replace(section, counted=section.counted[:-2], counts=section.counts.copy())
    section.counts[section.counted[3]] = 0
    slide = read(ten_x.write_bins(tmp_path / "square_008um", section))
    assert_is(slide, section)
    assert "2 spots under tissue have no counts and are left out" in told(slide)
    assert "have no counts at all; they are kept" in told(slide)


# --- parts that say different things ----------------------------------------------------------------------------------


def test_scale_factors_of_another_bin_are_said_and_not_believed(outs: Path) -> None:
    spatial = outs / "binned_outputs/square_008um/spatial"
    shutil.copy(outs / "binned_outputs/square_016um/spatial/scalefactors_json.json", spatial)
    slide = read(outs, bin_um=8)
    assert_is(slide, BINS[8])
    assert "is 16, but bins are of 8 µm: it is another bin's file" in told(slide)
    diameter = slide.adata.uns["spatial"]["S"]["scalefactors"]["spot_diameter_fullres"]
    assert diameter == pytest.approx(32, rel=1e-6)


def test_a_folder_that_was_renamed_is_refused(outs: Path) -> None:
    (outs / "binned_outputs/square_016um").rename(outs / "binned_outputs/square_024um")
    with pytest.raises(UserError, match="called after bins of 24 µm, but its barcodes are of bins of 16 µm"):
        read(outs, bin_um=24)


def test_positions_of_another_bin_are_refused(outs: Path) -> None:
    place = outs / "binned_outputs"
    shutil.copy(place / "square_016um/spatial/tissue_positions.parquet", place / "square_008um/spatial")
    with pytest.raises(UserError, match="one is of bins of 8 µm, the other of 16 µm: take both from one folder"):
        read(outs, bin_um=8)


def test_bins_without_names_that_lie_otherwise_than_their_folder_says_are_refused_or_said(tmp_path: Path) -> None:
    nameless = replace(BINS[16], barcodes=[f"b{i}-1" for i in range(len(BINS[16].barcodes))])
    with pytest.raises(UserError, match="bins are of 8 µm by their folder, but of 16 µm by bin_size_um"):
        read(ten_x.write_bins(tmp_path / "square_008um", nameless))
    silent = replace(nameless, factors={k: v for k, v in nameless.factors.items() if k != "bin_size_um"})
    slide = read(ten_x.write_bins(tmp_path / "other/square_008um", silent))
    assert "0.25 µm by microns_per_pixel of the scale factors, but 0.125 µm by the array" in told(slide)


def test_without_a_stated_pixel_size_bins_say_it(outs: Path) -> None:
    spatial = outs / "binned_outputs/square_008um/spatial"
    factors = {name: value for name, value in BINS[8].factors.items() if name != "microns_per_pixel"}
    (spatial / "scalefactors_json.json").write_text(json.dumps(factors))
    slide = read(outs, bin_um=8)
    assert (slide.um_per_px, slide.um_per_px_from) == (pytest.approx(0.25, rel=1e-6), "the array's pitch of 8 µm")


# --- segmented cells --------------------------------------------------------------------------------------------------

CELLS = replace(
    ten_x.binned(8),
    centres=ten_x.binned(8).centres + np.random.default_rng(5).uniform(-6, 6, (64, 2)),
    counted=list(range(5, 60)),
)
NUMBERS = [3 * number + 1 for number in range(64)]


def outline(x: float, y: float) -> list:
    """A hexagon about a place, closed."""
    angles = np.arange(7) * np.pi / 3
    return np.column_stack([x + 9 * np.cos(angles), y + 7 * np.sin(angles)]).tolist()


@pytest.fixture
def segmented(outs: Path) -> Path:
    outlines = {number: [outline(*place)] for number, place in zip(NUMBERS, CELLS.centres, strict=True)}
    order = np.random.default_rng(1).permutation(NUMBERS).tolist()
    return ten_x.write_cells(outs, CELLS, NUMBERS, {number: outlines[number] for number in order})


@pytest.mark.parametrize("given", ["run", "outs", "segmented_outputs"])
def test_cells_are_spots_at_their_centroids(segmented: Path, given: str) -> None:
    folder = {"run": segmented.parents[1], "outs": segmented.parent, "segmented_outputs": segmented}[given]
    slide = read(folder, cells=given != "segmented_outputs")
    validate(slide)
    assert slide.spot_ids == [f"cellid_{NUMBERS[cell]:09d}-1" for cell in CELLS.counted]
    np.testing.assert_array_equal(slide.adata.X.toarray(), CELLS.counts[CELLS.counted])
    np.testing.assert_allclose(slide.centres, CELLS.centres[CELLS.counted])
    assert len(np.unique(slide.array_xy, axis=0)) == slide.n_spots
    assert slide.um_per_px == 0.25
    assert "spots are segmented cells" in told(slide)
    assert "9 of 64 outlined cells are not in the matrix and are left out" in told(slide)
    image = ten_x.write_image(segmented.parents[1] / "he.tif", CELLS)
    patches, _ = read(folder, image, cells=given != "segmented_outputs").image.cut(slide.centres, ten_x.PAINTED)
    assert patches.shape == (55, 6, 6, 3)


def test_cells_are_listed_beside_the_bins(segmented: Path) -> None:
    with pytest.raises(UserError, match=r"square_016um, segmented cells\) - .*or cells = true"):
        read(segmented.parent)
    with pytest.raises(UserError, match="exclude each other"):
        read(segmented.parent, cells=True, bin_um=8)
    shutil.rmtree(segmented.parent / "binned_outputs")
    with pytest.raises(UserError, match=r"\(segmented cells\) - give cells = true"):
        read(segmented.parent)


def test_cells_without_an_outline_are_counted_and_none_at_all_is_refused(segmented: Path) -> None:
    path = segmented / "cell_segmentations.geojson"
    content = json.loads(path.read_text())
    lost = [cell for cell in content["features"] if cell["properties"]["cell_id"] != NUMBERS[20]]
    path.write_text(json.dumps({**content, "features": lost}))
    slide = read(segmented)
    assert slide.n_spots == 54
    assert "1 of 55 cells have no outline and are left out" in told(slide)
    for cell in content["features"]:
        cell["properties"]["cell_id"] += 1
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="only 0 of the 55 cells"):
        read(segmented)


def test_names_of_cells_outlines_with_holes_and_of_several_parts(tmp_path: Path) -> None:
    square = [[0, 0], [4, 0], [4, 4], [0, 4], [0, 0]]
    hole = [[2, 0], [4, 0], [4, 4], [2, 4], [2, 0]]
    far = [[10, 0], [10, 4], [14, 4], [14, 0]]  # the other way round, and open
    shapes = {
        "cellid_000000001-1": ("Polygon", [square]),
        2: ("Polygon", [square, hole]),
        3.0: ("MultiPolygon", [[square], [far]]),
        "4": ("Polygon", [[[1, 1], [3, 1], [1, 1]]]),  # encloses nothing
    }
    features = [
        {"type": "Feature", "properties": {"classification": {"name": "Cluster 1"}, "cell_id": name},
         "geometry": {"type": kind, "coordinates": rings}}
        for name, (kind, rings) in shapes.items()
    ]  # fmt: skip
    path = tmp_path / "graphclust_annotated_cell_segmentations.geojson"
    path.write_text(json.dumps({"features": features, "type": "FeatureCollection"}))
    cells = read_cells(path)
    assert cells.numbers.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(cells.centres, [[2, 2], [1, 2], [7, 2], [5 / 3, 1]])


DAMAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "cut off": (lambda text: text[: len(text) // 2], "cut off or damaged"),
    "no list": (lambda text: text.replace('"features"', '"cells"'), "no list of features"),
    "no numbers": (lambda text: text.replace('"cell_id"', '"id"'), "KeyError: 'cell_id'"),
    "points": (lambda text: text.replace('"Polygon"', '"Point"'), "an outline is a Point"),
    "not finite": (lambda text: text.replace("Polygon", "Polygon", 1).replace("[\n", "[NaN, ", 3), "no GeoJSON"),
    "twice": (lambda text: text.replace('"cell_id": 4\n', '"cell_id": 1\n'), "more than once"),
    "empty": (lambda text: '{"features": []}', "outlines no cell"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_outlines_are_one_line(segmented: Path, damage: str) -> None:
    path = segmented / "cell_segmentations.geojson"
    spoil, said = DAMAGE[damage]
    path.write_text(spoil(path.read_text()))
    with pytest.raises(UserError, match=said) as caught:
        read(segmented)
    assert "\n" not in str(caught.value)
