"""The readers on real sections: what is known about them comes out, and spots lie on tissue."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stbench.datasets.alex10x import Alex10x
from stbench.datasets.her2st import HER2ST
from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.readers import legacy_st, space_ranger
from stbench.datasets.readers.space_ranger.positions import read_positions
from stbench.errors import UserError
from stbench.slides.checks import check_slide, validate
from stbench.slides.geometry import array_map, likeness
from stbench.slides.lattice import pitch
from stbench.slides.slide import Slide

pytestmark = pytest.mark.data

HER2ST_FACTS = {  # spots, genes, image, µm per px
    "B4": (283, 15289, (9272, 9923), 0.688),
    "C2": (187, 15706, (9274, 9911), 0.688),
    "C3": (180, 15821, (9270, 9936), 0.687),
    "C4": (184, 15842, (9278, 9916), 0.688),
    "C5": (181, 15721, (9272, 9901), 0.689),
    "C6": (178, 15772, (9288, 9907), 0.688),
}


def tissue_contrast(slide: Slide) -> float:
    """How much darker the image is under the spots than on the whole, in standard deviations of its brightness."""
    thumbnail = slide.image.thumbnail(500).mean(axis=2)
    shrink = slide.image.scale * thumbnail.shape[1] / slide.image.size[0]
    columns, rows = np.floor(slide.centres * shrink).astype(int).T
    return float((np.median(thumbnail) - np.median(thumbnail[rows, columns])) / thumbnail.std())


@pytest.mark.parametrize("name", HER2ST_FACTS)
def test_her2st_sections_are_as_measured(data_root: Path, name: str) -> None:
    dataset = HER2ST(data_root)
    slide = next(source for source in dataset.find()[0] if source.id == name).read()
    n_spots, n_genes, size, um_per_px = HER2ST_FACTS[name]
    assert (slide.n_spots, len(slide.genes), slide.image.size) == (n_spots, n_genes, size)
    assert slide.um_per_px == pytest.approx(um_per_px, abs=0.0006)
    assert set(dataset.panel()) <= set(slide.genes)
    assert slide.n_spots == dataset.expected_spots[name]
    validate(slide, panel=dataset.panel())
    assert not slide.image.crossing(slide.centres, 224).any()
    assert tissue_contrast(slide) > 0.5


def test_the_26_slices_without_an_image_or_without_anything_are_missing(data_root: Path) -> None:
    sources, missing = HER2ST(data_root).find()
    assert [source.id for source in sources] == list(HER2ST_FACTS)
    assert len(missing) == 26
    reasons = {gone.id: gone.reason for gone in missing}
    assert "no image" in reasons["B1"]
    assert "no counts" in reasons["A2"]


@pytest.mark.parametrize("name", ["A1", "B1", "C1", "D1", "E1", "F1", "G2", "H1"])
def test_every_counted_spot_of_a_labelled_section_has_exactly_one_label(
    labelled_section: Callable[[str], Slide], name: str
) -> None:
    slide = labelled_section(name)
    labels = slide.adata.obs["label"]
    assert labels.notna().all()
    assert set(labels) <= {
        "invasive cancer",
        "cancer in situ",
        "immune infiltrate",
        "connective tissue",
        "adipose tissue",
        "breast glands",
        "undetermined",
    }


def test_one_section_agrees_with_the_published_loaders(data_root: Path) -> None:
    place = Path(os.environ.get("STBENCH_PARITY", Path(__file__).parents[1] / "parity" / "fixtures"))
    golden = np.load(place / "her2st_C2.npz")
    slide = next(source for source in HER2ST(data_root).find()[0] if source.id == "C2").read()
    assert slide.spot_ids == golden["spot_ids"].tolist()
    np.testing.assert_array_equal(slide.array_xy, golden["positions"])
    np.testing.assert_array_equal(np.floor(slide.centres), golden["centres"])
    patches, n_padded = slide.image.cut(slide.centres, 224)
    assert n_padded == 0
    np.testing.assert_allclose(patches.mean(axis=(1, 2)), golden["patch224_rgb_means"], atol=1e-4)
    middle = patches[:, 56:168, 56:168]
    np.testing.assert_allclose(middle.mean(axis=(1, 2)), golden["patch112_rgb_means"], atol=1e-4)
    np.testing.assert_array_equal(middle[0][0], golden["patch112_first_row_of_first_spot"])


def test_one_section_of_alex10x_is_present_under_its_public_name(data_root: Path) -> None:
    dataset = Alex10x(data_root)
    sources, missing = dataset.find()
    assert [source.id for source in sources] == ["block1"]
    assert len(missing) == 8
    slide = sources[0].read()
    assert slide.patient == "block-A"
    assert slide.n_spots == 3796
    assert set(dataset.panel()) <= set(slide.genes)
    assert slide.um_per_px == pytest.approx(0.366, abs=0.001)
    assert slide.image.level == "hires"
    validate(slide, panel=dataset.panel())
    assert tissue_contrast(slide) > 0.5


@pytest.mark.parametrize(
    ("name", "n_spots", "n_genes", "um_per_px", "n_panel"),
    [("GSM6177599_NYU_BRCA0", 2074, 14664, 4.589, 685), ("V1_Human_Lymph_Node", 3962, 18467, 0.7263, 673)],
)
def test_other_visium_sections_are_read_as_they_are(
    data_root: Path, name: str, n_spots: int, n_genes: int, um_per_px: float, n_panel: int
) -> None:
    slide = open_dataset_path(data_root / "visium" / name).find()[0][0].read()
    assert (slide.n_spots, len(slide.genes)) == (n_spots, n_genes)
    assert slide.um_per_px == pytest.approx(um_per_px, rel=5e-4)
    assert len(set(Alex10x().panel()) & set(slide.genes)) == n_panel
    validate(slide)
    assert tissue_contrast(slide) > 0.3


def test_a_section_that_was_imaged_rotated_takes_its_positions_from_pixels(data_root: Path) -> None:
    slide = open_dataset_path(data_root / "visium" / "GSM6177599_NYU_BRCA0").find()[0][0].read()
    column, row = slide.array_xy.T
    x, y = slide.centres.T
    assert np.corrcoef(row, x)[0, 1] > 0.999
    assert np.corrcoef(column, y)[0, 1] < -0.999


def test_olfactory_bulbs_are_read_through_a_manifest(data_root: Path, tmp_path: Path) -> None:
    lines = ['name = "bulb"', "patch_px = 32"]
    for i in (1, 2, 3, 4):
        lines += ["[[slide]]", f'id = "MOB{i}"', f'patient = "mouse{(i + 1) // 2}"', 'reader = "legacy-st"']
        files = {"counts": f"MOB{i}.tsv.gz", "spots": f"alignment_table_MOB{i}.tsv", "image": f"MOB{i}.jpg"}
        lines += [f'{key} = "{data_root}/mob/{name}"' for key, name in files.items()]
    manifest = tmp_path / "bulb.toml"
    manifest.write_text("\n".join(lines))
    dataset = open_dataset_path(manifest)
    slides = [source.read() for source in dataset.find()[0]]
    assert [slide.n_spots for slide in slides] == [379, 407, 438, 403]
    assert all((slide.array_xy.sum(axis=1) % 2 == 0).all() for slide in slides)
    assert max(slide.array_xy.max() for slide in slides) <= 66
    depths = [np.median(np.asarray(slide.adata.X.sum(axis=1))) for slide in slides]
    assert depths == [2268, 2424, 3344, 3050]
    for slide in slides:
        assert check_slide(slide, panel=dataset.panel()) == []
        assert tissue_contrast(slide) > 0.5


def test_no_section_is_mirrored_and_every_spot_lies_where_the_array_puts_it(data_root: Path) -> None:
    """Position files alone, as eight HER2+ sections have no image here: limits of slides.geometry stand on these."""
    spot_tables = [
        *sorted((data_root / "her2st/data/ST-spotfiles").glob("*_selection.tsv")),
        *sorted((data_root / "mob").glob("alignment_table_*.tsv")),
    ]
    found = {}
    for path in spot_tables:
        table = legacy_st.read_spots(path)
        found[path.name] = table[["x", "y"]].to_numpy(), table[["pixel_x", "pixel_y"]].to_numpy()
    for folder in sorted((data_root / "visium").glob("*/spatial")):
        (path,) = folder.glob("tissue_positions*")
        positions = read_positions(path)
        found[folder.parent.name] = positions.array_xy[positions.in_tissue], positions.centres[positions.in_tissue]
    assert len(found) == 21
    for name, (array_xy, centres) in found.items():
        fitted = array_map(array_xy, centres)
        assert fitted is not None, name
        assert fitted.turn > 0.99, name
        assert fitted.residuals.max() < 0.4 * pitch(centres), name


def test_no_visium_section_raises_an_alarm_and_its_two_pictures_are_alike(data_root: Path) -> None:
    folders = sorted(path.parent for path in (data_root / "visium").glob("*/spatial"))
    assert folders
    for folder in folders:
        slide = space_ranger.read(folder.name, folder.name, space_ranger.find(folder))
        (lowres,) = slide.evidence.pictures
        found = likeness(slide.image.thumbnail(256), lowres.thumbnail(256))
        assert found.pop("as it is") > 0.99
        assert max(found.values()) < 0.85
        assert [problem.text for problem in check_slide(slide) if problem.lasting] == []


def test_positions_of_another_visium_section_are_refused(data_root: Path, tmp_path: Path) -> None:
    """All Visium slides share their barcodes: the lymph node's counts with the breast section's spatial/."""
    lymph = space_ranger.find(data_root / "visium/V1_Human_Lymph_Node")
    mixed = space_ranger.from_parts(lymph.counts, data_root / "visium/V1_Breast_Cancer_Block_A_Section_1/spatial")
    with pytest.raises(UserError, match="488 of the 3962 barcodes"):
        validate(space_ranger.read("mixed", "P", mixed))
