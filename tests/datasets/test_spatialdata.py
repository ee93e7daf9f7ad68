"""The reader of SpatialData stores, on stores that spatialdata writes; without that library but what needs it not."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import zarr
from anndata import AnnData
from spoilt_files import accepted_or_refused

from stbench.datasets.manifest import open_dataset_path
from stbench.datasets.readers.spatial_data import store as stores
from stbench.datasets.readers.spatial_data.entry import READER
from stbench.datasets.readers.spatial_data.picture import StoreImage
from stbench.datasets.readers.table import recognised
from stbench.errors import UserError
from stbench.slides.cutting import Window
from stbench.slides.slide import Slide

needs_spatialdata = pytest.mark.skipif(
    importlib.util.find_spec("spatialdata") is None,
    reason="needs the library spatialdata: pip install '.[spatialdata]'",
)
WIDTH, HEIGHT, N = 240, 200, 24
SCALE = 4.0  # region's units to a pixel of the image, in the stores below
RNG = np.random.default_rng(3)
PIXELS = np.array([(20 + 35 * (i % 6), 20 + 45 * (i // 6)) for i in range(N)]) + RNG.uniform(0, 1, (N, 2))
COLOURS = np.column_stack([30 + 6 * np.arange(N), 120 - 4 * np.arange(N), 60 + 5 * np.arange(N)]).astype(np.uint8)
COUNTS = RNG.poisson(8, (N, 5))
NAMES = [f"cell{i:02d}" for i in range(N)]


def painted_image() -> np.ndarray:
    image = np.full((HEIGHT, WIDTH, 3), 225, dtype=np.uint8)
    for (x, y), colour in zip(np.floor(PIXELS).astype(int), COLOURS, strict=True):
        image[y - 6 : y + 7, x - 6 : x + 7] = colour
    return image


# --- images, which need zarr alone ------------------------------------------------------------------------------------


def write_ngff(folder: Path, image: np.ndarray, zarr_format: int = 3, levels: int = 2) -> Path:
    """An image in OME-NGFF, as spatialdata writes it; ``image`` is (height, width, channels)."""
    names = [f"s{level}" for level in range(levels)]
    described = {
        "axes": [{"name": name, "type": "channel" if name == "c" else "space"} for name in "cyx"],
        "datasets": [{"path": name} for name in names],
    }
    attributes = (
        {"ome": {"version": "0.5", "multiscales": [described]}} if zarr_format == 3 else {"multiscales": [described]}
    )
    group = zarr.open_group(folder, mode="w", zarr_format=zarr_format, attributes=attributes)
    for level, name in enumerate(names):
        data = np.moveaxis(image[:: 2**level, :: 2**level], -1, 0)
        array = group.create_array(name, shape=data.shape, dtype=data.dtype, chunks=(1, 64, 50))
        array[...] = data
    return folder


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("kind", ["uint8", "uint16", "float32"])
def test_windows_are_cut_out_of_chunks_of_every_kind(tmp_path: Path, zarr_format: int, kind: str) -> None:
    image = painted_image()
    white = {"uint8": 255, "uint16": 65535, "float32": 1.0}[kind]
    image[0, 0] = 255
    samples = (image / 255 * white).astype(kind)
    picture = StoreImage(folder=write_ngff(tmp_path / "he", samples, zarr_format))
    assert picture.size == (WIDTH, HEIGHT)
    windows, n_padded = picture.cut(PIXELS, 8)
    middle = np.broadcast_to(COLOURS[:, None, None].astype(int), windows.shape)
    np.testing.assert_allclose(windows.astype(int), middle, atol=1)
    assert n_padded == 0
    np.testing.assert_allclose(picture.read().astype(int), image, atol=1)
    assert picture.thumbnail(60).shape == (50, 60, 3)
    assert picture.remarks() == ([] if kind == "uint8" else [f"its samples are {kind}: {white:g} becomes 255"])
    reduced, _ = picture.cut(PIXELS, Window(8.0, 4))
    np.testing.assert_allclose(reduced[:, 1:3, 1:3].astype(int), middle[:, 1:3, 1:3], atol=2)


def test_channels_are_put_into_the_order_of_colours(tmp_path: Path) -> None:
    folder = write_ngff(tmp_path / "he", painted_image()[..., ::-1].copy())
    np.testing.assert_array_equal(StoreImage(folder=folder, channels=(2, 1, 0)).read(), painted_image())


def test_what_is_no_image_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not an image of a store"):
        StoreImage(folder=tmp_path / "absent").size  # noqa: B018 - asking raises
    folder = write_ngff(tmp_path / "he", (painted_image() * 3.0).astype(np.float32))
    with pytest.raises(UserError, match="values of type float32 up to 675"):
        StoreImage(folder=folder).read()
    folder = write_ngff(tmp_path / "he", painted_image())
    chunk = next(path for path in sorted((folder / "s0/c").rglob("*")) if path.is_file())
    chunk.write_bytes(b"damaged")
    with pytest.raises(UserError, match="cannot be read"):
        StoreImage(folder=folder).read()


def test_without_the_library_its_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("tables", "shapes"):
        (tmp_path / "s.zarr" / name).mkdir(parents=True)
    (tmp_path / "s.zarr/zarr.json").write_text("{}")
    found = recognised(tmp_path / "s.zarr")
    assert found is not None
    assert found[0] is READER
    monkeypatch.setattr(stores, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'stbench\[spatialdata\]'"):
        READER.open("S", "P", {"folder": tmp_path / "s.zarr"})
    with pytest.raises(UserError, match="is not a SpatialData store"):
        READER.open("S", "P", {"folder": tmp_path})


def test_an_import_of_normalised_values_names_the_layer_to_choose(tmp_path: Path) -> None:
    """As of an AnnData file; told by the table alone, without the library."""
    folder = tmp_path / "s.zarr"
    table = AnnData(COUNTS.astype(np.float32) * 0.37)
    table.layers["counts"] = COUNTS.astype(np.float32)
    table.write_zarr(folder / "tables" / "table")
    words = 'X holds normalised values .* counts are in layers\\["counts"\\]: --layer counts'
    assert re.search(words, str(READER.refuses({"folder": folder})))
    assert READER.refuses({"folder": folder, "layer": "counts"}) is None
    table.X = table.layers["counts"].copy()
    table.write_zarr(folder / "tables" / "table")
    assert READER.refuses({"folder": folder}) is None
    assert READER.refuses({"folder": tmp_path}) is None


# --- stores -----------------------------------------------------------------------------------------------------------

TURN = np.deg2rad(25)
LINEAR = {
    "scaled": np.eye(2) / SCALE,
    "turned": np.array([[np.cos(TURN), -np.sin(TURN)], [np.sin(TURN), np.cos(TURN)]]) / SCALE,
    "mirrored": np.diag([-1.0, 1.0]) / SCALE,
}


def affine(linear: np.ndarray, shift: np.ndarray) -> Any:
    from spatialdata.transformations import Affine

    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, shift
    return Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def parts(way: str = "scaled", kind: str = "circles") -> dict[str, Any]:
    """Elements of a store whose shapes lie ``way`` against the image; their own units are not its pixels."""
    from shapely.geometry import Polygon
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Scale

    shift = np.array([11.0, -7.0])
    own = (PIXELS - shift) @ np.linalg.inv(LINEAR[way]).T  # global = linear @ own + shift = image pixels * 0.5
    to_global = affine(LINEAR[way] * 0.5, shift * 0.5)
    order = np.random.default_rng(1).permutation(N)  # not the table's
    index = pd.Index(np.array(NAMES)[order])
    if kind == "circles":
        shapes = ShapesModel.parse(
            own[order], geometry=0, radius=20.0, index=index, transformations={"global": to_global}
        )
    else:
        import geopandas

        corners = np.array([[-9, -9], [9, -9], [9, 9], [-9, 9]])
        frame = geopandas.GeoDataFrame({"geometry": [Polygon(place + corners) for place in own[order]]}, index=index)
        shapes = ShapesModel.parse(frame, transformations={"global": to_global})
    image = Image2DModel.parse(
        np.moveaxis(painted_image(), -1, 0), dims=("c", "y", "x"), scale_factors=[2],
        transformations={"global": Scale([0.5, 0.5], axes=("x", "y"))},
    )  # fmt: skip
    table = AnnData(COUNTS.astype(np.float32), obs=pd.DataFrame(index=[f"row{i}" for i in range(N)]))
    table.var_names = [f"G{i}" for i in range(5)]
    table.obs["region"], table.obs["instance"] = pd.Categorical(["cells"] * N), NAMES
    table = TableModel.parse(table, region="cells", region_key="region", instance_key="instance")
    return {"images": {"he": image}, "shapes": {"cells": shapes}, "tables": {"table": table}}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def written(elements: dict[str, Any]) -> Path:
        from spatialdata import SpatialData

        path = tmp_path / "section.zarr"
        shutil.rmtree(path, ignore_errors=True)
        SpatialData(**elements).write(path)
        return path

    return written


def read_store(path: Path, **options: Any) -> Slide:
    return READER.open("S", "P", {"folder": path, **options})[0]()


@needs_spatialdata
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["circles", "polygons"])
@pytest.mark.parametrize("way", LINEAR)
def test_shapes_are_placed_on_the_image_by_their_transformations(
    write: Callable[..., Path], way: str, kind: str
) -> None:
    slide = read_store(write(parts(way, kind)))
    np.testing.assert_allclose(slide.centres, PIXELS, atol=1e-6)
    windows, _ = slide.image.cut(slide.centres, 8)
    np.testing.assert_array_equal(windows, np.broadcast_to(COLOURS[:, None, None], windows.shape))
    np.testing.assert_array_equal(slide.adata.X.toarray(), COUNTS)
    assert slide.spot_ids[:2] == ["row0", "row1"]
    assert slide.um_per_px is None
    assert any("cells of the table table is placed on he by 'global'" in note for note in slide.notes)


@needs_spatialdata
@pytest.mark.filterwarnings("ignore")
def test_labels_are_placed_by_their_centroids(write: Callable[..., Path]) -> None:
    from spatialdata.models import Labels2DModel, TableModel
    from spatialdata.transformations import Scale

    elements = parts()
    labels = np.zeros((HEIGHT, WIDTH), dtype=np.int32)
    for number, (x, y) in enumerate(np.floor(PIXELS).astype(int), start=1):
        labels[y - 2 : y + 3, x - 2 : x + 3] = number
    elements["labels"] = {
        "cells": Labels2DModel.parse(labels, transformations={"global": Scale([0.5, 0.5], axes=("x", "y"))})
    }
    del elements["shapes"]
    table = AnnData(COUNTS.astype(np.float32), obs=pd.DataFrame(index=NAMES))
    table.obs["region"], table.obs["instance"] = pd.Categorical(["cells"] * N), np.arange(1, N + 1)
    elements["tables"] = {
        "table": TableModel.parse(table, region="cells", region_key="region", instance_key="instance")
    }
    slide = read_store(write(elements))
    np.testing.assert_allclose(slide.centres, np.floor(PIXELS) + 0.5)
    assert slide.spot_ids == NAMES


@needs_spatialdata
@pytest.mark.filterwarnings("ignore")
def test_a_visium_store_keeps_full_resolution_over_its_small_pictures(write: Callable[..., Path]) -> None:
    from spatialdata.models import Image2DModel, ShapesModel, TableModel
    from spatialdata.transformations import Identity, Scale

    column, row = 2 * (np.arange(N) % 6) + (np.arange(N) // 6) % 2, np.arange(N) // 6
    centres = np.column_stack([300 + 100 * column, 260 + 100 * np.sqrt(3) * row])  # 200 px from spot to spot
    images = {}
    for size, scale in (("hires", 0.1), ("lowres", 0.03)):
        pixels = np.full((3, int(1200 * scale), int(1800 * scale)), 200, dtype=np.uint8)
        images[f"lib_{size}_image"] = Image2DModel.parse(
            pixels, dims=("c", "y", "x"), transformations={"global": Scale([1 / scale] * 2, axes=("x", "y"))}
        )
    shapes = ShapesModel.parse(
        centres, geometry=0, radius=55.0, index=pd.Index(range(N)), transformations={"global": Identity()}
    )
    table = AnnData(COUNTS.astype(np.float32), obs=pd.DataFrame(index=[f"BC{i}-1" for i in range(N)]))
    table.obs["region"], table.obs["spot_id"] = pd.Categorical(["lib"] * N), range(N)
    table.obs["in_tissue"], table.obs["array_row"], table.obs["array_col"] = [1] * (N - 1) + [0], row, column
    table = TableModel.parse(table, region="lib", region_key="region", instance_key="spot_id")
    slide = read_store(write({"images": images, "shapes": {"lib": shapes}, "tables": {"table": table}}))
    assert (slide.image.level, slide.image.scale) == ("hires", pytest.approx(0.1))
    np.testing.assert_allclose(slide.centres, centres[:-1])
    assert slide.um_per_px == pytest.approx(0.5)
    np.testing.assert_array_equal(slide.array_xy, np.column_stack([column, row])[:-1])


def second_region(elements: dict[str, Any]) -> None:
    elements["tables"]["another"] = elements["tables"]["table"].copy()


def second_image(elements: dict[str, Any]) -> None:
    elements["images"]["other"] = elements["images"]["he"]


def dapi(elements: dict[str, Any]) -> None:
    from spatialdata.models import Image2DModel

    stains = np.zeros((3, HEIGHT, WIDTH), dtype=np.uint16)
    elements["images"] = {"morphology": Image2DModel.parse(stains, dims=("c", "y", "x"), c_coords=["DAPI", "a", "b"])}


def elsewhere(elements: dict[str, Any]) -> None:
    from spatialdata.transformations import Identity, set_transformation

    set_transformation(elements["images"]["he"], {"other": Identity()}, set_all=True)


def in_disagreement(elements: dict[str, Any]) -> None:
    from spatialdata.transformations import Identity, set_transformation

    for element in (elements["images"]["he"], elements["shapes"]["cells"]):
        set_transformation(element, Identity(), "aligned")


def singular(elements: dict[str, Any]) -> None:
    from spatialdata.transformations import set_transformation

    set_transformation(elements["images"]["he"], affine(np.array([[1.0, 2.0], [2.0, 4.0]]), np.zeros(2)), "global")


def other_names(elements: dict[str, Any]) -> None:
    elements["tables"]["table"].obs["instance"] = [f"x{i}" for i in range(N)]


def normalised(elements: dict[str, Any]) -> None:
    table = elements["tables"]["table"]
    table.layers["umi"] = table.X.copy()
    table.X = np.log1p(table.X)


SPOILT: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "two tables": (
        second_region,
        "holds several regions: cells (table another); cells (table table) - choose one with",
    ),
    "two images": (second_image, "has several images of cells (he, other) - name the H&E image with --option picture"),
    "stains": (dapi, "has no colour image in a coordinate system of cells (morphology)"),
    "no common system": (elsewhere, "has no colour image in a coordinate system of cells (he)"),
    "systems that disagree": (in_disagreement, "choose one with --option coordinate_system=NAME"),
    "a singular matrix": (singular, "by a matrix that is singular"),
    "other names": (other_names, "only 0 of 24 rows of the table table are in cells (x0 there"),
    "normalised values": (normalised, 'counts are in layers["umi"]: --layer umi'),
}


@needs_spatialdata
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fault", SPOILT)
def test_a_store_that_does_not_say_what_is_meant_is_refused(write: Callable[..., Path], fault: str) -> None:
    spoil, said = SPOILT[fault]
    elements = parts()
    spoil(elements)
    with pytest.raises(UserError) as refusal:
        read_store(write(elements))
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


@needs_spatialdata
@pytest.mark.filterwarnings("ignore")
def test_what_is_named_is_read(write: Callable[..., Path]) -> None:
    elements = parts()
    for spoil in (second_region, second_image, in_disagreement, normalised):
        spoil(elements)
    path = write(elements)
    slide = read_store(path, table="table", picture="he", coordinate_system="global", layer="umi", library="cells")
    np.testing.assert_allclose(slide.centres, PIXELS, atol=1e-6)
    for key in ("table", "picture", "library"):
        with pytest.raises(UserError, match="unknown"):
            read_store(path, **{"table": "table", key: "absent"})
    (source,), _ = open_dataset_path(path).find()
    assert all(file.is_file() for file in source.files)


@needs_spatialdata
@pytest.mark.filterwarnings("ignore")
def test_any_file_of_a_store_may_be_missing_or_damaged(write: Callable[..., Path]) -> None:
    path = write(parts())
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    for file in files[:: max(1, len(files) // 25)]:
        content = file.read_bytes()
        for spoilt in (None, b"", content[: len(content) // 2], b"{}"):
            if spoilt is None:
                file.unlink()
            else:
                file.write_bytes(spoilt)
            with accepted_or_refused():
                read_store(path).image.read()
            file.write_bytes(content)
