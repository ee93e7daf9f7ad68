"""The reader of AnnData files: where counts, positions and images are found, and what is refused."""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse
from spoilt_files import accepted_or_refused, part_replaced, replacements

from stbench.datasets.readers import h5ad
from stbench.datasets.readers.h5ad.entry import READER
from stbench.errors import UserError
from stbench.slides.checks import check_slide, validate
from stbench.slides.slide import Slide

N = 12


def make(library: str = "lib", prefix: str = "BC", scale: float = 0.5) -> AnnData:
    """A hexagonal array of 12 spots, pitch 50 px, on a hires image of 150 x 200 px at half resolution."""
    rng = np.random.default_rng(0)
    row, column = np.arange(N) // 4, 2 * (np.arange(N) % 4) + (np.arange(N) // 4) % 2
    adata = AnnData(sparse.csr_matrix(rng.poisson(3, (N, 5)).astype(np.float32)))
    adata.obs_names = [f"{prefix}{i}-1" for i in range(N)]
    adata.var_names = [f"G{i}" for i in range(5)]
    adata.obs = pd.DataFrame({"array_row": row, "array_col": column, "in_tissue": 1}, index=adata.obs_names)
    adata.obs["region"] = pd.Categorical(["stroma", "tumour"] * (N // 2))
    adata.obsm["spatial"] = np.column_stack([60 + column * 25.0, 50 + row * 43.3])
    image = np.full((150, 200, 3), 200, dtype=np.uint8)
    adata.uns["spatial"] = {
        library: {
            "images": {"hires": image, "lowres": image[::2, ::2]},
            "scalefactors": {
                "tissue_hires_scalef": scale,
                "tissue_lowres_scalef": scale / 2,
                "spot_diameter_fullres": 32.5,
            },
            "metadata": {},
        }
    }
    return adata


def read(adata: AnnData, folder: Path, **options: Any) -> Slide:
    path = folder / "section.h5ad"
    adata.write_h5ad(path)
    slide = h5ad.read("S1", "P1", path, **options)
    validate(slide)
    return slide


def test_a_section_in_scanpys_convention_is_read(tmp_path: Path) -> None:
    adata = make()
    slide = read(adata, tmp_path, label="region")
    np.testing.assert_array_equal(slide.adata.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(slide.centres, adata.obsm["spatial"])
    np.testing.assert_array_equal(slide.array_xy, adata.obs[["array_col", "array_row"]])
    assert (slide.image.level, slide.image.scale, slide.image.size) == ("hires", 0.5, (200, 150))
    assert slide.um_per_px == pytest.approx(2.0, rel=1e-3)
    assert slide.adata.obs["label"].tolist()[:2] == ["stroma", "tumour"]
    assert slide.notes == ()


@pytest.mark.parametrize("where", ["layers['counts']", "layers['raw']", "raw.X"])
def test_counts_are_found_where_x_holds_something_else(tmp_path: Path, where: str) -> None:
    adata = make()
    counts = adata.X.copy()
    if where == "raw.X":
        adata.raw = adata
    else:
        adata.layers[where[8:-2]] = counts
    adata.X = np.log1p(counts.toarray())
    slide = read(adata, tmp_path)
    np.testing.assert_array_equal(slide.adata.X.toarray(), counts.toarray())
    assert any(where in note for note in slide.notes)


def test_a_flag_beside_the_library_is_not_taken_for_a_second_one(tmp_path: Path) -> None:
    adata = make()
    adata.uns["spatial"]["is_single"] = True  # as CELLxGENE writes it
    assert read(adata, tmp_path).n_spots == N


def test_only_spots_under_tissue_are_kept(tmp_path: Path) -> None:
    adata = make()
    adata.obs.loc[adata.obs_names[3], "in_tissue"] = 0
    assert read(adata, tmp_path).spot_ids == [name for i, name in enumerate(adata.obs_names) if i != 3]


def test_floating_images_are_scaled_and_empty_ones_passed_over(tmp_path: Path) -> None:
    adata = make()
    images = adata.uns["spatial"]["lib"]["images"]
    images["hires"] = np.full((150, 200, 3), 0.5, dtype=np.float32)
    assert (read(adata, tmp_path).image.read() == 128).all()
    images["hires"] = np.empty((0, 0, 3), dtype=np.uint8)
    assert read(adata, tmp_path).image.level == "lowres"


def test_the_image_that_the_object_names_is_used_where_it_exists(tmp_path: Path) -> None:
    adata = make()
    adata.uns["spatial"]["lib"]["metadata"]["source_image_path"] = "full.png"
    assert read(adata, tmp_path).image.level == "hires"
    assert h5ad.named_image(tmp_path / "section.h5ad") is None
    Image.new("RGB", (400, 300)).save(tmp_path / "full.png")
    image = read(adata, tmp_path).image
    assert (image.level, image.scale, image.size) == ("full", 1.0, (400, 300))
    assert h5ad.named_image(tmp_path / "section.h5ad") == tmp_path / "full.png"


def test_hires_positions_at_scale_one_are_legal(tmp_path: Path) -> None:
    adata = make(scale=1.0)
    adata.obsm["spatial"] *= 0.5
    assert read(adata, tmp_path).image.full_resolution_size == (200, 150)


def test_ensembl_identifiers_give_way_to_symbols_and_repeated_symbols_are_told_apart(tmp_path: Path) -> None:
    adata = make()
    adata.var_names = [f"ENSG{i:011d}" for i in range(5)]
    adata.var["gene_name"] = ["A", "B", "A", "C", "D"]
    slide = read(adata, tmp_path)
    assert slide.genes == ["A", "B", "A-1", "C", "D"]
    assert any("gene_name" in note for note in slide.notes)


def test_first_generation_names_say_the_array_indices_whatever_a_converter_wrote(tmp_path: Path) -> None:
    adata = make()
    xy = [(7, 12 + i) for i in range(N)]
    adata.obs_names = [f"{x:03d}x{y:03d}" for x, y in xy]
    adata.obs["array_row"], adata.obs["array_col"] = zip(*xy, strict=True)  # HEST-1k: the first number is the row
    np.testing.assert_array_equal(read(adata, tmp_path).array_xy, xy)


def test_one_library_of_several_is_chosen_by_name(tmp_path: Path) -> None:
    both = anndata.concat({"0": make("0", "X"), "3": make("3", "Y")}, label="batch")
    both.uns["spatial"] = {**make("0").uns["spatial"], **make("3").uns["spatial"]}
    slide = read(both, tmp_path, library="3")
    assert slide.n_spots == N
    assert all(name.startswith("Y") for name in slide.spot_ids)
    del both.obs["batch"]
    both.obs = both.obs.drop(columns="region")
    with pytest.raises(UserError, match="no column of obs says"):
        read(both, tmp_path, library="3")
    with pytest.raises(UserError, match="unknown library"):
        read(both, tmp_path, library="4")


def test_the_pixel_size_is_unknown_where_the_array_is_not_visiums(tmp_path: Path) -> None:
    adata = make()
    adata.obs["array_col"] = np.arange(N)
    assert read(adata, tmp_path).um_per_px is None
    assert read(adata, tmp_path, pitch_um=150.0).um_per_px == pytest.approx(3.0, rel=1e-3)


# --- values that are not what they seem --------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "known"), [(np.sqrt(3), True), (1.0, False)])
def test_an_array_of_visium_is_known_by_its_lattice_without_scale_factors(
    tmp_path: Path, rows: float, known: bool
) -> None:
    """Staggered arrays of the first generation have the same indices, but rows as far apart as columns."""
    adata = make()
    adata.obs["array_col"] = 2 * (np.arange(N) % 4) + adata.obs["array_row"] % 2
    adata.obsm["spatial"] = 40 + adata.obs[["array_col", "array_row"]].to_numpy() * [10.0, 10.0 * rows]
    del adata.uns["spatial"]
    Image.new("RGB", (200, 150), (200, 100, 150)).save(tmp_path / "he.png")
    slide = read(adata, tmp_path, image=tmp_path / "he.png")
    assert slide.um_per_px == (pytest.approx(5.0) if known else None)


def test_genes_of_raw_counts_are_those_of_raw_in_whatever_order_the_object_has_its_own(tmp_path: Path) -> None:
    adata = make()
    adata.var_names = [f"ENSG{i:011d}" for i in range(5)]
    adata.var["feature_name"] = pd.Categorical(["A", "B", "C", "D", "E"])
    truth = dict(zip("ABCDE", np.asarray(adata.X.sum(axis=0)).ravel(), strict=True))
    adata.raw = adata.copy()
    turned = adata[:, ::-1].copy()
    turned.X = np.log1p(turned.X.toarray())
    slide = read(turned, tmp_path)
    assert dict(zip(slide.genes, np.asarray(slide.adata.X.sum(axis=0)).ravel(), strict=True)) == truth
    assert any("raw.var['feature_name']" in note for note in slide.notes)


def test_symbols_that_raw_lacks_are_looked_up_by_identifier(tmp_path: Path) -> None:
    adata = make()
    adata.var_names = [f"ENSG{i:011d}" for i in range(5)]
    adata.raw = adata.copy()
    adata.var["gene_symbols"] = ["A", "B", "C", "D", "E"]
    part = adata[:, [3, 1]].copy()  # fewer genes, in another order
    part.X = np.log1p(part.X.toarray())
    slide = read(part, tmp_path)
    assert slide.genes == ["ENSG00000000000", "B", "ENSG00000000002", "D", "ENSG00000000004"]
    np.testing.assert_array_equal(slide.adata.X.toarray(), adata.raw.X.toarray())


@pytest.mark.parametrize("empty", ["zeros", "NaN", "none"])
def test_an_empty_x_gives_way_to_counts_in_a_layer(tmp_path: Path, empty: str) -> None:
    adata = make()
    counts = adata.X.copy()
    adata.layers["counts"] = counts
    adata.X = {"zeros": np.zeros((N, 5)), "NaN": np.full((N, 5), np.nan), "none": None}[empty]
    slide = read(adata, tmp_path)
    np.testing.assert_array_equal(slide.adata.X.toarray(), counts.toarray())
    said = {"zeros": "nothing but zeros", "NaN": "nothing but NaN", "none": "missing"}[empty]
    assert slide.notes == (f"S1: raw counts are taken from layers['counts']; X: {said}",)


def test_counts_in_a_layer_of_another_name_are_named_and_then_found(tmp_path: Path) -> None:
    adata = make()
    counts = adata.X.copy()
    adata.layers["umi"] = counts
    adata.X = np.zeros((N, 5))
    with pytest.raises(
        UserError, match=r"X holds nothing but zeros; counts are in layers\[\"umi\"\]: --layer umi \(in a manifest"
    ):
        read(adata, tmp_path)
    np.testing.assert_array_equal(read(adata, tmp_path, layer="umi").adata.X.toarray(), counts.toarray())
    with pytest.raises(UserError, match=r"unknown layer .* did you mean 'umi'"):
        read(adata, tmp_path, layer="umis")


def test_two_matrices_of_different_whole_numbers_are_said(tmp_path: Path) -> None:
    adata = make()
    adata.layers["counts"] = adata.X.copy()
    adata.X = (adata.X > 0).astype(np.float32)  # presence, as some tools leave it there
    notes = read(adata, tmp_path).notes
    assert any("X and layers['counts'] both hold whole numbers, but differ in" in note for note in notes)
    assert read(adata, tmp_path, layer="counts").notes == ()


def test_a_section_in_which_nothing_was_counted_is_read(tmp_path: Path) -> None:
    adata = make()
    adata.X = np.zeros((N, 5))
    assert read(adata, tmp_path).adata.X.nnz == 0


def test_counts_that_are_whole_but_for_rounding_are_rounded_and_said(tmp_path: Path) -> None:
    adata = make()
    counts = adata.X.toarray()
    adata.X = np.expm1(np.log1p(counts)).astype(np.float32) + np.float32(1e-6)
    slide = read(adata, tmp_path)
    np.testing.assert_array_equal(slide.adata.X.toarray(), counts)
    assert len(slide.notes) == 1
    assert "whole but for rounding (largest distance to a whole number" in slide.notes[0]


def test_exact_counts_are_preferred_to_rounded_ones(tmp_path: Path) -> None:
    adata = make()
    adata.layers["counts"] = adata.X.copy()
    adata.X = adata.X.toarray() + np.float32(1e-5)
    assert read(adata, tmp_path).notes == (
        "S1: raw counts are taken from layers['counts']; X: whole only after rounding",
    )


def test_sections_joined_under_one_image_are_refused(tmp_path: Path) -> None:
    one, two = make("spatial", "X"), make("spatial", "Y")
    both = anndata.concat({"P1": one, "P2": two}, label="sample", uns_merge="first", index_unique="-")
    with pytest.raises(UserError) as caught:
        read(both, tmp_path)
    assert "obs['sample'] names several sections (P1, P2) and 12 of 24 spots lie where another one lies" in str(
        caught.value
    )
    del both.obs["sample"]
    with pytest.raises(UserError, match=r"12 of 24 spots lie where another one lies .* X0-1-P1 and Y0-1-P2"):
        read(both, tmp_path)


def test_sections_side_by_side_on_one_image_are_a_notice(tmp_path: Path) -> None:
    adata = make()
    adata.obs["sample"] = ["left"] * 6 + ["right"] * 6
    assert any("names several sections (left, right), but there is one image" in n for n in read(adata, tmp_path).notes)
    adata.obs["sample"] = "left"
    assert read(adata, tmp_path).notes == ()


# --- files written by other tools ----------------------------------------------------------------------------------


def test_a_spot_without_a_value_or_a_position_is_named(tmp_path: Path) -> None:
    adata = make()
    adata.obs = adata.obs.drop(columns="region").astype(float)
    adata.obsm["spatial"][0] = np.nan  # as squidpy leaves the first spot
    with pytest.raises(UserError, match=r"1 of 12 spots have no position \(NaN\), the first is BC0-1"):
        read(adata, tmp_path)
    adata.obs.iloc[0] = np.nan
    with pytest.raises(UserError, match=r"1 of 12 spots \(the first is BC0-1\) have no value in obs\['in_tissue'\]"):
        read(adata, tmp_path)
    adata = make()
    adata.obsm["spatial"][:] = np.nan
    with pytest.raises(UserError, match="12 of 12 spots have no position"):
        read(adata, tmp_path)


@pytest.mark.parametrize("named", [None, "", "slide.tif", np.array(["slide.tif"], dtype=object)])
def test_a_source_image_that_is_not_there_is_none_however_it_is_written(tmp_path: Path, named: object) -> None:
    adata = make()
    adata.uns["spatial"]["lib"]["metadata"] = {"source_image_path": named}
    assert read(adata, tmp_path).image.level == "hires"
    assert h5ad.named_image(tmp_path / "section.h5ad") is None


def test_a_source_image_named_in_a_vector_of_one_is_used(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "full.png")
    adata = make()
    adata.uns["spatial"]["lib"]["metadata"] = {"source_image_path": np.array(["full.png"], dtype=object)}
    assert read(adata, tmp_path).image.level == "full"
    assert h5ad.named_image(tmp_path / "section.h5ad") == tmp_path / "full.png"


@pytest.mark.parametrize("form", ["vectors of one", "texts", "vectors of one text"])
def test_scale_factors_are_read_as_r_and_others_write_them(tmp_path: Path, form: str) -> None:
    adata = make()
    wrap = {
        "vectors of one": lambda value: np.array([value]),
        "texts": str,
        "vectors of one text": lambda value: np.array([str(value)], dtype=object),
    }[form]
    factors = adata.uns["spatial"]["lib"]["scalefactors"]
    adata.uns["spatial"]["lib"]["scalefactors"] = {name: wrap(value) for name, value in factors.items()}
    adata.uns["spatial"]["lib"]["metadata"] = None
    slide = read(adata, tmp_path)
    assert (slide.image.level, slide.image.scale) == ("hires", 0.5)
    assert slide.um_per_px == pytest.approx(2.0, rel=1e-3)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # anndata's, on the slash
def test_a_library_whose_key_has_a_slash_is_found(tmp_path: Path) -> None:
    Image.new("RGB", (400, 300)).save(tmp_path / "full.png")
    adata = make("run/S1")
    adata.uns["spatial"]["run/S1"]["metadata"]["source_image_path"] = "full.png"
    assert read(adata, tmp_path).image.level == "full"
    assert read(adata, tmp_path, library="run/S1").n_spots == N
    assert h5ad.named_image(tmp_path / "section.h5ad", "run/S1") == tmp_path / "full.png"


@pytest.mark.parametrize("form", ["Int64", "boolean", "category", "text", "TRUE"])
def test_columns_of_obs_are_read_in_every_type(tmp_path: Path, form: str) -> None:
    adata = make()
    expected = adata.obs[["array_col", "array_row"]].to_numpy().copy()
    for name in ("array_row", "array_col", "in_tissue"):
        values = adata.obs[name]
        logical = form in ("boolean", "TRUE") and name == "in_tissue"
        adata.obs[name] = {
            "Int64": lambda v=values: v.astype("Int64"),
            "category": lambda v=values: v.astype("category"),
            "boolean": lambda v=values, b=logical: v.astype("boolean") if b else v,
            "text": lambda v=values: v.astype(str),
            "TRUE": lambda v=values, b=logical: pd.Categorical(["TRUE"] * len(v)) if b else v,
        }[form]()
    slide = read(adata, tmp_path)
    assert slide.n_spots == N
    np.testing.assert_array_equal(slide.array_xy, expected)


def test_positions_in_a_table_are_read_by_the_names_of_its_columns(tmp_path: Path) -> None:
    adata = make()
    xy = adata.obsm["spatial"]
    adata.obsm["spatial"] = pd.DataFrame(
        {"pxl_row_in_fullres": xy[:, 1], "pxl_col_in_fullres": xy[:, 0]}, index=adata.obs_names
    )
    np.testing.assert_array_equal(read(adata, tmp_path).centres, xy)


def test_labels_that_are_numbers_are_kept(tmp_path: Path) -> None:
    adata = make()
    adata.obs["cluster"] = pd.array([1, 2, None] * 4, dtype="Int64")
    adata.obs["leiden"] = [0.0, np.nan, 2.0] * 4
    assert read(adata, tmp_path, label="cluster").adata.obs["label"].tolist()[:2] == ["1", "2"]
    assert read(adata, tmp_path, label="leiden").adata.obs["label"].isna().sum() == 4
    assert read(adata, tmp_path, label="leiden").adata.obs["label"].tolist()[2] == "2"


def test_first_generation_names_count_although_a_mark_of_the_section_was_added(tmp_path: Path) -> None:
    adata = make()
    xy = [(7, 12 + i) for i in range(N)]
    adata.obs_names = [f"{x:03d}x{y:03d}-S1" for x, y in xy]
    adata.obs["array_row"], adata.obs["array_col"] = zip(*xy, strict=True)
    slide = read(adata, tmp_path)
    np.testing.assert_array_equal(slide.array_xy, xy)
    assert any("array_row holds x and array_col y, as HEST-1k writes them" in note for note in slide.notes)


def test_a_gzipped_object_is_said_to_be_one(tmp_path: Path) -> None:
    path = tmp_path / "section.h5ad"
    make().write_h5ad(path)
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match="gzipped: unpack it"):
        h5ad.read("S1", "P1", path)


@pytest.mark.parametrize("floating", [False, True])
def test_transparent_parts_of_an_embedded_image_are_white(tmp_path: Path, floating: bool) -> None:
    adata = make()
    rgba = np.zeros((150, 200, 4), dtype=np.uint8)
    rgba[:, 60:] = 200, 120, 160, 255  # left of it: black and clear
    rgba[:, 190:, 3] = 51  # a fifth opaque
    adata.uns["spatial"]["lib"]["images"]["hires"] = (rgba / 255).astype(np.float32) if floating else rgba
    pixels = read(adata, tmp_path).image.read()
    assert (pixels[:, :60] == 255).all()
    assert (pixels[:, 60:190] == [200, 120, 160]).all()
    assert (pixels[:, 190:] == [244, 228, 236]).all()  # 255 + (200 - 255) / 5, ...


@pytest.mark.parametrize("shape", [(150, 200), (150, 200, 1), (150, 200, 2)])
def test_an_embedded_image_in_grey_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    adata = make()
    adata.uns["spatial"]["lib"]["images"]["hires"] = np.zeros(shape, dtype=np.uint8)
    with pytest.raises(UserError, match=r"hires image has the shape .* \(greyscale\)"):
        read(adata, tmp_path)


@pytest.mark.parametrize("where", ["counts", "umi", "raw.X"])
def test_normalised_values_where_counts_are_asked_for_are_refused_by_name(tmp_path: Path, where: str) -> None:
    adata = make()
    counts = adata.X.copy()
    if where == "raw.X":
        adata.raw = adata
    else:
        adata.layers[where] = counts
    adata.X = sparse.csr_matrix(np.log1p(counts.toarray()))
    said = (
        rf"section.h5ad: X holds normalised values \(.*\); counts are in .*{where}.*: --layer {where} \(in a manifest"
    )
    with pytest.raises(UserError, match=said):
        read(adata, tmp_path, layer="X")
    values = {"file": tmp_path / "section.h5ad"}
    refusal = READER.refuses(values)
    assert refusal is not None
    assert re.search(said, refusal)
    assert READER.refuses({**values, "layer": where}) is None
    np.testing.assert_array_equal(read(adata, tmp_path, layer=where).adata.X.toarray(), counts.toarray())


def test_an_import_has_no_objection_to_counts_in_x(tmp_path: Path) -> None:
    adata = make()
    adata.layers["log"] = np.log1p(adata.X.toarray())
    read(adata, tmp_path)
    assert READER.refuses({"file": tmp_path / "section.h5ad"}) is None


@pytest.mark.filterwarnings("error")
def test_two_libraries_with_the_same_barcodes_are_told_apart_by_obs(tmp_path: Path) -> None:
    first, second = make("A"), make("B")
    second.X = second.X * 2
    second.obsm["spatial"] = second.obsm["spatial"] + 5
    with pytest.warns(UserWarning, match="not unique"):
        both = anndata.concat({"A": first, "B": second}, label="sample", uns_merge="unique")
    both.write_h5ad(tmp_path / "both.h5ad")
    for name, one in (("A", first), ("B", second)):
        slide = h5ad.read("S", "P", tmp_path / "both.h5ad", library=name)
        assert slide.spot_ids == list(one.obs_names)
        np.testing.assert_array_equal(slide.adata.X.toarray(), one.X.toarray())
        np.testing.assert_array_equal(slide.centres, one.obsm["spatial"])
    with pytest.raises(UserError, match=r"several sections \(A, B\) - choose one with --library"):
        h5ad.read("S", "P", tmp_path / "both.h5ad")


@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_a_library_that_obs_alone_knows_is_read_over_an_image_of_its_own(tmp_path: Path) -> None:
    both = anndata.concat({"A": make(), "B": make()}, label="library_id")
    Image.new("RGB", (400, 300), (200, 100, 150)).save(tmp_path / "he.png")
    both.write_h5ad(tmp_path / "both.h5ad")
    slide = h5ad.read("S", "P", tmp_path / "both.h5ad", library="B", image=tmp_path / "he.png")
    assert slide.n_spots == N
    with pytest.raises(UserError, match=r"holds no image .* --image"):
        h5ad.read("S", "P", tmp_path / "both.h5ad", library="B")
    with pytest.raises(UserError, match=r"more than once .* choose one with --library"):
        h5ad.read("S", "P", tmp_path / "both.h5ad", image=tmp_path / "he.png")
    with pytest.raises(UserError, match=r"unknown library .*choose from: A, B\)"):
        h5ad.read("S", "P", tmp_path / "both.h5ad", library="C")


def test_places_on_an_array_are_made_up_where_there_are_none(tmp_path: Path) -> None:
    adata = make()
    adata.obs = adata.obs.drop(columns=["array_row", "array_col"])
    adata.obsm["spatial"][1] = adata.obsm["spatial"][0] + 0.5  # cells may lie as near as that
    slide = read(adata, tmp_path)
    assert any("places on an array are made up from the positions" in note for note in slide.notes)
    assert len(np.unique(slide.array_xy, axis=0)) == N
    assert all("array" not in problem.text for problem in check_slide(slide) if problem.severity == "error")


@pytest.mark.parametrize("name", ["Symbol", "gene_short_name", "feature_name"])
def test_symbols_are_found_in_columns_of_many_names(tmp_path: Path, name: str) -> None:
    adata = make()
    symbols = list(adata.var_names)
    adata.var_names = [f"ENSG{i:011d}" for i in range(5)]
    adata.var["gene_name"] = list(adata.var_names)  # which says nothing new
    adata.var[name] = symbols
    slide = read(adata, tmp_path)
    assert slide.genes == symbols
    assert slide.notes == (f"S1: genes are named by var['{name}'] instead of their Ensembl identifiers",)


@pytest.mark.parametrize("where", ["X", "layers/counts"])
@pytest.mark.parametrize("part", ["indices", "indptr"])
def test_a_matrix_whose_arrays_contradict_each_other_is_refused(tmp_path: Path, where: str, part: str) -> None:
    adata = make()
    adata.layers["counts"] = adata.X.copy()
    adata.write_h5ad(tmp_path / "section.h5ad")
    with h5py.File(tmp_path / "section.h5ad", "r+") as file:
        file[where][part][1] = 2**30
    with pytest.raises(UserError, match=r"section.h5ad"):
        h5ad.read("S1", "P1", tmp_path / "section.h5ad")


def test_an_import_of_normalised_values_names_the_layer_to_choose(
    tmp_path: Path, stbench_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "data"))
    adata = make()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X.toarray())
    adata.write_h5ad(tmp_path / "section.h5ad")
    words = ("data", "import", tmp_path / "section.h5ad", "--as", "mine", "--patient", "P1")
    refused = stbench_command(*words)
    assert refused.code == 2
    assert 'counts are in layers["counts"]: --layer counts' in refused.err
    assert not (tmp_path / "data/cohorts/mine").exists()
    assert stbench_command(*words, "--layer", "counts").code == 0


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 200), how=replacements)
def test_any_part_of_an_object_may_be_of_another_kind(tmp_path: Path, number: int, how: str) -> None:
    path = tmp_path / "section.h5ad"
    if not path.exists():
        adata = make()
        adata.layers["counts"] = adata.X.copy()
        adata.raw = adata
        adata.write_h5ad(path)
    with part_replaced(path, number, how):
        with accepted_or_refused():
            READER.refuses({"file": path})
        with accepted_or_refused():
            check_slide(READER.open("S1", "P1", {"file": path, "label": "region"})[0]())


def test_features_that_are_no_genes_are_left_out_by_type_or_by_name(tmp_path: Path) -> None:
    """Cell x Gene's column ``feature_type`` holds biotypes, which say nothing of the kind."""
    adata = make()
    expected = adata.X.toarray()
    adata.var["feature_types"] = ["Gene Expression", "Antibody Capture", "Gene Expression", "protein_coding", "Custom"]
    slide = read(adata, tmp_path)
    assert slide.genes == ["G0", "G2", "G3"]
    np.testing.assert_array_equal(slide.adata.X.toarray(), expected[:, [0, 2, 3]])
    assert slide.notes == ("S1: 2 features are no genes and are left out (1 Antibody Capture, 1 Custom)",)
    named = make()
    named.var_names = ["NegControlProbe_00042", "BLANK_0001", "BLNK", "antisense_ADGRE1", "UnassignedCodeword_0001"]
    assert read(named, tmp_path).genes == ["BLNK"]
    named.var_names = [f"BLANK_{i}" for i in range(5)]
    with pytest.raises(UserError, match="has no genes but controls by their names"):
        read(named, tmp_path)


def test_values_that_were_normalised_and_rounded_are_suspected(tmp_path: Path) -> None:
    adata = make()
    counts = np.random.default_rng(0).poisson(200, (N, 5))
    for n_times in (1, 2):
        adata = anndata.concat([make(prefix=f"B{i}") for i in range(2)], uns_merge="first")
        adata.obs["array_row"] = np.arange(2 * N) // 4
        adata.obs["array_col"] = 2 * (np.arange(2 * N) % 4) + (np.arange(2 * N) // 4) % 2
        adata.obsm["spatial"] = np.column_stack(
            [60 + adata.obs["array_col"] * 25.0, 50 + adata.obs["array_row"] * 43.3]
        )
        adata.uns["spatial"] = make().uns["spatial"]
        adata.uns["spatial"]["lib"]["images"] = {"hires": np.full((300, 200, 3), 200, dtype=np.uint8)}
        values = np.tile(counts, (2, 1)) + np.arange(2 * N)[:, None] * 7
        shares = values / values.sum(axis=1, keepdims=True)
        adata.X = sparse.csr_matrix(np.rint(1e4 * shares) if n_times == 1 else values.astype(float))
        adata.write_h5ad(tmp_path / "even.h5ad")
        texts = " ".join(problem.text for problem in check_slide(h5ad.read("S1", "P1", tmp_path / "even.h5ad")))
        assert ("as values have that were normalised and rounded" in texts) == (n_times == 1)


def test_a_column_of_any_name_may_say_which_spots_are_of_a_library(tmp_path: Path) -> None:
    two = anndata.concat({"A": make("A"), "B": make("B")}, label="sampleName", uns_merge="unique")
    slide = read(two, tmp_path, library="B")
    assert slide.n_spots == N
