"""The reader of Xenium bundles, on miniatures in the makers' layout over a picture on which every cell is painted."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import mmwrite
from spoilt_files import accepted_or_refused, cut_off, part_replaced, replacements

from stbench.datasets.cohorts.section import section
from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.readers.table import recognised
from stbench.datasets.readers.xenium import bins as binning
from stbench.datasets.readers.xenium.files import find
from stbench.datasets.readers.xenium.section import read
from stbench.errors import UserError
from stbench.slides.checks import check_slide
from stbench.slides.slide import Slide

WIDTH, HEIGHT, HE_UM = 200, 160, 0.6
DAPI_UM = 0.2125
GENES = ["ABCC11", "EPCAM", "KRT7", "LUM"]
FEATURES = [
    *((gene, "Gene Expression") for gene in GENES[:3]),
    ("NegControlProbe_00042", "Negative Control Probe"),
    ("NegControlCodeword_0500", "Negative Control Codeword"),
    ("UnassignedCodeword_0001", "Unassigned Codeword"),
    (GENES[3], "Gene Expression"),
]
TURN = np.deg2rad(33)
ROTATION = np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]])
WAYS = {
    "scaled": np.eye(2),
    "turned": ROTATION,
    "turned by 90 degrees": np.array([[0.0, -1.0], [1.0, 0.0]]),
    "mirrored": np.diag([-1.0, 1.0]),
    "mirrored and turned": ROTATION @ np.diag([1.0, -1.0]),
}

TOLD = {
    "scaled": "turns it by 0°",
    "turned": "H&E pixels of 0.6 µm to DAPI pixels of 0.2125 µm, turns it by 33°",
    "turned by 90 degrees": "turns it by 90°",
    "mirrored": "mirrors the H&E image left to right and turns it by 0°",
    "mirrored and turned": "mirrors the H&E image left to right and turns it by -147°",
}


def alignment_of(way: str) -> np.ndarray:
    """H&E to DAPI pixels, 3 x 3, of which no cell gets a negative position."""
    linear = WAYS[way] * HE_UM / DAPI_UM
    corners = np.array([[0, 0], [WIDTH, 0], [0, HEIGHT], [WIDTH, HEIGHT]]) @ linear.T
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, 13.25 - corners.min(axis=0)
    return matrix


@dataclass
class Bundle:
    """What was put into a bundle, in pixels of the H&E image."""

    folder: Path
    way: str = "turned"
    matrix: np.ndarray = field(init=False)
    pixels: np.ndarray = field(init=False)  # of the cells
    counts: np.ndarray = field(init=False)  # (n_cells, n_features)
    transcripts: pd.DataFrame = field(init=False)  # he_x, he_y, feature_name, qv

    def __post_init__(self) -> None:
        rng = np.random.default_rng(5)
        self.matrix = alignment_of(self.way)
        grid = np.array([(x, y) for y in range(10, HEIGHT - 5, 12) for x in range(10, WIDTH // 2, 12)])
        self.pixels = grid + rng.uniform(0, 1, grid.shape)
        self.counts = rng.poisson(8, (len(grid), len(FEATURES)))
        n = 4000
        tissue = rng.uniform([5, 5], [WIDTH / 2, HEIGHT - 2], (n, 2))
        tissue[: n // 20] = rng.uniform([0, 0], [WIDTH, HEIGHT], (n // 20, 2))  # as found off tissue
        names = np.array([name for name, _ in FEATURES])[rng.integers(0, len(FEATURES), n)]
        self.transcripts = pd.DataFrame(
            {"he_x": tissue[:, 0], "he_y": tissue[:, 1], "feature_name": names, "qv": rng.uniform(5, 40, n)}
        )

    @property
    def names(self) -> list[str]:
        return [f"aaaa{chr(97 + i // 16)}{chr(97 + i % 16)}bb-1" for i in range(len(self.pixels))]

    def um(self, pixels: np.ndarray) -> np.ndarray:
        return (pixels @ self.matrix[:2, :2].T + self.matrix[:2, 2]) * DAPI_UM

    @property
    def colours(self) -> np.ndarray:
        number = np.arange(len(self.pixels))
        return np.column_stack([40 + number, number * 7 % 100, 200 - number]).astype(np.uint8)

    def write(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        manifest = {"major_version": 4, "analysis_sw_version": "xenium-3.1.0.4", "pixel_size": DAPI_UM}
        (self.folder / "experiment.xenium").write_text(json.dumps(manifest))
        self.write_h5()
        um = self.um(self.pixels)
        order = np.random.default_rng(1).permutation(len(um))  # not the matrix's
        cells = pd.DataFrame({"cell_id": self.names, "x_centroid": um[:, 0], "y_centroid": um[:, 1], "cell_area": 50.0})
        cells.iloc[order].to_parquet(self.folder / "cells.parquet", index=False)
        self.write_transcripts(self.folder / "transcripts.parquet")
        np.savetxt(self.folder / "he_imagealignment.csv", self.matrix, delimiter=",")
        self.write_image(self.folder / "x_he_image.ome.tif")
        # as large as the H&E image, and grey
        tifffile.imwrite(self.folder / "morphology_focus.ome.tif", np.zeros((HEIGHT, WIDTH), dtype=np.uint16))
        return self.folder

    def write_h5(self) -> None:
        values = sparse.csr_matrix(self.counts)
        with h5py.File(self.folder / "cell_feature_matrix.h5", "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"], group["indptr"] = values.data, values.indices, values.indptr
            group["shape"] = np.array(values.shape[::-1], dtype=np.int32)
            group["barcodes"] = np.array(self.names, dtype="S")
            features = group.create_group("features")
            features["id"] = np.array([f"ENSG{i:011d}" for i in range(len(FEATURES))], dtype="S")
            features["name"] = np.array([name for name, _ in FEATURES], dtype="S")
            features["feature_type"] = np.array([kind for _, kind in FEATURES], dtype="S")
            features["genome"] = np.array(["Unknown"] * len(FEATURES), dtype="S")

    def write_transcripts(self, path: Path, form: str = "string", row_group: int = 700) -> None:
        um = self.um(self.transcripts[["he_x", "he_y"]].to_numpy()).astype(np.float32)
        names = self.transcripts["feature_name"]
        column = {
            "string": pa.array(names),
            "binary": pa.array([name.encode() for name in names]),
            "dictionary": pa.array(names).dictionary_encode(),
        }[form]
        table = pa.table(
            {
                "transcript_id": pa.array(np.arange(len(um), dtype=np.uint64)),
                "cell_id": pa.array(["UNASSIGNED"] * len(um)),
                "feature_name": column,
                "x_location": pa.array(um[:, 0]),
                "y_location": pa.array(um[:, 1]),
                "z_location": pa.array(np.zeros(len(um), dtype=np.float32)),
                "qv": pa.array(self.transcripts["qv"].astype(np.float32)),
            }
        )
        pyarrow.parquet.write_table(table, path, row_group_size=row_group)

    def write_image(self, path: Path, um: float | None = HE_UM) -> None:
        image = np.full((HEIGHT, WIDTH, 3), 240, dtype=np.uint8)
        image[:, : WIDTH // 2] = (200, 120, 170)
        for (x, y), colour in zip(np.floor(self.pixels).astype(int), self.colours, strict=True):
            image[y - 2 : y + 3, x - 2 : x + 3] = colour
        size = {} if um is None else {"PhysicalSizeX": um, "PhysicalSizeXUnit": "µm"}
        tifffile.imwrite(path, image, photometric="rgb", metadata={"axes": "YXS", **size})

    def expected_bins(self, side: float) -> dict[tuple[int, int], np.ndarray]:
        """By brute force: counts of the genes in each square (column, row) that holds a transcript of one."""
        found: dict[tuple[int, int], np.ndarray] = {}
        for x, y, name, quality in self.transcripts.itertuples(index=False):
            if quality >= 20 and name in GENES:
                place = (int(x // side), int(y // side))
                found.setdefault(place, np.zeros(len(GENES), dtype=int))[GENES.index(name)] += 1
        return found


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    made = Bundle(tmp_path / "xenium_out")
    made.write()
    return made


def read_bundle(folder: Path, grid_um: float | None = None, **given: Any) -> Slide:
    files = find(folder, given.get("image"), given.get("alignment"), bins=grid_um is not None)
    return read("S1", "P1", files, grid_um=grid_um)


def said(slide: Slide) -> str:
    return "\n".join(slide.notes)


@pytest.mark.parametrize("way", WAYS)
def test_cells_lie_where_they_were_painted_however_the_image_was_turned(tmp_path: Path, way: str) -> None:
    made = Bundle(tmp_path / "xenium_out", way)
    slide = read_bundle(made.write())
    assert slide.spot_ids == made.names
    np.testing.assert_allclose(slide.centres, made.pixels, atol=1e-6)
    windows, n_padded = slide.image.cut(slide.centres, 4)
    np.testing.assert_array_equal(windows, np.broadcast_to(made.colours[:, None, None], windows.shape))
    assert n_padded == 0
    np.testing.assert_array_equal(slide.adata.X.toarray(), made.counts[:, [0, 1, 2, 6]])
    assert slide.genes == GENES
    assert slide.um_per_px == pytest.approx(HE_UM)
    assert slide.adata.var["gene_ids"].tolist() == [f"ENSG{i:011d}" for i in (0, 1, 2, 6)]
    assert f"{TOLD[way]}; 100% of the cells lie on it" in said(slide)
    assert "3 features are no genes and are left out (1 Negative Control Codeword, 1 Negative" in said(slide)
    assert check_slide(slide) == []


@pytest.mark.parametrize("way", ["turned", "mirrored"])
def test_bins_count_the_transcripts_of_their_square_of_the_image(tmp_path: Path, way: str) -> None:
    made = Bundle(tmp_path / "xenium_out", way)
    slide = read_bundle(made.write(), grid_um=12.0)
    side = 12.0 / HE_UM
    expected = made.expected_bins(side)
    counts = slide.adata.X.toarray()
    assert slide.n_spots >= 30
    for spot, (column, row) in enumerate(slide.array_xy):
        np.testing.assert_array_equal(counts[spot], expected.get((column, row), np.zeros(len(GENES))))
        np.testing.assert_allclose(slide.centres[spot], [(column + 0.5) * side, (row + 0.5) * side])
    left_out = set(expected) - set(map(tuple, slide.array_xy.tolist()))
    assert left_out
    assert min(column for column, _ in left_out) * side > WIDTH / 2, "only bins off the tissue are left out"
    assert f"{len(left_out)} of {slide.n_spots + len(left_out)} bins that hold transcripts have no cell" in said(slide)
    quality = made.transcripts["qv"]
    others = ~made.transcripts["feature_name"].isin(GENES)
    assert f"{(quality < 20).sum()} transcripts of a quality below 20 are left out" in said(slide)
    assert f"{(others & (quality >= 20)).sum()} transcripts of control probes and code words" in said(slide)
    assert [problem.text for problem in check_slide(slide) if "array" in problem.text or "mirror" in problem.text] == []


@pytest.mark.parametrize("form", ["binary", "dictionary", "csv", "csv.gz"])
def test_transcripts_are_read_in_every_form_and_in_batches(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    usual = read_bundle(bundle.folder, grid_um=12.0)
    path = bundle.folder / "transcripts.parquet"
    if form.startswith("csv"):
        text = pd.read_parquet(path).to_csv(index=False).encode()
        (bundle.folder / f"transcripts.{form}").write_bytes(gzip.compress(text) if form.endswith("gz") else text)
        path.unlink()
    else:
        bundle.write_transcripts(path, form)
    monkeypatch.setattr(binning, "BATCH", 300)
    monkeypatch.setattr(binning, "PENDING", 50)
    slide = read_bundle(bundle.folder, grid_um=12.0)
    assert (slide.adata.X != usual.adata.X).nnz == 0
    assert slide.spot_ids == usual.spot_ids
    assert slide.notes == usual.notes


def test_without_transcripts_bins_count_the_cells_in_them_and_say_so(bundle: Bundle) -> None:
    (bundle.folder / "transcripts.parquet").unlink()
    slide = read_bundle(bundle.folder, grid_um=24.0)
    assert "transcripts.parquet is not there" in said(slide)
    places = [tuple(place) for place in (bundle.pixels // (24.0 / HE_UM)).astype(int)]
    for spot, place in enumerate(map(tuple, slide.array_xy.tolist())):
        cells = [cell for cell, there in enumerate(places) if there == place]
        np.testing.assert_array_equal(
            slide.adata.X[spot].toarray()[0], bundle.counts[cells][:, [0, 1, 2, 6]].sum(axis=0)
        )
    assert slide.adata.X.sum() == bundle.counts[:, [0, 1, 2, 6]].sum()


def test_the_counts_of_cells_are_read_in_every_form(bundle: Bundle) -> None:
    usual = read_bundle(bundle.folder)
    h5 = bundle.folder / "cell_feature_matrix.h5"
    h5.unlink()
    place = bundle.folder / "cell_feature_matrix"
    place.mkdir()
    mmwrite(place / "matrix.mtx", sparse.coo_matrix(bundle.counts.T))
    (place / "barcodes.tsv").write_text("".join(f"{name}\n" for name in bundle.names))
    rows = [f"ENSG{i}\t{name}\t{kind}\n" for i, (name, kind) in enumerate(FEATURES)]
    (place / "features.tsv.gz").write_bytes(gzip.compress("".join(rows).encode()))
    slide = read_bundle(bundle.folder)
    assert (slide.adata.X != usual.adata.X).nnz == 0
    assert slide.notes == usual.notes


def test_the_counts_of_cells_are_read_from_zipped_zarr(bundle: Bundle) -> None:
    import zarr

    usual = read_bundle(bundle.folder)
    (bundle.folder / "cell_feature_matrix.h5").unlink()
    values = sparse.csr_matrix(bundle.counts.T)
    digits = str.maketrans("abcdefghijklmnop", "0123456789abcdef")
    with zarr.storage.ZipStore(bundle.folder / "cell_feature_matrix.zarr.zip", mode="w") as store:
        kinds = {"Gene Expression": "gene"}
        attributes = {
            "feature_keys": [name for name, _ in FEATURES],
            "feature_ids": [f"ENSG{i}" for i in range(len(FEATURES))],
            "feature_types": [kinds.get(kind, kind.lower().replace(" ", "_")) for _, kind in FEATURES],
            "number_cells": len(bundle.names),
        }
        group = zarr.create_group(store, path="cell_features", zarr_format=2, attributes=attributes)
        pairs = [(int(name[:8].translate(digits), 16), int(name[9:])) for name in bundle.names]
        for name, array in (
            ("data", values.data.astype(np.uint32)),
            ("indices", values.indices.astype(np.uint32)),
            ("indptr", values.indptr.astype(np.uint32)),
            ("cell_id", np.array(pairs, dtype=np.uint32)),
        ):
            group.create_array(name, data=array)
    slide = read_bundle(bundle.folder)
    assert slide.spot_ids == usual.spot_ids
    assert (slide.adata.X != usual.adata.X).nnz == 0


def test_the_first_versions_table_of_cells_is_read(bundle: Bundle) -> None:
    """Cells were numbered, and the table was a CSV."""
    usual = read_bundle(bundle.folder)
    frame = pd.read_parquet(bundle.folder / "cells.parquet")
    number = {name: position + 1 for position, name in enumerate(bundle.names)}
    frame["cell_id"] = [number[name] for name in frame["cell_id"]]
    (bundle.folder / "cells.csv.gz").write_bytes(gzip.compress(frame.to_csv(index=False).encode()))
    (bundle.folder / "cells.parquet").unlink()
    with h5py.File(bundle.folder / "cell_feature_matrix.h5", "r+") as file:
        del file["matrix/barcodes"]
        file["matrix/barcodes"] = np.array([str(n + 1) for n in range(len(bundle.names))], dtype="S")
    slide = read_bundle(bundle.folder)
    np.testing.assert_allclose(slide.centres, usual.centres)
    assert slide.spot_ids[:2] == ["1", "2"]


def test_spots_beside_the_image_are_left_out_and_said(bundle: Bundle) -> None:
    cropped = bundle.folder / "x_he_image.ome.tif"
    tifffile.imwrite(cropped, tifffile.imread(cropped)[:70], photometric="rgb")
    n_out = int((bundle.pixels[:, 1] >= 70).sum())
    slide = read_bundle(bundle.folder)
    assert slide.n_spots == len(bundle.pixels) - n_out
    assert f"{n_out} of {len(bundle.pixels)} cells lie beside the H&E image and are left out" in said(slide)
    slide = read_bundle(bundle.folder, grid_um=12.0)
    assert "transcripts lie beside the H&E image and are left out" in said(slide)
    assert "bins have their middle beside the H&E image" not in said(slide) or slide.centres[:, 1].max() < 70


# --- alignment --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", [True, False])
def test_a_matrix_the_other_way_round_is_recognised_and_said(bundle: Bundle, stated: bool) -> None:
    np.savetxt(bundle.folder / "he_imagealignment.csv", np.linalg.inv(bundle.matrix), delimiter=",")
    bundle.write_image(bundle.folder / "x_he_image.ome.tif", HE_UM if stated else None)
    slide = read_bundle(bundle.folder)
    np.testing.assert_allclose(slide.centres, bundle.pixels, atol=1e-5)
    assert slide.um_per_px == pytest.approx(HE_UM)
    reason = "as the image says" if stated else "of the cells lie on the image then"
    assert "is taken to map DAPI pixels to H&E pixels, the other way round than usual" in said(slide)
    assert reason in said(slide)


def test_a_pixel_size_that_the_image_contradicts_is_said(bundle: Bundle) -> None:
    bundle.write_image(bundle.folder / "x_he_image.ome.tif", 0.27)
    slide = read_bundle(bundle.folder)
    assert (slide.um_per_px, slide.um_per_px_from) == (pytest.approx(HE_UM), "alignment of the H&E image")
    assert any("0.45 times the 0.6 µm that the slide is read with" in problem.text for problem in check_slide(slide))


def test_a_missing_alignment_is_asked_for_and_never_taken_for_the_identity(bundle: Bundle) -> None:
    (bundle.folder / "he_imagealignment.csv").unlink()
    with pytest.raises(UserError, match=r"give the alignment that Xenium Explorer exports .* with --alignment"):
        read_bundle(bundle.folder)


def test_an_identity_that_was_given_is_said(bundle: Bundle) -> None:
    bundle.matrix = np.eye(3)
    bundle.write()
    assert "is the identity, which is right only for an H&E image that was warped" in said(read_bundle(bundle.folder))


def test_the_dapi_image_is_never_taken_for_the_h_and_e_image(bundle: Bundle) -> None:
    dapi = bundle.folder / "morphology_focus.ome.tif"
    with pytest.raises(UserError, match=r"is the DAPI \(morphology\) image of the instrument, not H&E"):
        read_bundle(bundle.folder, image=dapi)
    (bundle.folder / "x_he_image.ome.tif").unlink()
    with pytest.raises(UserError, match=r"holds no H&E image .* give it with --image"):
        read_bundle(bundle.folder)
    renamed = dapi.rename(bundle.folder / "picture.tif")
    with pytest.raises(UserError, match="greyscale"):
        read_bundle(bundle.folder, image=renamed)


BAD_ALIGNMENTS = {
    "": "is empty",
    "fixedX,fixedY,alignmentX,alignmentY\n1,2,3,4\n": "lists the landmarks, not the matrix",
    "1,0,0\n0,1,0\n": "holds (2, 3) numbers",
    "1,0\n0,1,0\n0,0,1\n": "is not a matrix of numbers",
    "a,b,c\n0,1,0\n0,0,1\n": "is not a matrix of numbers",
    "1,2,0\n2,4,0\n0,0,1\n": "the matrix is singular",
    "0,0,0\n0,0,0\n0,0,1\n": "the matrix is singular",
    "nan,0,0\n0,1,0\n0,0,1\n": "missing or infinite",
    "1,0,0\n0,1,0\n0.001,0,1\n": "the last row of the matrix is 0.001, 0, 1",
    "1e6,0,0\n0,1e6,0\n0,0,1\n": "which no scanner does",
    "1,0,0\n0,9,0\n0,0,1\n": "which no scanner does",
    "1,0,1e9\n0,1,1e9\n0,0,1\n": "puts 0% of the cells on",
}


@pytest.mark.parametrize("text", BAD_ALIGNMENTS)
def test_a_matrix_that_aligns_nothing_is_refused(bundle: Bundle, text: str) -> None:
    (bundle.folder / "he_imagealignment.csv").write_text(text)
    with pytest.raises(UserError) as refusal:
        read_bundle(bundle.folder)
    assert BAD_ALIGNMENTS[text] in str(refusal.value)
    assert "he_imagealignment.csv" in str(refusal.value)


# --- the folder -------------------------------------------------------------------------------------------------------


def test_a_bundle_is_recognised_and_opened_by_a_manifest(bundle: Bundle, tmp_path: Path) -> None:
    found = recognised(bundle.folder)
    assert found is not None
    assert found[0].name == "xenium"
    manifest = tmp_path / "x.toml"
    lines = ['name = "x"', "[[slide]]", 'id = "S"', 'patient = "P"', 'reader = "xenium"', 'folder = "xenium_out"']
    manifest.write_text("\n".join([*lines, "grid_um = 12", 'image = "xenium_out/x_he_image.ome.tif"']))
    (source,), _ = open_dataset_path(manifest).find()
    assert {path.name for path in source.files} == {
        "cell_feature_matrix.h5", "cells.parquet", "transcripts.parquet", "experiment.xenium", "x_he_image.ome.tif",
        "he_imagealignment.csv",
    }  # fmt: skip
    assert source.read().genes == GENES


def test_files_with_the_datasets_name_in_front_are_found(bundle: Bundle) -> None:
    for name in ("cell_feature_matrix.h5", "cells.parquet", "experiment.xenium", "transcripts.parquet"):
        (bundle.folder / name).rename(bundle.folder / f"Xenium_V1_Breast_{name}")
    assert read_bundle(bundle.folder).n_spots == len(bundle.pixels)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def words(path: Path) -> None:
    path.write_text("not what it is called\n")


@pytest.mark.parametrize("harm", [Path.unlink, empty, cut, words])
@pytest.mark.parametrize(
    "name",
    ["cell_feature_matrix.h5", "cells.parquet", "transcripts.parquet", "experiment.xenium", "x_he_image.ome.tif"],
)
def test_a_spoilt_file_is_named_in_one_line(bundle: Bundle, name: str, harm: Callable[[Path], None]) -> None:
    harm(bundle.folder / name)
    optional = {"transcripts.parquet": "is not there", "experiment.xenium": "is not there"}
    if harm is Path.unlink and name in optional:
        assert optional[name] in said(read_bundle(bundle.folder, grid_um=12.0))
        return
    with pytest.raises(UserError) as refusal:
        read_bundle(bundle.folder, grid_um=12.0).image.read()
    assert "\n" not in str(refusal.value)
    assert "xenium_out" in str(refusal.value)


def edit_cells(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        edit(pd.read_parquet(folder / "cells.parquet")).to_parquet(folder / "cells.parquet", index=False)

    return spoil


def edit_transcripts(edit: Callable[[pd.DataFrame], pd.DataFrame]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        edit(pd.read_parquet(folder / "transcripts.parquet")).to_parquet(folder / "transcripts.parquet", index=False)

    return spoil


def set_counts(value: float) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        with h5py.File(folder / "cell_feature_matrix.h5", "r+") as file:
            values = file["matrix/data"][:].astype(np.float64)
            values[3] = value
            del file["matrix/data"]
            file["matrix/data"] = values

    return spoil


def pixel_size(value: object) -> Callable[[Path], None]:
    return lambda folder: (folder / "experiment.xenium").write_text(json.dumps({"pixel_size": value})) and None


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a cell twice": (edit_cells(lambda cells: pd.concat([cells, cells[:1]])), "more than once"),
    "no centroid": (edit_cells(lambda cells: cells.assign(x_centroid=np.nan)), "have no centroid"),
    "words for centroids": (edit_cells(lambda cells: cells.assign(x_centroid="here")), "have no centroid"),
    "no column of centroids": (edit_cells(lambda cells: cells.drop(columns="y_centroid")), "lacks the columns y_cen"),
    "no cells": (edit_cells(lambda cells: cells[:0]), "lists no cells"),
    "other cells": (edit_cells(lambda cells: cells.assign(cell_id="z" + cells["cell_id"])), "do not belong"),
    "fractions for counts": (set_counts(0.5), "not whole numbers"),
    "NaN for counts": (set_counts(np.nan), "NaN"),
    "no qualities": (edit_transcripts(lambda table: table.drop(columns="qv")), "lacks the columns qv"),
    "words for positions": (edit_transcripts(lambda table: table.assign(x_location="here")), "not a table of tr"),
    "a pixel size of nothing": (pixel_size(0), "no usable pixel_size"),
    "a pixel size in words": (pixel_size("small"), "no usable pixel_size"),
}  # fmt: skip


@pytest.mark.parametrize("fault", SPOILT)
def test_a_bundle_whose_content_is_wrong_is_refused(bundle: Bundle, fault: str) -> None:
    spoil, expected = SPOILT[fault]
    spoil(bundle.folder)
    with pytest.raises(UserError) as refusal:
        read_bundle(bundle.folder, grid_um=12.0)
    assert expected in str(refusal.value)


@pytest.mark.parametrize("grid_um", [0.1, 1e6])
def test_bins_that_cannot_be_are_refused(bundle: Bundle, grid_um: float) -> None:
    with pytest.raises(UserError, match="makes bins of"):
        read_bundle(bundle.folder, grid_um=grid_um)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.floats(width=32) | st.sampled_from([0.0, 1.0, -1.0, 2.8]), min_size=6, max_size=9),
    separator=st.sampled_from([",", "\t", ";", ", "]),
    grid_um=st.sampled_from([None, 12.0]),
)
def test_any_matrix_is_refused_or_puts_the_spots_on_the_image(
    bundle: Bundle, numbers: list[float], separator: str, grid_um: float | None
) -> None:
    numbers = numbers + [0.0, 0.0, 1.0][len(numbers) - 6 :] if len(numbers) < 9 else numbers
    rows = [separator.join(map(repr, numbers[i : i + 3])) for i in (0, 3, 6)]
    (bundle.folder / "he_imagealignment.csv").write_text("\n".join(rows))
    with accepted_or_refused():
        slide = read_bundle(bundle.folder, grid_um)
        assert not slide.image.outside(slide.centres).any()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(["cell_feature_matrix.h5", "cells.parquet", "transcripts.parquet", "experiment.xenium"]),
    share=st.floats(0, 1, exclude_max=True),
)
def test_a_file_that_is_cut_off_is_refused(bundle: Bundle, name: str, share: float) -> None:
    with cut_off(bundle.folder / name, share), pytest.raises(UserError) as refusal:
        read_bundle(bundle.folder, grid_um=12.0)
    assert "\n" not in str(refusal.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 100), how=replacements)
def test_any_part_of_the_matrix_may_be_of_another_kind(bundle: Bundle, number: int, how: str) -> None:
    with part_replaced(bundle.folder / "cell_feature_matrix.h5", number, how), accepted_or_refused():
        read_bundle(bundle.folder)


columns = st.sampled_from(
    ["cells.parquet cell_id", "cells.parquet x_centroid", "transcripts.parquet feature_name"]
    + [f"transcripts.parquet {name}" for name in ("x_location", "y_location", "qv")]
)
KINDS: dict[str, Callable[[int], Any]] = {
    "words": lambda n: ["a"] * n,
    "bytes": lambda n: [b"\xff"] * n,
    "missing": lambda n: pa.nulls(n),
    "logical": lambda n: [True] * n,
    "infinite": lambda n: [float("inf")] * n,
    "huge": lambda n: [1e300] * n,
    "lists": lambda n: [[1.0]] * n,
    "dates": lambda n: pa.array([0] * n, pa.timestamp("s")),
}


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=columns, kind=st.sampled_from(sorted(KINDS)))
def test_any_column_may_be_of_another_kind(bundle: Bundle, column: str, kind: str) -> None:
    file, name = column.split()
    path = bundle.folder / file
    content = path.read_bytes()
    table = pyarrow.parquet.read_table(path)
    table = table.set_column(table.column_names.index(name), name, pa.array(KINDS[kind](table.num_rows)))
    pyarrow.parquet.write_table(table, path)
    with accepted_or_refused():
        read_bundle(bundle.folder, grid_um=12.0)
    path.write_bytes(content)


def test_a_folder_above_the_bundle_leads_to_it(bundle: Bundle) -> None:
    above = bundle.folder.parent
    _, faults = section("", above, {"path": str(above), "patient": "P1"})
    assert [fault.text for fault in faults] == [
        f"{above} is of no format that is read, but holds sections of one - did you mean {bundle.folder}?"
    ]
