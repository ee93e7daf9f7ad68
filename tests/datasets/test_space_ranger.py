"""The reader of Space Ranger folders, over the forms that its versions and its users left behind."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile
import upstream
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

from stbench.datasets.readers import space_ranger
from stbench.errors import UserError
from stbench.slides.checks import validate
from stbench.slides.slide import Slide


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
    assert slide.notes == (
        "S1: 2 features are no genes and are left out (2 Antibody Capture)",
        "S1: 1 gene symbol repeats; the first of each keeps the name",
    )


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
        validate(read(folder))


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


@pytest.mark.parametrize("form", ["1.0", "quoted", "TRUE", "spaces", "windows", "further columns"])
def test_positions_rewritten_by_other_tools_are_the_same(
    folder: Path, section: upstream.VisiumSection, form: str
) -> None:
    frame = pd.read_csv(folder / "spatial/tissue_positions.csv")
    (folder / "spatial/tissue_positions.csv").unlink()
    path = folder / "spatial/tissue_positions_list.csv"
    options: dict = {"index": False, "header": False}
    if form == "1.0":
        frame[["in_tissue", "array_row", "array_col"]] = frame[["in_tissue", "array_row", "array_col"]].astype(float)
    elif form == "quoted":
        options["quoting"] = csv.QUOTE_ALL
    elif form == "TRUE":
        frame["in_tissue"] = np.where(frame["in_tissue"] == 1, "TRUE", "FALSE")
    elif form == "further columns":
        options["header"] = True
        frame.insert(0, "row", range(len(frame)))
    frame.to_csv(path, **options)
    if form == "spaces":
        path.write_text(path.read_text().replace(",", ", "))
    if form == "windows":
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert_is(read(folder), section)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("array_row", 2.5, "array_row of .* is 2.5, not an integer"),
        ("in_tissue", 7, "in_tissue of .* is 7, not 0 or 1"),
    ],
)
def test_positions_that_cannot_be_are_refused_with_their_value(
    folder: Path, column: str, value: float, said: str
) -> None:
    path = folder / "spatial/tissue_positions.csv"
    frame = pd.read_csv(path)
    frame[column] = frame[column].astype(type(value))
    frame.loc[3, column] = value
    frame.to_csv(path, index=False)
    with pytest.raises(UserError, match=said):
        read(folder)


def test_scale_factors_that_are_texts_or_lists_of_one_are_numbers(folder: Path) -> None:
    path = folder / "spatial/scalefactors_json.json"
    expected = space_ranger.read_scale_factors(path)
    content = json.loads(path.read_text())
    for change in (str, lambda value: [value], lambda value: [str(value)]):
        path.write_text(json.dumps({name: change(value) for name, value in content.items()} | {"name": "x"}))
        assert space_ranger.read_scale_factors(path) == expected


def test_a_matrix_of_several_sections_is_refused_although_its_barcodes_have_positions(
    folder: Path, section: upstream.VisiumSection
) -> None:
    """The other section has the same barcodes but for the number behind them, as all Visium sections do."""
    other = [barcode[:-1] + "2" for barcode in section.tissue_barcodes]
    genes = "".join(f"{gene}\n" for gene in section.genes)
    rows = np.vstack([section.rows(section.tissue_barcodes)[:15], section.rows(section.tissue_barcodes)[:5]])
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    place = folder / "filtered_feature_bc_matrix"
    names = [*section.tissue_barcodes[:15], *other[:5]]
    upstream.write_text(place / "barcodes.tsv", "".join(f"{name}\n" for name in names))
    upstream.write_text(place / "features.tsv", genes)
    with (place / "matrix.mtx").open("wb") as stream:
        mmwrite(stream, sparse.coo_matrix(rows.T))
    with pytest.raises(UserError) as caught:
        read(folder)
    message = str(caught.value)
    assert "holds several sections (barcodes end in -1, -2)" in message
    assert f"{other[0]} has no position" in message


def test_barcodes_that_do_not_match_are_shown_from_both_sides(folder: Path, section: upstream.VisiumSection) -> None:
    path = folder / "spatial/tissue_positions.csv"
    kept, lost = section.tissue_barcodes[0], section.tissue_barcodes[1]
    text = path.read_text().replace("-1,", ",").replace(kept[:-2] + ",", kept + ",")
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read(folder)
    assert "only 1 of the 20 barcodes" in str(caught.value)
    assert f"({lost} there, " in str(caught.value)
    assert kept not in str(caught.value)


def test_quoted_barcodes_and_features_are_read(folder: Path, section: upstream.VisiumSection) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    place = folder / "filtered_feature_bc_matrix"
    section.write_mex(place, raw=False, zipped=False)
    for name in ("barcodes.tsv.gz", "features.tsv.gz"):
        lines = (place / name).read_text().splitlines()
        (place / name).write_text("".join('"' + line.replace("\t", '"\t"') + '"\n' for line in lines))
    assert_is(read(folder), section)


def test_a_folder_near_the_right_one_points_to_it(section: upstream.VisiumSection, tmp_path: Path) -> None:
    def write(place: Path) -> None:
        section.write_h5(place / "filtered_feature_bc_matrix.h5")
        section.write_spatial(place / "spatial")

    def refused(folder: Path, said: str) -> None:
        with pytest.raises(UserError) as caught:
            space_ranger.find(folder)
        assert said in str(caught.value)

    write(tmp_path / "run/outs")
    refused(tmp_path / "run", f"did you mean {tmp_path / 'run/outs'}?")
    refused(tmp_path / "run/outs/spatial", f"did you mean {tmp_path / 'run/outs'}?")
    for size in ("002", "008", "016"):
        write(tmp_path / f"hd/outs/binned_outputs/square_{size}um")
    (tmp_path / "hd/outs/spatial").mkdir()
    usual = tmp_path / "hd/outs/binned_outputs/square_016um"
    for folder in ("hd", "hd/outs", "hd/outs/binned_outputs"):
        refused(tmp_path / folder, "is a Visium HD run (square_002um, square_008um, square_016um) - name one")
        refused(tmp_path / folder, f"for example {usual}")
    assert space_ranger.find(usual).level == "hires"
    write(tmp_path / "many/S1")
    write(tmp_path / "many/S2")
    refused(tmp_path / "many", "holds 2 sections")
    refused(tmp_path / "nowhere", "does not exist")


def test_a_picture_that_is_passed_over_is_said(folder: Path, section: upstream.VisiumSection) -> None:
    Image.fromarray(section.image).save(folder / "V1_tissue.tif")
    slide = read(folder)
    assert slide.image.level == "hires"
    assert any(f"{folder / 'V1_tissue.tif'} has the size of the full-resolution one" in note for note in slide.notes)


def test_counts_that_are_whole_but_for_rounding_are_rounded_and_said(
    folder: Path, section: upstream.VisiumSection
) -> None:
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
        values = file["matrix/data"][:].astype(np.float32) * np.float32(1.0000001)
        del file["matrix/data"]
        file["matrix/data"] = values + np.float32(1e-5)
    slide = read(folder)
    assert_is(slide, section)
    assert any("counts are whole but for rounding" in note for note in slide.notes)


def test_a_parquet_table_whose_barcodes_are_its_index_is_read(folder: Path, section: upstream.VisiumSection) -> None:
    path = folder / "spatial/tissue_positions.csv"
    pd.read_csv(path).set_index("barcode").to_parquet(folder / "spatial/tissue_positions.parquet")
    path.unlink()
    assert_is(read(folder), section)


def test_a_matrix_with_barcodes_as_rows_is_said_to_be_turned(folder: Path, section: upstream.VisiumSection) -> None:
    (folder / "filtered_feature_bc_matrix.h5").unlink()
    place = folder / "filtered_feature_bc_matrix"
    section.write_mex(place, raw=False, zipped=False)
    with (place / "matrix.mtx.gz").open("wb") as stream:
        mmwrite(stream, sparse.coo_matrix(section.rows(section.tissue_barcodes)))
    with pytest.raises(UserError, match="has barcodes as rows - transpose it"):
        read(folder)
