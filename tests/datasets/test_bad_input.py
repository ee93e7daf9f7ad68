"""What users get wrong: each kind of bad input is refused in one line that names the file and says what to do."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
import upstream

from stbench.datasets.manifest import open_dataset_path
from stbench.errors import UserError
from stbench.slides.checks import validate
from stbench.slides.slide import Slide

ST_MANIFEST = """\
name = "mine"
[[slide]]
id = "S1"
patient = "P1"
reader = "legacy-st"
counts = "counts.tsv"
spots = "spots.tsv"
image = "image.jpg"
"""

COUNTS = [["", "A", "B", "C"], ["1x1", "11", "0", "5"], ["2x1", "3", "12", "0"], ["1x2", "4", "0", "9"]]
SPOTS = [
    ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y", "selected"],
    ["1", "1", "1.0", "1.0", "100", "50", "1"],
    ["2", "1", "2.0", "1.0", "350", "50", "1"],
    ["1", "2", "1.0", "2.0", "100", "150", "1"],
]


def write_rows(path: Path, rows: list[list[str]]) -> None:
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


def changed(rows: list[list[str]], row: int, column: int, value: str) -> list[list[str]]:
    return [
        [value if (i, j) == (row, column) else field for j, field in enumerate(fields)] for i, fields in enumerate(rows)
    ]


@pytest.fixture
def st(tmp_path: Path) -> Path:
    """A sound first-generation section on an image of 400 x 200 px, described by a manifest."""
    write_rows(tmp_path / "counts.tsv", COUNTS)
    write_rows(tmp_path / "spots.tsv", SPOTS)
    upstream.write_picture(tmp_path / "image.jpg", upstream.tissue_image(400, 200, np.random.default_rng(0)))
    (tmp_path / "mine.toml").write_text(ST_MANIFEST)
    return tmp_path


@pytest.fixture
def visium(tmp_path: Path) -> Path:
    """A sound Space Ranger folder."""
    section = upstream.VisiumSection("S1", 20, np.random.default_rng(0))
    section.write_h5(tmp_path / "S1/filtered_feature_bc_matrix.h5")
    section.write_spatial(tmp_path / "S1/spatial")
    return tmp_path / "S1"


@pytest.fixture
def object_file(visium: Path, tmp_path: Path) -> Path:
    """The same section as an AnnData file."""
    slide = open_dataset_path(visium).find()[0][0].read()
    spatial = slide.adata.uns["spatial"][slide.id]
    spatial["images"] = {"hires": slide.image.read()}
    spatial["metadata"] = {}
    slide.adata.write_h5ad(tmp_path / "S1.h5ad")
    return tmp_path / "S1.h5ad"


def use(path: Path) -> tuple[Slide, np.ndarray]:
    """Everything that a run does with a section until its patches are cut: the slide and the patches."""
    dataset = open_dataset_path(path)
    (source,) = dataset.find()[0]
    slide = source.read()
    validate(slide, panel=dataset.panel())
    return slide, slide.image.cut(slide.centres, 32)[0]


def refused(path: Path, *said: str) -> None:
    with pytest.raises(UserError) as caught:
        use(path)
    message = str(caught.value)
    assert "\n" not in message
    for words in said:
        assert words in message, message
    assert " - " in message, f"it does not say what to do: {message}"


def test_the_sound_sections_that_are_spoilt_below_are_accepted(st: Path, visium: Path, object_file: Path) -> None:
    for path, n_spots in ((st / "mine.toml", 3), (visium, 20), (object_file, 20)):
        slide, patches = use(path)
        assert (slide.id, slide.n_spots) == ("S1", n_spots)
        assert patches.shape == (n_spots, 32, 32, 3)
        assert patches.std() > 0


# --- files that are not there, or not what they should be ------------------------------------------------------


@pytest.mark.parametrize("name", ["counts.tsv", "spots.tsv", "image.jpg"])
def test_a_missing_file_is_refused(st: Path, name: str) -> None:
    (st / name).unlink()
    refused(st / "mine.toml", name, "does not exist")


@pytest.mark.parametrize("name", ["counts.tsv", "spots.tsv", "image.jpg"])
def test_an_empty_file_is_refused(st: Path, name: str) -> None:
    (st / name).write_bytes(b"")
    refused(st / "mine.toml", name, "empty")


@pytest.mark.parametrize("name", ["counts.tsv", "spots.tsv"])
def test_a_picture_where_a_table_is_expected_is_refused(st: Path, name: str) -> None:
    shutil.copy(st / "image.jpg", st / name)
    refused(st / "mine.toml", name, "not text")


def test_a_table_where_a_picture_is_expected_is_refused(st: Path) -> None:
    shutil.copy(st / "counts.tsv", st / "image.jpg")
    refused(st / "mine.toml", "image.jpg", "not an image")


def test_a_truncated_picture_is_refused(st: Path) -> None:
    content = (st / "image.jpg").read_bytes()
    (st / "image.jpg").write_bytes(content[: len(content) // 2])
    refused(st / "mine.toml", "image.jpg", "truncated")


@pytest.mark.parametrize("name", ["counts.tsv", "spots.tsv", "image.jpg"])
def test_a_truncated_gzip_file_is_refused(st: Path, name: str) -> None:
    packed = gzip.compress((st / name).read_bytes())
    (st / name).write_bytes(packed[: len(packed) - 12])
    refused(st / "mine.toml", name)


@pytest.mark.parametrize("name", ["counts.tsv", "spots.tsv", "image.jpg"])
def test_a_corrupt_gzip_file_is_refused(st: Path, name: str) -> None:
    packed = bytearray(gzip.compress((st / name).read_bytes()))
    packed[12:40] = b"\xaa" * 28
    (st / name).write_bytes(packed)
    refused(st / "mine.toml", name, "damaged gzip")


def test_prose_where_counts_are_expected_is_refused(st: Path) -> None:
    (st / "counts.tsv").write_text("Dear colleague\nplease find the counts attached\n")
    refused(st / "mine.toml", "counts.tsv", "not a table of counts")


# --- count tables ----------------------------------------------------------------------------------------------


def test_a_count_table_without_a_header_is_refused(st: Path) -> None:
    write_rows(st / "counts.tsv", COUNTS[1:])
    refused(st / "mine.toml", "counts.tsv", "no header")


def test_a_count_table_with_nothing_but_a_header_is_refused(st: Path) -> None:
    write_rows(st / "counts.tsv", COUNTS[:1])
    refused(st / "mine.toml", "counts.tsv", "no rows")


def test_a_count_table_that_is_cut_off_is_refused(st: Path) -> None:
    (st / "counts.tsv").write_text((st / "counts.tsv").read_text()[:-4])
    refused(st / "mine.toml", "counts.tsv, line 4", "cut off")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("NaN", "NaN"),
        ("-3", "negative counts"),
        ("0.37", "not whole numbers"),
        ("", "not a number"),
        ("many", "'many', not a number"),
    ],
    ids=["NaN", "negative", "fraction", "empty", "word"],
)
def test_a_value_that_is_no_count_is_refused(st: Path, value: str, said: str) -> None:
    write_rows(st / "counts.tsv", changed(COUNTS, 2, 2, value))
    refused(st / "mine.toml", "counts.tsv", said)


def test_a_spot_that_is_counted_twice_is_refused(st: Path) -> None:
    write_rows(st / "counts.tsv", [*COUNTS, COUNTS[1]])
    refused(st / "mine.toml", "counts.tsv", "the spot 1x1 more than once")


def test_a_gene_that_stands_in_two_columns_is_refused(st: Path) -> None:
    write_rows(st / "counts.tsv", changed(COUNTS, 0, 3, "A"))
    refused(st / "mine.toml", "counts.tsv", "the gene A more than once")


def test_row_names_that_are_no_spots_are_refused(st: Path) -> None:
    write_rows(st / "counts.tsv", changed(COUNTS, 1, 0, "spot-1"))
    refused(st / "mine.toml", "counts.tsv", "'spot-1'", "<x>x<y>")


def test_a_panel_of_which_no_gene_is_in_the_file_is_refused(st: Path) -> None:
    manifest = st / "mine.toml"
    manifest.write_text(ST_MANIFEST.replace('name = "mine"', 'name = "mine"\npanel = ["ENSG1", "ENSG2"]'))
    refused(manifest, "S1", "none of the 2 panel genes")


# --- spot tables -----------------------------------------------------------------------------------------------


def test_a_spot_table_without_a_header_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", SPOTS[1:])
    refused(st / "mine.toml", "spots.tsv", "lacks the columns pixel_x, pixel_y, x, y")


def test_a_spot_table_without_pixels_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", [row[:4] for row in SPOTS])
    refused(st / "mine.toml", "spots.tsv", "lacks the columns pixel_x, pixel_y")


def test_a_ragged_spot_table_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", [*SPOTS, [*SPOTS[1], "7", "8"]])
    refused(st / "mine.toml", "spots.tsv", "not a table")


def test_a_position_that_is_missing_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", changed(SPOTS, 1, 4, "NA"))
    refused(st / "mine.toml", "spots.tsv", "1 of 3 spots have no position")


def test_a_position_in_words_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", changed(SPOTS, 1, 4, "left"))
    refused(st / "mine.toml", "spots.tsv", "pixel_x holds 'left'")


def test_a_spot_that_is_listed_twice_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", [*SPOTS, SPOTS[1]])
    refused(st / "mine.toml", "spots.tsv", "the spot 1x1 more than once")


def test_spots_of_which_none_is_selected_are_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", [SPOTS[0], *([*row[:-1], "0"] for row in SPOTS[1:])])
    refused(st / "mine.toml", "spots.tsv", "selects no spot")


def test_spots_and_counts_of_different_sections_are_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", [SPOTS[0], *(["2" + row[0], *row[1:]] for row in SPOTS[1:])])
    refused(st / "mine.toml", "spots.tsv", "counts.tsv", "only 0 of the 3 spots")


def test_spots_of_which_most_have_no_counts_are_refused(st: Path) -> None:
    write_rows(st / "counts.tsv", COUNTS[:2])
    refused(st / "mine.toml", "only 1 of the 3 spots", "do not belong together")


def test_a_spot_outside_the_image_is_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", changed(SPOTS, 2, 4, "4000"))
    refused(st / "mine.toml", "image.jpg", "1 of 3 spots lie outside")


def test_swapped_x_and_y_are_refused(st: Path) -> None:
    write_rows(st / "spots.tsv", [SPOTS[0], *([*row[:4], row[5], row[4], row[6]] for row in SPOTS[1:])])
    refused(st / "mine.toml", "image.jpg", "fit when x and y are swapped")


# --- Space Ranger folders --------------------------------------------------------------------------------------


def rewrite_h5(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        with h5py.File(folder / "filtered_feature_bc_matrix.h5", "r+") as file:
            change(file)

    return apply


def lose_matrix(file: h5py.File) -> None:
    del file["matrix"]


def lose_part(file: h5py.File) -> None:
    del file["matrix/indices"]


def take_logs(file: h5py.File) -> None:
    values = np.log1p(file["matrix/data"][:].astype(float))
    del file["matrix/data"]
    file["matrix/data"] = values


def repeat_barcode(file: h5py.File) -> None:
    file["matrix/barcodes"][1] = file["matrix/barcodes"][0]


def keep_antibodies_only(file: h5py.File) -> None:
    kinds = file["matrix/features/feature_type"]
    del file["matrix/features/feature_type"]
    file["matrix/features/feature_type"] = np.array(["Antibody Capture"] * len(kinds), dtype="S")


def rename_barcodes(file: h5py.File) -> None:
    names = file["matrix/barcodes"][:]
    other = [name.translate(bytes.maketrans(b"ACGT", b"CGTA")) for name in names]  # another suffix alone is matched
    file["matrix/barcodes"][:] = np.array(other, dtype=names.dtype)


def edit(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_text(change(path.read_text()))

    return apply


POSITIONS = "spatial/tissue_positions_list.csv"
FACTORS = "spatial/scalefactors_json.json"

SPOILT_FOLDERS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "no matrix": (lambda f: (f / "filtered_feature_bc_matrix.h5").unlink(), ("S1 has no counts",)),
    "no folder of positions": (lambda f: shutil.rmtree(f / "spatial"), ("no folder spatial/",)),
    "no positions": (lambda f: (f / POSITIONS).unlink(), ("no positions of spots",)),
    "no scale factors": (lambda f: (f / FACTORS).unlink(), ("no scalefactors_json.json",)),
    "no image": (lambda f: [path.unlink() for path in (f / "spatial").glob("*.png")], ("there is no image",)),
    "matrix that is no HDF5": (
        lambda f: (f / "filtered_feature_bc_matrix.h5").write_text("x"),
        ("filtered_feature_bc_matrix.h5", "not a feature-barcode matrix"),
    ),
    "HDF5 without a matrix": (rewrite_h5(lose_matrix), ("filtered_feature_bc_matrix.h5", "no group 'matrix'")),
    "HDF5 without indices": (rewrite_h5(lose_part), ("filtered_feature_bc_matrix.h5", "indices")),
    "logged matrix": (rewrite_h5(take_logs), ("filtered_feature_bc_matrix.h5", "not whole numbers")),
    "repeated barcode": (rewrite_h5(repeat_barcode), ("filtered_feature_bc_matrix.h5", "more than once")),
    "antibodies only": (rewrite_h5(keep_antibodies_only), ("filtered_feature_bc_matrix.h5", "'Gene Expression'")),
    "barcodes of another section": (rewrite_h5(rename_barcodes), (POSITIONS, "do not belong together")),
    "scale factors that are no JSON": (edit(FACTORS, lambda text: text[:-5]), (FACTORS, "not valid JSON")),
    "scale factors without the scale": (edit(FACTORS, lambda _: json.dumps({})), (FACTORS, "tissue_hires_scalef")),
    "a scale of zero": (
        edit(FACTORS, lambda _: json.dumps({"tissue_hires_scalef": 0})),
        (FACTORS, "no usable tissue_hires_scalef"),
    ),
    "positions with tabs": (edit(POSITIONS, lambda text: text.replace(",", "\t")), (POSITIONS, "not a table")),
    "a position in words": (
        edit(POSITIONS, lambda text: text.rpartition(",")[0] + ",right\n"),
        (POSITIONS, "is not a number"),
    ),
    "a position listed twice": (
        edit(POSITIONS, lambda text: text + text.splitlines()[0] + "\n"),
        (POSITIONS, "more than once"),
    ),
    "another header": (
        edit(POSITIONS, lambda text: "barcode,tissue,row,col,y,x\n" + text),
        (POSITIONS, "lacks the columns in_tissue"),
    ),
    "no spot under tissue": (
        edit(POSITIONS, lambda text: text.replace("-1,1,", "-1,0,")),
        (POSITIONS, "no spot under tissue"),
    ),
    "an image that is cut off": (
        lambda f: (f / "spatial/tissue_hires_image.png").write_bytes(
            (f / "spatial/tissue_hires_image.png").read_bytes()[:5000]
        ),
        ("tissue_hires_image.png", "cannot be read as an image"),
    ),
}


@pytest.mark.parametrize("fault", SPOILT_FOLDERS)
def test_a_spoilt_space_ranger_folder_is_refused(visium: Path, fault: str) -> None:
    spoil, said = SPOILT_FOLDERS[fault]
    spoil(visium)
    refused(visium, *said)


def test_a_matrix_folder_of_which_a_file_is_missing_is_refused(visium: Path) -> None:
    section = upstream.VisiumSection("S1", 20, np.random.default_rng(0))
    (visium / "filtered_feature_bc_matrix.h5").unlink()
    section.write_mex(visium / "filtered_feature_bc_matrix", raw=False, zipped=True)
    (visium / "filtered_feature_bc_matrix/features.tsv.gz").unlink()
    refused(visium, "no counts")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("matrix.mtx.gz", "not a matrix\n", "not a Matrix Market file"),
        ("barcodes.tsv.gz", "AAAA-1\n", "do not belong together"),
        ("features.tsv.gz", "A\nB\tC\n", "the same 1, 2 or 3"),
    ],
)
def test_a_matrix_folder_of_which_a_file_is_wrong_is_refused(visium: Path, name: str, content: str, said: str) -> None:
    section = upstream.VisiumSection("S1", 20, np.random.default_rng(0))
    (visium / "filtered_feature_bc_matrix.h5").unlink()
    section.write_mex(visium / "filtered_feature_bc_matrix", raw=False, zipped=True)
    (visium / "filtered_feature_bc_matrix" / name).write_text(content)
    refused(visium, name, said)


# --- AnnData files ---------------------------------------------------------------------------------------------


def normalise(adata: anndata.AnnData) -> None:
    adata.X = np.log1p(adata.X.toarray().astype(np.float32))


def second_library(adata: anndata.AnnData) -> None:
    adata.uns["spatial"]["other"] = adata.uns["spatial"]["S1"]


def lose_positions(adata: anndata.AnnData) -> None:
    del adata.obsm["spatial"]


def lose_image(adata: anndata.AnnData) -> None:
    adata.uns["spatial"]["S1"]["images"] = {}


def lose_scale(adata: anndata.AnnData) -> None:
    del adata.uns["spatial"]["S1"]["scalefactors"]["tissue_hires_scalef"]


def lose_array(adata: anndata.AnnData) -> None:
    del adata.obs["array_row"]


def blur_array(adata: anndata.AnnData) -> None:
    adata.obs["array_row"] = adata.obs["array_row"] + 0.5


def hires_positions_twice(adata: anndata.AnnData) -> None:
    adata.obsm["spatial"] = adata.obsm["spatial"] * 4


def three_coordinates(adata: anndata.AnnData) -> None:
    adata.obsm["spatial"] = np.zeros((adata.n_obs, 3))


def all_outside_tissue(adata: anndata.AnnData) -> None:
    adata.obs["in_tissue"] = 0


def grey_image(adata: anndata.AnnData) -> None:
    adata.uns["spatial"]["S1"]["images"]["hires"] = np.zeros((280, 280), dtype=np.uint8)


SPOILT_OBJECTS: dict[str, tuple[Callable[[anndata.AnnData], None], tuple[str, ...]]] = {
    "only normalised values": (normalise, ("S1.h5ad", "holds no raw counts")),
    "several sections": (second_library, ("S1.h5ad", "several sections (S1, other)")),
    "no positions": (lose_positions, ("S1.h5ad", "no obsm['spatial']")),
    "three coordinates": (three_coordinates, ("S1.h5ad", "not (spots, 2) numbers")),
    "no image": (lose_image, ("S1.h5ad", "holds no image")),
    "a grey image": (grey_image, ("S1.h5ad", "the hires image has the shape")),
    "an image without its scale": (lose_scale, ("S1.h5ad", "tissue_hires_scalef")),
    "no array indices": (lose_array, ("S1.h5ad", "obs['array_row']")),
    "fractional array indices": (blur_array, ("S1.h5ad", "does not hold integers")),
    "no spot under tissue": (all_outside_tissue, ("S1.h5ad", "no spot under tissue")),
    "positions at another scale": (hires_positions_twice, ("lie outside the embedded image",)),
}


@pytest.mark.parametrize("fault", SPOILT_OBJECTS)
def test_a_spoilt_anndata_file_is_refused(object_file: Path, fault: str) -> None:
    spoil, said = SPOILT_OBJECTS[fault]
    adata = anndata.read_h5ad(object_file)
    spoil(adata)
    adata.write_h5ad(object_file)
    refused(object_file, *said)


def test_an_anndata_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "S1.h5ad").write_text("not HDF5")
    refused(tmp_path / "S1.h5ad", "S1.h5ad", "not HDF5")


def test_an_anndata_file_that_is_cut_off_is_refused(object_file: Path) -> None:
    content = object_file.read_bytes()
    object_file.write_bytes(content[: len(content) // 2])
    refused(object_file, "S1.h5ad")


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
def test_an_hdf5_file_that_holds_no_anndata_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "S1.h5ad", "w") as file:
        file["numbers"] = np.arange(3)
    refused(tmp_path / "S1.h5ad", "S1.h5ad")
