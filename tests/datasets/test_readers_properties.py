"""What keeps the meaning of a section changes no byte of what is prepared from it; what breaks it is refused.

The same section is written in forms that are drawn at random: order of genes and spots, compression, sparse and dense,
number type, where the counts are kept, padding of names, text or number, line ends.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
import upstream
from anndata import AnnData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import sparse

from stbench.data.prepare import prepare
from stbench.data.prepared import PreparedSlide
from stbench.datasets.manifest import open_dataset_path
from stbench.errors import UserError

GENES = [f"ENSG{i:011d}" for i in range(14)]
SYMBOLS = [f"GENE{i}" for i in range(14)]
PANEL = [SYMBOLS[i] for i in (3, 1, 7, 11, 0, 5)]
ROWS, COLUMNS = 4, 5
N = ROWS * COLUMNS
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(3, (N, len(GENES)))
COUNTS[:, 0] += 1  # no spot is empty
XY = np.array([(1 + i % COLUMNS, 1 + i // COLUMNS) for i in range(N)])
CENTRES = 20.0 * XY
IMAGE = upstream.tissue_image(140, 120, RNG)
QUICK = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

orders = st.tuples(st.permutations(range(N)), st.permutations(range(len(GENES))))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[dict[str, Any]], PreparedSlide]:
    """``written(entry)``: the slide of a manifest with that one slide, prepared anew."""
    Image.fromarray(IMAGE).save(tmp_path / "image.png")
    number = iter(range(10_000))

    def prepared(entry: dict[str, Any]) -> PreparedSlide:
        lines = ['name = "mine"', "patch_px = 8", f"panel = {json.dumps(PANEL)}", "[[slide]]", 'patient = "P"']
        lines += [f"{key} = {json.dumps(value)}" for key, value in {"id": "S", **entry}.items()]
        (tmp_path / "m.toml").write_text("\n".join(lines) + "\n")
        dataset = open_dataset_path(tmp_path / "m.toml")
        return prepare(dataset, "spot-log10-cp10k", tmp_path / f"cache{next(number)}").slides["S"]

    return prepared


def by_spot(slide: PreparedSlide) -> dict[tuple[int, int], tuple[bytes, ...]]:
    """All that is prepared of every spot, by its place on the array: the order of spots is the file's."""
    assert slide.genes == tuple(PANEL)
    arrays = (slide.patches, slide.counts, slide.total_counts, slide.target, slide.pixel_xy)
    return {
        (int(x), int(y)): tuple(np.asarray(array[i]).tobytes() for array in arrays)
        for i, (x, y) in enumerate(slide.array_xy)
    }


def in_order(slide: PreparedSlide) -> tuple[bytes, ...]:
    arrays = (slide.patches, slide.counts, slide.total_counts, slide.target, slide.pixel_xy, slide.array_xy)
    return tuple(np.asarray(array).tobytes() for array in arrays)


# --- AnnData ----------------------------------------------------------------------------------------------------------

FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "dense": lambda values: values,
    "CSR": sparse.csr_matrix,
    "CSC": sparse.csc_matrix,
}
DTYPES = ("float32", "float64", "int32", "int64", "uint16")
PLACES = ("X", "counts", "raw", "raw.X", "umi")


def section(spots: list[int], genes: list[int], where: str, form: str, dtype: str, off: float) -> AnnData:
    """The section with its counts in ``where``, each ``off`` from a whole number."""
    values = (COUNTS[np.ix_(spots, genes)] + off).astype(dtype)
    matrix = FORMS[form](values)
    other = np.log1p(values.astype(np.float32))
    var = pd.DataFrame({"gene_name": [SYMBOLS[i] for i in genes]}, index=[GENES[i] for i in genes])
    adata = AnnData(matrix, var=var)
    adata.obs_names = [f"{XY[i][0]:03d}x{XY[i][1]:03d}" for i in spots]
    if where == "raw.X":
        adata.raw = adata.copy()
        adata = adata[:, ::-1].copy()
        adata.X = other[:, ::-1]
    elif where != "X":
        adata.layers[where] = matrix
        adata.X = other
    adata.obs["array_row"], adata.obs["array_col"] = XY[spots].T  # as HEST-1k: the first number is the row
    adata.obsm["spatial"] = CENTRES[spots]
    factors = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 8.0}
    adata.uns["spatial"] = {"S": {"images": {"hires": IMAGE}, "scalefactors": factors, "metadata": {}}}
    return adata


@QUICK
@given(
    order=orders,
    where=st.sampled_from(PLACES),
    form=st.sampled_from(list(FORMS)),
    dtype=st.sampled_from(DTYPES),
    off=st.sampled_from([0.0, 1e-5]),
    compression=st.sampled_from([None, "gzip", "lzf"]),
)
def test_an_object_says_the_same_in_every_form(
    written: Callable, tmp_path: Path, order: Any, where: str, form: str, dtype: str, off: float, compression: Any
) -> None:
    spots, genes = map(list, order)
    off = off if dtype.startswith("float") else 0.0
    section(spots, genes, where, form, dtype, off).write_h5ad(tmp_path / "S.h5ad", compression=compression)
    entry = {"reader": "h5ad", "file": "S.h5ad"} | ({"layer": "umi"} if where == "umi" else {})
    slide = written(entry)
    section(list(range(N)), list(range(len(GENES))), "X", "CSR", "float32", 0.0).write_h5ad(tmp_path / "S.h5ad")
    assert by_spot(slide) == by_spot(written({"reader": "h5ad", "file": "S.h5ad"}))
    assert any("rounded" in note for note in slide.notes) == bool(off)
    expected = COUNTS[np.ix_(spots, [SYMBOLS.index(gene) for gene in PANEL])]
    np.testing.assert_array_equal(slide.counts, expected)


def spoil(adata: AnnData, how: str) -> None:
    first = adata.obs_names[0]
    if how == "a fraction":
        adata.X[1, 2] = 0.3
    elif how == "below zero":
        adata.X[1, 2] = -1
    elif how == "NaN":
        adata.X[1, 2] = np.nan
    elif how == "a place twice":
        adata.obs_names = [f"spot{i}" for i in range(N)]
        adata.obs["array_row"], adata.obs["array_col"] = XY[:, 1], XY[:, 0]
        adata.obs.loc["spot0", ["array_row", "array_col"]] = adata.obs.loc["spot1", ["array_row", "array_col"]]
    elif how == "a name twice":
        adata.obs_names = [first, first, *adata.obs_names[2:]]
    elif how == "a padded name twice":
        adata.obs_names = [*adata.obs_names[:-1], "1x1"]
    elif how == "no position":
        adata.obsm["spatial"][3] = np.nan
    elif how == "other genes":
        adata.var["gene_name"] = [f"mt{i}" for i in range(len(GENES))]


@pytest.mark.parametrize(
    "how",
    [
        *("a fraction", "below zero", "NaN", "a place twice", "a name twice", "a padded name twice", "no position"),
        "other genes",
    ],
)
@pytest.mark.filterwarnings("ignore:Observation names are not unique:UserWarning")
def test_an_object_that_says_something_else_is_refused(written: Callable, tmp_path: Path, how: str) -> None:
    adata = section(list(range(N)), list(range(len(GENES))), "X", "dense", "float64", 0.0)
    spoil(adata, how)
    adata.write_h5ad(tmp_path / "S.h5ad")
    with pytest.raises(UserError):
        written({"reader": "h5ad", "file": "S.h5ad"})


# --- first-generation tables ---------------------------------------------------------------------------------------

LEGACY = {"reader": "legacy-st", "counts": "counts", "spots": "spots", "image": "image.png"}


def write_legacy(
    folder: Path, spots: list[int], genes: list[int], *, padded: bool, separator: str, newline: str, mark: bool,
    zipped: bool, turned: bool, form: str,
) -> None:  # fmt: skip
    names = [f"{x:03d}x{y:03d}" if padded else f"{x}x{y}" for x, y in XY[spots]]
    table = pd.DataFrame(COUNTS[np.ix_(spots, genes)], index=names, columns=[SYMBOLS[i] for i in genes])
    table = table if form == "int" else table.astype(float)
    if form == "rounding":
        table += 1e-6
    text = (table.T if turned else table).to_csv(sep=separator)
    shuffled = sorted(range(N), key=lambda i: (i * 7) % N)
    pixels = upstream.spot_table_text(XY[shuffled], XY[shuffled].astype(float), CENTRES[shuffled], [1] * N)
    for name, content in (("counts", text), ("spots", pixels)):
        data = (b"\xef\xbb\xbf" if mark else b"") + content.replace("\n", newline).encode()
        (folder / name).write_bytes(gzip.compress(data) if zipped else data)


@QUICK
@given(
    order=orders,
    padded=st.booleans(),
    separator=st.sampled_from(["\t", ","]),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    mark=st.booleans(),
    zipped=st.booleans(),
    turned=st.booleans(),
    form=st.sampled_from(["int", "float", "rounding"]),
)
def test_a_count_table_says_the_same_in_every_form(written: Callable, tmp_path: Path, order: Any, **form: Any) -> None:
    spots, genes = map(list, order)
    write_legacy(tmp_path, spots, genes, **form)
    slide = written(LEGACY)
    assert slide.spot_ids == tuple(f"{x}x{y}" for x, y in XY[spots])
    usual = {"separator": "\t", "newline": "\n", "form": "int"} | dict.fromkeys(
        ("padded", "mark", "zipped", "turned"), False
    )
    write_legacy(tmp_path, spots, list(range(len(GENES))), **usual)
    assert in_order(slide) == in_order(written(LEGACY))
    write_legacy(tmp_path, list(range(N)), list(range(len(GENES))), **usual)
    assert by_spot(slide) == by_spot(written(LEGACY))


# --- Space Ranger ---------------------------------------------------------------------------------------------------


def write_space_ranger(
    folder: Path, spots: list[int], genes: list[int], matrix: str, positions: str, text: str
) -> None:
    (folder / "spatial").mkdir(parents=True, exist_ok=True)
    for path in [*folder.glob("filtered*"), *folder.glob("filtered*/*"), *(folder / "spatial").iterdir()]:
        if path.is_file():
            path.unlink()
    barcodes = [f"{'ACGT'[i % 4]}{'ACGT'[i // 4 % 4]}{'ACGT'[i // 16]}TTT-1" for i in range(N)]
    values = sparse.csr_matrix(COUNTS[np.ix_(spots, genes)])
    named = [barcodes[i] for i in spots]
    if matrix == "HDF5":
        with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"], group["indptr"] = values.data, values.indices, values.indptr
            group["shape"] = np.array(values.shape[::-1])
            group["barcodes"] = np.array(named, dtype="S")
            group["features/name"] = np.array([SYMBOLS[i] for i in genes], dtype="S")
    else:
        place = folder / "filtered_feature_bc_matrix"
        entries = values.T.tocoo()
        body = "".join(f"{i + 1} {j + 1} {v}\n" for i, j, v in zip(entries.row, entries.col, entries.data, strict=True))
        head = f"%%MatrixMarket matrix coordinate integer general\n{len(genes)} {N} {entries.nnz}\n"
        quote = '"' if matrix == "quoted" else ""
        zipped = matrix == "gzipped"
        upstream.write_text(place / "matrix.mtx.gz", head + body, zipped)
        upstream.write_text(place / "barcodes.tsv.gz", "".join(f"{quote}{name}{quote}\n" for name in named), zipped)
        features = "".join(f"{quote}{GENES[i]}{quote}\t{quote}{SYMBOLS[i]}{quote}\n" for i in genes)
        upstream.write_text(place / "features.tsv.gz", features, zipped)
    kind = {"number": 1, "float": 1.0, "logical": "TRUE"}[text]
    frame = pd.DataFrame({"barcode": barcodes, "in_tissue": kind, "array_row": XY[:, 1], "array_col": XY[:, 0]})
    frame["pxl_row_in_fullres"], frame["pxl_col_in_fullres"] = CENTRES[:, 1], CENTRES[:, 0]
    if positions == "parquet":
        frame.to_parquet(folder / "spatial/tissue_positions.parquet")
    else:
        headed, quoted = positions.startswith("header"), positions.endswith("quoted")
        frame.to_csv(folder / "spatial/tissue_positions.csv", index=False, header=headed, quoting=int(quoted))
    factors: dict[str, Any] = {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": 8.0}
    factors = {name: str(value) if text == "logical" else value for name, value in factors.items()}
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    Image.fromarray(IMAGE).save(folder / "spatial/tissue_hires_image.png")


@QUICK
@given(
    order=orders,
    matrix=st.sampled_from(["HDF5", "plain", "gzipped", "quoted"]),
    positions=st.sampled_from(["parquet", "header", "headless", "header quoted", "headless quoted"]),
    text=st.sampled_from(["number", "float", "logical"]),
)
def test_a_folder_of_space_ranger_says_the_same_in_every_form(
    written: Callable, tmp_path: Path, order: Any, matrix: str, positions: str, text: str
) -> None:
    spots, genes = map(list, order)
    entry = {"reader": "space-ranger", "folder": "S"}
    write_space_ranger(tmp_path / "S", spots, genes, matrix, positions, text)
    slide = written(entry)
    write_space_ranger(tmp_path / "S", list(range(N)), list(range(len(GENES))), "HDF5", "header", "number")
    assert by_spot(slide) == by_spot(written(entry))
