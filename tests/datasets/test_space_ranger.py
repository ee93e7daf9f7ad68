"""The reader of Space Ranger folders, over the forms that its versions and its users left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import upstream
from PIL import Image

from stbench.datasets.readers import space_ranger
from stbench.errors import UserError
from stbench.slide import Slide, validate


@pytest.fixture
def section() -> upstream.VisiumSection:
    return upstream.VisiumSection("S1", 20, np.random.default_rng(3))


@pytest.fixture
def folder(section: upstream.VisiumSection, tmp_path: Path) -> Path:
    section.write_h5(tmp_path / "S1/filtered_feature_bc_matrix.h5")
    section.write_spatial(tmp_path / "S1/spatial", positions="header")
    return tmp_path / "S1"


def read(folder: Path) -> Slide:
    return space_ranger.read("S1", "P1", space_ranger.find(folder))


def assert_is(slide: Slide, section: upstream.VisiumSection, rounded: bool = False) -> None:
    validate(slide)
    assert slide.spot_ids == section.tissue_barcodes
    n = len(section.genes)
    assert slide.genes == [*section.genes[:-1], f"{section.genes[0]}-1"]
    np.testing.assert_array_equal(slide.adata.X.toarray(), section.rows(section.tissue_barcodes)[:, :n])
    rows = [section.barcodes.index(barcode) for barcode in section.tissue_barcodes]
    np.testing.assert_allclose(slide.centres, section.pixels[rows], atol=0.5 if rounded else 1e-9)
    np.testing.assert_array_equal(slide.array_xy, section.array[rows][:, ::-1])


def test_hdf5_keeps_gene_expression_and_joins_positions_by_barcode(
    folder: Path, section: upstream.VisiumSection
) -> None:
    slide = read(folder)
    assert_is(slide, section)
    assert slide.um_per_px == pytest.approx(2.0, rel=1e-3)  # 100 µm pitch over 50 px
    assert slide.notes == ("S1: 1 gene symbols repeat; the first of each keeps the name",)


@pytest.mark.parametrize("form", ["headless", "header", "parquet"])
def test_positions_in_every_form_are_the_same(folder: Path, section: upstream.VisiumSection, form: str) -> None:
    shutil.rmtree(folder / "spatial")
    section.write_spatial(folder / "spatial", positions=form)
    assert_is(read(folder), section, rounded=form == "headless")


def test_a_header_is_seen_whatever_the_files_name_says(folder: Path, section: upstream.VisiumSection) -> None:
    (folder / "spatial/tissue_positions.csv").rename(folder / "spatial/tissue_positions_list.csv")
    assert_is(read(folder), section)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("n_columns", [1, 2, 3])
def test_a_matrix_folder_is_read_with_any_number_of_feature_columns_zipped_or_only_named_so(
    folder: Path, section: upstream.VisiumSection, n_columns: int, zipped: bool
) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    section.write_mex(folder / "filtered_feature_bc_matrix", raw=False, zipped=zipped, n_columns=n_columns)
    assert_is(read(folder), section)


def test_a_raw_matrix_is_reduced_to_the_listed_barcodes_in_their_order(
    folder: Path, section: upstream.VisiumSection
) -> None:
    section.write_mex(folder / "raw_feature_bc_matrix", raw=True, zipped=True)
    barcodes = upstream.write_text(folder / "barcodes.tsv", "".join(f"{b}\n" for b in section.tissue_barcodes))
    files = space_ranger.from_parts(folder / "raw_feature_bc_matrix", folder / "spatial", barcodes=barcodes)
    assert_is(space_ranger.read("S1", "P1", files), section)
    assert barcodes in files.paths()


def test_a_raw_matrix_alone_is_reduced_to_spots_under_tissue(folder: Path, section: upstream.VisiumSection) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    section.write_mex(folder / "raw_feature_bc_matrix", raw=True, zipped=True)
    assert sorted(read(folder).spot_ids) == sorted(section.tissue_barcodes)


def test_version_2_hdf5_names_genes_elsewhere(folder: Path, section: upstream.VisiumSection) -> None:
    path = folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "r+") as file:
        n = len(section.genes) + 2
        group = file.create_group("GRCh38")
        for name in ("data", "indices", "indptr", "shape", "barcodes"):
            group[name] = file["matrix"][name][:]
        group["genes"] = file["matrix/features/id"][:]
        group["gene_names"] = file["matrix/features/name"][:]
        del file["matrix"]
    slide = read(folder)
    assert slide.adata.n_vars == n  # that version knows no kinds of features
    assert slide.spot_ids == section.tissue_barcodes


def test_without_a_full_resolution_image_the_hires_then_the_lowres_one_serves_at_its_scale(
    folder: Path, section: upstream.VisiumSection
) -> None:
    slide = read(folder)
    assert (slide.image.level, slide.image.scale, slide.image.size) == ("hires", upstream.HIRES, (280, 280))
    (folder / "spatial/tissue_hires_image.png").unlink()
    slide = read(folder)
    assert (slide.image.level, slide.image.scale, slide.image.size) == ("lowres", 0.1, (56, 56))
    assert slide.centres.max() > 280  # positions stay at full resolution


@pytest.mark.parametrize("name", ["image.tif", "V1_Breast_image.jpg", "section_image.png"])
def test_a_full_resolution_image_beside_the_matrix_is_preferred(
    folder: Path, section: upstream.VisiumSection, name: str
) -> None:
    Image.fromarray(section.image).save(folder / name)
    slide = read(folder)
    assert (slide.image.level, slide.image.scale, slide.image.size) == ("full", 1.0, (560, 560))
    assert slide.image.path == folder / name


def test_an_image_of_another_size_than_space_ranger_saw_is_refused(
    folder: Path, section: upstream.VisiumSection
) -> None:
    tifffile.imwrite(folder / "image.tif", section.image[:400], photometric="rgb")
    with pytest.raises(UserError, match=r"560 x 400 px, but .* about 560 x 560"):
        read(folder)


def test_two_candidates_for_the_image_are_refused(folder: Path, section: upstream.VisiumSection) -> None:
    section.write_image(folder / "image.tif")
    section.write_image(folder / "other_image.tif")
    with pytest.raises(UserError, match="several full-resolution images"):
        read(folder)


def test_a_cytassist_run_without_full_resolution_is_noted(folder: Path) -> None:
    path = folder / "spatial/scalefactors_json.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "regist_target_img_scalef": 0.2}))
    assert any("CytAssist" in note for note in read(folder).notes)


def test_the_stated_size_of_a_pixel_wins_over_the_estimate(folder: Path) -> None:
    path = folder / "spatial/scalefactors_json.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "microns_per_pixel": 0.27}))
    assert read(folder).um_per_px == 0.27


def test_every_file_that_matters_is_listed(folder: Path, section: upstream.VisiumSection) -> None:
    section.write_image(folder / "image.tif")
    names = {path.name for path in space_ranger.find(folder).paths()}
    assert names == {
        "filtered_feature_bc_matrix.h5",
        "tissue_positions.csv",
        "scalefactors_json.json",
        "image.tif",
        "tissue_hires_image.png",
    }
