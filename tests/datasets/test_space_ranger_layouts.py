"""What Space Ranger 1 to 4 leave behind, and what owners and publishers make of it, read back as it was written."""

from __future__ import annotations

import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import ten_x
import tifffile

from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.readers import space_ranger
from stbench.datasets.readers.space_ranger.positions import read_positions
from stbench.datasets.readers.space_ranger.scale import lattice_pitch
from stbench.errors import UserError
from stbench.slides.checks import check_slide, validate
from stbench.slides.slide import Slide


def read(folder: Path, image: Path | None = None) -> Slide:
    return space_ranger.read("S", "P", space_ranger.find(folder, image))


def assert_is(slide: Slide, section: ten_x.Section, rounded: bool = False) -> None:
    """The counted places of the section, with their counts, positions, and, at full resolution, windows."""
    validate(slide)
    genes = [row for row, kind in enumerate(section.kinds) if kind == "Gene Expression"]
    assert slide.spot_ids == section.names
    assert slide.genes == [section.genes[row] for row in genes]
    assert slide.adata.var["gene_ids"].tolist() == [section.ids[row] for row in genes]
    np.testing.assert_array_equal(slide.adata.X.toarray(), section.counts[section.counted][:, genes])
    np.testing.assert_array_equal(slide.array_xy, section.array[section.counted][:, ::-1])
    np.testing.assert_allclose(slide.centres, section.centres[section.counted], atol=0.5 if rounded else 1e-9)
    if slide.image.level == "full" and not rounded:
        np.testing.assert_array_equal(slide.image.cut(slide.centres, ten_x.PAINTED)[0], section.patches)


def told(slide: Slide) -> str:
    return "\n".join([*slide.notes, *(problem.text for problem in check_slide(slide))])


@pytest.mark.parametrize("mex", [False, True])
@pytest.mark.parametrize("form", ["list", "csv", "parquet"])
def test_outs_of_every_version_are_read_with_the_image_beside_them(tmp_path: Path, form: str, mex: bool) -> None:
    section = ten_x.with_features(ten_x.visium(), ["CD3", "CD8"], ["CD3.1", "CD8.1"], "Antibody Capture")
    outs = ten_x.write_outs(tmp_path / "run/outs", section, form, mex)
    slide = read(outs, ten_x.write_image(tmp_path / "run/he.tif", section))
    assert_is(slide, section, rounded=form == "list")
    assert (slide.image.level, slide.um_per_px_from) == ("full", "the array's pitch of 100 µm")
    assert slide.um_per_px == pytest.approx(2.5, rel=2e-3)
    assert slide.notes == ("S: 2 features are no genes and are left out (2 Antibody Capture)",)


@pytest.mark.parametrize("prefix", ["V1_Brain_", "GSM5420749_P1-2."])
def test_published_files_have_a_prefix(tmp_path: Path, prefix: str) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path / "S", section)
    for path in [*outs.iterdir(), *(outs / "spatial").iterdir()]:
        if path.is_file():
            path.rename(path.with_name(prefix + path.name))
    (outs / "spatial").rename(outs / f"{prefix}spatial")
    assert_is(read(outs), section)


@pytest.mark.parametrize("prefix", ["", "GSM5420749_P1_"])
def test_all_files_of_a_section_may_lie_in_one_folder_gzipped(tmp_path: Path, prefix: str) -> None:
    section = ten_x.visium()
    ten_x.write_mex(tmp_path, section, prefix=prefix)
    for write in (lambda at, it: ten_x.write_positions(at, it, "list"), ten_x.write_factors, ten_x.write_pictures):
        write(tmp_path / "unpacked", section)
    for path in (tmp_path / "unpacked").iterdir():
        (tmp_path / f"{prefix}{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    shutil.rmtree(tmp_path / "unpacked")
    slide = read(tmp_path)
    assert_is(slide, section, rounded=True)
    assert slide.image.level == "hires"
    assert slide.notes == ()
    assert open_dataset_path(tmp_path).find()[0][0].read().spot_ids == section.names
    off = np.flatnonzero(~section.in_tissue)[:12].tolist()
    ten_x.write_mex(tmp_path, replace(section, counted=[*section.counted[:35], *off]), prefix=prefix)
    with pytest.raises(UserError, match=r"12 of the 47 barcodes .* have in_tissue = 0"):
        validate(read(tmp_path))
    ten_x.write_mex(tmp_path, section, list(range(len(section.barcodes))), prefix=prefix)
    assert "no matrix is said to be filtered: of the 72 barcodes" in told(read(tmp_path))


def several_side_by_side(folder: Path, matrix: str) -> dict[str, ten_x.Section]:
    """Two samples as a series of GEO gives them out, gzipped, of which one's name begins with the other's."""
    sections = {"GSM1_S1": ten_x.visium(0), "GSM1_S12": ten_x.visium(1)}
    for prefix, section in sections.items():
        if matrix == "three files":
            ten_x.write_mex(folder, section, prefix=f"{prefix}_")
        else:
            ten_x.write_h5(folder / f"{prefix}_filtered_feature_bc_matrix.h5", section)
        spatial = folder / ("spatial" if matrix == "three files" else f"{prefix}_spatial")
        ten_x.write_positions(spatial, section, "list")
        ten_x.write_factors(spatial, section)
        ten_x.write_pictures(spatial, section)
        if matrix == "three files":
            for path in spatial.iterdir():
                (folder / f"{prefix}_{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            shutil.rmtree(spatial)
    return sections


@pytest.mark.parametrize("matrix", ["three files", "one file"])
def test_of_several_sections_in_one_folder_one_is_chosen_by_what_its_files_begin_with(
    tmp_path: Path, matrix: str
) -> None:
    sections = several_side_by_side(tmp_path, matrix)
    with pytest.raises(UserError, match=r"several sections \(GSM1_S1.*--option prefix=GSM1_S12?;"):
        space_ranger.find(tmp_path)
    for prefix, section in sections.items():
        files = space_ranger.find(tmp_path, prefix=prefix)
        assert all(prefix in str(path) for path in files.paths())
        assert_is(space_ranger.read("S1", "P1", files), section, rounded=True)
    with pytest.raises(UserError, match=r"no section whose files begin with 'GSM1_S2'.*begin with GSM1_S1"):
        space_ranger.find(tmp_path, prefix="GSM1_S2")


@pytest.mark.parametrize(("behind", "said_of"), [("-2", "-2"), ("", "no number")])
def test_another_number_behind_barcodes_is_no_other_section(tmp_path: Path, behind: str, said_of: str) -> None:
    """A library taken out of an aggregated matrix keeps its number there; R code drops it."""
    section = ten_x.visium()
    renamed = replace(section, barcodes=[name.removesuffix("-1") + behind for name in section.barcodes])
    outs = ten_x.write_outs(tmp_path, section)
    ten_x.write_h5(outs / "filtered_feature_bc_matrix.h5", renamed)
    slide = read(outs)
    assert_is(slide, renamed)
    assert f"barcodes end in {said_of} in the matrix, in -1 in the positions: they are matched without it" in told(
        slide
    )


def test_archives_that_are_still_packed_are_named(tmp_path: Path) -> None:
    (tmp_path / "V1_Brain_spatial.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match=r"holds archives \(V1_Brain_spatial.tar.gz\) - unpack them"):
        space_ranger.find(tmp_path)


@pytest.mark.parametrize("mex", [False, True])
def test_without_a_filtered_matrix_the_raw_one_is_taken_and_that_is_said(tmp_path: Path, mex: bool) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path, section, mex=mex)
    filtered = outs / f"filtered_feature_bc_matrix{'' if mex else '.h5'}"
    (shutil.rmtree if mex else Path.unlink)(filtered)
    slide = read(outs)
    assert_is(slide, replace(section, counted=np.flatnonzero(section.in_tissue).tolist()))
    assert "no matrix is said to be filtered: of the 72 barcodes of raw_feature_bc_matrix" in told(slide)
    assert "the 40 under tissue by the positions are taken" in told(slide)
    assert "have more counts than" not in told(slide)


def test_a_raw_matrix_shows_by_its_counts_that_the_positions_are_of_another_section(tmp_path: Path) -> None:
    """It lists all barcodes, so none is amiss; but background is counted far less often than tissue."""
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path, section)
    (outs / "filtered_feature_bc_matrix.h5").unlink()
    other = replace(section, in_tissue=np.roll(section.in_tissue, 20))
    ten_x.write_positions(outs / "spatial", other, "csv")
    n_swapped = int((section.in_tissue & ~other.in_tissue).sum())
    assert f"{n_swapped} of 32 places off tissue have more counts than half of what" in told(read(outs))


@pytest.mark.parametrize("version", ["1", "2"])
def test_aggregated_output_is_refused_with_its_libraries(tmp_path: Path, version: str) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path / "outs", section)
    name = "aggr_tissue_positions_list.csv" if version == "1" else "aggr_tissue_positions.csv"
    (outs / "spatial/tissue_positions.csv").rename(outs / "spatial" / name)
    (outs / "aggregation.csv").write_text("library_id,molecule_h5\nleft,a.h5\nright,b.h5\n")
    for library in ("left", "right"):
        ten_x.write_pictures(outs / "spatial" / library, section)
    with pytest.raises(UserError, match=r"'spaceranger aggr'.* of left, right, from before 'aggr'"):
        open_dataset_path(outs).find()


def test_of_two_named_as_images_the_one_of_the_right_size_is_taken(tmp_path: Path) -> None:
    """10x Genomics publishes the CytAssist's picture as NAME_image.tif, the microscope's as NAME_tissue_image.tif."""
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path, section)
    ten_x.write_cytassist(outs)
    (outs / "cytassist_image.tiff").rename(outs / "S_image.tif")
    ten_x.write_image(outs / "S_tissue_image.tif", section)
    slide = read(outs)
    assert slide.image.path == outs / "S_tissue_image.tif"
    assert_is(slide, section)


def test_the_picture_of_cytassist_is_never_taken(tmp_path: Path) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path / "run/outs", section)
    ten_x.write_factors(outs / "spatial", section, regist_target_img_scalef=0.2)
    assert "a CytAssist run: its small image may be the instrument's own" in told(read(outs))
    ten_x.write_cytassist(outs / "spatial")
    shutil.copy(outs / "spatial/cytassist_image.tiff", outs / "S_cytassist_image.tiff")
    slide = read(outs)
    assert slide.image.path == outs / "spatial/tissue_hires_image.png"
    assert "CytAssist" not in told(slide)
    for name in ("spatial/cytassist_image.tiff", "S_cytassist_image.tiff"):
        with pytest.raises(UserError, match="is the picture of the CytAssist instrument, not the microscope's"):
            read(outs, outs / name)
    with pytest.raises(UserError, match="is the reduced picture that Space Ranger made"):
        read(outs, outs / "spatial/tissue_hires_image.png")


def test_a_run_without_a_microscope_image_has_no_stained_one(tmp_path: Path) -> None:
    """Its reduced pictures are made of the CytAssist's, of whatever name, and positions are in pixels of that."""
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path / "outs", section)
    tifffile.imwrite(outs / "spatial/cytassist_image.tiff", section.image, photometric="rgb")
    for image in (None, ten_x.write_image(tmp_path / "he.tif", section)):
        with pytest.raises(UserError, match=r"is the picture of the CytAssist .* run Space Ranger again with the H&E"):
            read(outs, image)


def test_a_picture_beside_outs_is_named_where_its_size_fits_and_never_taken(tmp_path: Path) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path / "run/outs", section)
    ten_x.write_image(tmp_path / "run/other.tif", ten_x.visium(n_rows=9))
    assert "other.tif" not in told(read(outs))
    image = ten_x.write_image(tmp_path / "run/he.tif", section)
    slide = read(outs)
    assert slide.image.level == "hires"
    assert f"{image} has the size of the full-resolution one" in told(slide)
    ten_x.write_image(tmp_path / "run/again.tif", section)
    slide = read(outs)
    assert slide.image.level == "hires"
    assert "several pictures have its size: again.tif, he.tif" in told(slide)
    (tmp_path / "run/again.tif").unlink()
    (outs / "microscope_image").mkdir()
    image = image.rename(outs / "microscope_image/he.tif")
    assert f"{image} has the size of the full-resolution one" in told(read(outs))


# --- how large a pixel is ---------------------------------------------------------------------------------------------


def test_the_pixel_size_of_a_cytassist_run_is_not_that_of_its_spot_diameter(tmp_path: Path) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path, section)
    ten_x.write_factors(outs / "spatial", section, spot_diameter_fullres=60 / 2.5)
    slide = read(outs)
    assert slide.um_per_px == pytest.approx(2.5, rel=1e-6)
    assert 65 / slide.adata.uns["spatial"]["S"]["scalefactors"]["spot_diameter_fullres"] > 1.08 * slide.um_per_px


@pytest.mark.parametrize("turn", [0.0, 90.0, 183.0])
@pytest.mark.parametrize("rows_um", [86.6, 87.0])
def test_a_lattice_is_measured_whatever_its_turn_to_a_thousandth_where_positions_are_rounded(
    turn: float, rows_um: float
) -> None:
    array = np.array([(row, 2 * i + row % 2) for row in range(78) for i in range(64)])
    place = array[:, ::-1] * [50, rows_um] / 0.73
    angle = np.deg2rad(turn)
    turned = place @ np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    assert 100 / lattice_pitch(array[:, ::-1], np.round(turned), hexagonal=True) == pytest.approx(0.73, rel=1e-3)
    assert lattice_pitch(array[:, ::-1], turned, hexagonal=False) is None  # its steps are no square


def test_where_no_lattice_can_be_measured_that_is_said(tmp_path: Path) -> None:
    section = ten_x.visium()
    rng = np.random.default_rng(0)
    scattered = replace(section, centres=section.centres + rng.uniform(-15, 15, section.centres.shape))
    slide = read(ten_x.write_outs(tmp_path / "a", scattered))
    assert slide.um_per_px is None
    assert "the size of a pixel is not known: spots do not lie on a hexagonal lattice" in told(slide)
    one_row = ten_x.visium(n_rows=1, n_tissue=5)
    assert read(ten_x.write_outs(tmp_path / "b", one_row)).um_per_px is None


def test_a_stated_pixel_size_is_held_against_the_array(tmp_path: Path) -> None:
    ten_x.write_outs(tmp_path / "S", ten_x.visium())
    for stated, differs in ((2.54, False), (2.56, True)):
        manifest = tmp_path / "m.toml"
        entry = f'id = "S"\npatient = "P"\nreader = "space-ranger"\nfolder = "S"\num_per_px = {stated}\n'
        manifest.write_text(f'name = "m"\n[[slide]]\n{entry}')
        slide = open_dataset_path(manifest).find()[0][0].read()
        assert slide.um_per_px == stated
        assert ("by its files it would be 2.5 µm" in told(slide)) == differs


# --- what is a spot, what is a gene -----------------------------------------------------------------------------------


def test_barcodes_off_tissue_are_an_error_or_a_lasting_notice(tmp_path: Path) -> None:
    section = ten_x.visium()
    other = np.flatnonzero(~section.in_tissue)
    mixed = replace(section, counted=[*section.counted[:35], *other[:12].tolist()])
    slide = read(ten_x.write_outs(tmp_path / "mixed", mixed))
    with pytest.raises(UserError, match=r"12 of the 47 barcodes .* have in_tissue = 0"):
        validate(slide)
    large = ten_x.visium(n_rows=12, n_columns=12, n_tissue=100)
    strayed = replace(large, counted=[*large.counted, int(np.flatnonzero(~large.in_tissue)[0])])
    (problem,) = [found for found in check_slide(read(ten_x.write_outs(tmp_path / "one", strayed))) if found.lasting]
    assert problem.severity == "notice"
    assert "but 1 of the 101 barcodes" in problem.text


def test_positions_of_another_section_that_share_no_spot_are_refused(tmp_path: Path) -> None:
    section = ten_x.visium()
    off = replace(section, counted=np.flatnonzero(~section.in_tissue).tolist())
    with pytest.raises(UserError, match=r"no barcode of .* is under tissue by .*different sections"):
        read(ten_x.write_outs(tmp_path, off))


def test_spots_under_tissue_that_no_matrix_lists_are_counted(tmp_path: Path) -> None:
    section = ten_x.visium()
    section = replace(section, counted=section.counted[:-3])
    slide = read(ten_x.write_outs(tmp_path, section))
    assert_is(slide, section)
    assert "3 spots under tissue have no counts and are left out" in told(slide)


def test_deprecated_and_excluded_probes_are_left_out_and_counted(tmp_path: Path) -> None:
    section = ten_x.visium()
    outs = ten_x.write_outs(tmp_path / "run/outs", section)
    withdrawn = ["DEPRECATED_ENSG1", "DEPRECATED_ENSG2"]
    everything = ten_x.with_features(section, ["OLD1", "OLD2"], withdrawn, "Gene Expression")
    ten_x.write_h5(outs / "filtered_feature_bc_matrix.h5", everything)
    probes = [
        f"{name},ACGT,{name}|p{n},{'FALSE' if (i, n) == (3, 1) else 'TRUE'}"
        for i, name in enumerate(section.ids)
        for n in (0, 1)
    ]
    (outs / "probe_set.csv").write_text("\n".join(["#panel_name=x", "gene_id,probe_seq,probe_id,included", *probes]))
    slide = read(outs)
    kept = [gene for i, gene in enumerate(section.genes) if i != 3]
    assert slide.genes == kept
    np.testing.assert_array_equal(slide.adata.X.toarray(), np.delete(section.counts[section.counted], 3, axis=1))
    assert "2 deprecated probes" in told(slide)
    assert "1 gene is left out, as Space Ranger does by default" in told(slide)
    assert outs / "probe_set.csv" in space_ranger.find(outs).paths()


def test_a_matrix_of_probes_is_refused(tmp_path: Path) -> None:
    outs = ten_x.write_outs(tmp_path, ten_x.visium())
    with h5py.File(outs / "filtered_feature_bc_matrix.h5", "r+") as file:
        file["matrix/features/probe_region"] = np.array(["spliced"] * len(ten_x.GENES), dtype="S")
    with pytest.raises(UserError, match="counts probes, of which several bind to one gene"):
        read(outs)


def test_a_gzipped_matrix_is_to_be_unpacked(tmp_path: Path) -> None:
    outs = ten_x.write_outs(tmp_path, ten_x.visium())
    for path in outs.glob("*_matrix.h5"):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    with pytest.raises(UserError, match=r"filtered_feature_bc_matrix.h5.gz is a gzipped HDF5 file.*gunzip"):
        read(outs)


def test_an_empty_spot_stays(tmp_path: Path) -> None:
    section = ten_x.visium()
    section.counts[section.counted[4]] = 0
    slide = read(ten_x.write_outs(tmp_path, section))
    assert_is(slide, section)
    assert "1 of 40 spots have no counts at all; they are kept" in told(slide)


@pytest.mark.filterwarnings("ignore:Use `squidpy.read.visium`")
def test_scanpy_reads_the_same(tmp_path: Path) -> None:
    outs = ten_x.write_outs(tmp_path / "S", ten_x.visium())
    assert_scanpy_agrees(outs, read(outs))


@pytest.mark.data
@pytest.mark.filterwarnings("ignore:Use `squidpy.read.visium`")
@pytest.mark.parametrize("name", ["V1_Breast_Cancer_Block_A_Section_1", "GSM6177599_NYU_BRCA0", "V1_Human_Lymph_Node"])
def test_scanpy_reads_the_same_of_real_sections(data_root: Path, name: str) -> None:
    folder = data_root / "visium" / name
    slide = read(folder)
    assert_scanpy_agrees(folder, slide)
    diameter = json.loads((folder / "spatial/scalefactors_json.json").read_text())["spot_diameter_fullres"]
    assert slide.um_per_px == pytest.approx(65 / diameter, rel=1e-3)  # true of version 1


def assert_scanpy_agrees(folder: Path, slide: Slide) -> None:
    scanpy = pytest.importorskip("scanpy")
    theirs = scanpy.read_visium(folder)
    theirs.var_names_make_unique()
    assert slide.genes == theirs.var_names.tolist()
    assert slide.adata.var["gene_ids"].tolist() == theirs.var["gene_ids"].tolist()
    theirs = theirs[slide.spot_ids]
    assert slide.n_spots == int((theirs.obs["in_tissue"] == 1).sum())
    assert (slide.adata.X != theirs.X).nnz == 0
    np.testing.assert_allclose(slide.centres, theirs.obsm["spatial"].astype(float))
    np.testing.assert_array_equal(slide.array_xy, theirs.obs[["array_col", "array_row"]].to_numpy())


def test_parquet_of_other_types_is_joined_by_barcode(tmp_path: Path) -> None:
    """Types of columns as Space Ranger writes them to parquet, barcodes as a dictionary as others rewrite them."""
    frame = ten_x.positions(ten_x.visium()).astype({"barcode": "category", "in_tissue": bool, "array_row": np.int32})
    (tmp_path / "spatial").mkdir()
    frame.to_parquet(tmp_path / "spatial/tissue_positions.parquet")
    found = read_positions(tmp_path / "spatial/tissue_positions.parquet")
    names = frame["barcode"].astype(str).tolist()
    assert found.places_of([names[3], "absent", names[0]]).tolist() == [3, -1, 0]
    assert found.in_tissue.sum() == 40
