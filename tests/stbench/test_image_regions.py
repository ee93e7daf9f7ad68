"""Whole-slide images: windows that are read by region equal those of the array, for every layout, size and thread."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stbench.errors import UserError
from stbench.slides import cutting, picture_formats, tiff_regions
from stbench.slides import image as image_module
from stbench.slides.cutting import Window
from stbench.slides.image import SlideImage
from stbench.slides.pixel_size import StatedPixelSize, stated_pixel_size

WIDTH, HEIGHT = 301, 210


@pytest.fixture(scope="module")
def painted() -> np.ndarray:
    """Smooth enough for JPEG, and no two places alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([x * 255 / WIDTH, y * 255 / HEIGHT, (x + 2 * y) / 3], axis=-1).astype(np.uint8)


def planes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def rgb(**options: Any) -> Callable[[Path, np.ndarray], None]:
    return lambda path, array: tifffile.imwrite(path, array, photometric="rgb", **options)


LAYOUTS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "one strip, as it is": rgb(),
    "big-endian": rgb(byteorder=">"),
    "strips, deflate": rgb(rowsperstrip=7, compression="deflate"),
    "one strip, LZW": rgb(rowsperstrip=HEIGHT, compression="lzw"),
    "strips, JPEG": rgb(rowsperstrip=16, compression="jpeg"),
    "strips, JPEG in YCbCr, by libtiff": lambda path, array: Image.fromarray(array).save(
        path, "TIFF", compression="jpeg", quality=95
    ),
    "tiles, JPEG": rgb(tile=(32, 48), compression="jpeg", compressionargs={"level": 95}),
    "tiles, JPEG 2000": rgb(tile=(64, 64), compression="jpeg2000", bigtiff=True),
    "planes apart, as they are": lambda path, array: tifffile.imwrite(
        path, planes(array), photometric="rgb", planarconfig="separate"
    ),
    "planes apart, tiles": lambda path, array: tifffile.imwrite(
        path, planes(array), photometric="rgb", planarconfig="separate", tile=(32, 48), compression="zlib"
    ),
    "OME, planes as pages (CYX), tiles": lambda path, array: tifffile.imwrite(
        path, planes(array), photometric="minisblack", ome=True, metadata={"axes": "CYX"}, tile=(48, 32),
        compression="zlib",
    ),
    "OME, planes as pages (CYX), as they are": lambda path, array: tifffile.imwrite(
        path, planes(array), photometric="minisblack", ome=True, metadata={"axes": "CYX"}
    ),
    "OME, interleaved (YXS)": rgb(ome=True, metadata={"axes": "YXS"}, tile=(48, 32), compression="zlib"),
    "16 bits, tiles": lambda path, array: tifffile.imwrite(
        path, array.astype(np.uint16) * 257, photometric="rgb", tile=(32, 32), compression="zlib", predictor=True
    ),
    "12 of 16 bits, OME, planes": lambda path, array: tifffile.imwrite(
        path, np.rint(planes(array) * (4095 / 255)).astype(np.uint16), photometric="minisblack", ome=True,
        metadata={"axes": "CYX"}, compression="zlib",
    ),
    "rows as pages": lambda path, array: tifffile.imwrite(path, array, photometric="minisblack", compression="zlib"),
}  # fmt: skip


@pytest.fixture(scope="module", params=LAYOUTS)
def written(request: pytest.FixtureRequest, painted: np.ndarray, tmp_path_factory: pytest.TempPathFactory):
    """An image in one layout, and its pixels as tifffile decodes the whole of it."""
    path = tmp_path_factory.mktemp("layouts") / "section.tif"
    LAYOUTS[request.param](path, painted)
    if "JPEG" in request.param and "2000" not in request.param:
        truth = tifffile.imread(path)
        assert np.abs(truth.astype(int) - painted).mean() < 6
    else:
        truth = painted
    return SlideImage.from_file(path), truth


def centres_in(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.uniform((0, 0), (WIDTH, HEIGHT), (n, 2))


def test_many_windows_in_any_order_and_thread_equal_slices_of_the_array(
    written: tuple[SlideImage, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, truth = written
    monkeypatch.setattr(cutting, "usable_cores", lambda: 4)
    monkeypatch.setattr(cutting, "AT_A_TIME", 3)
    monkeypatch.setattr(tiff_regions, "KEPT_BYTES", 30_000)  # a few tiles: most are given up and decoded again
    monkeypatch.setattr(tiff_regions, "require_room", lambda *_: None)
    monkeypatch.setattr(tiff_regions, "ROWS_BYTES", 5_000)
    centres = centres_in(np.random.default_rng(0), 60)
    expected = SlideImage.from_array(truth)
    for side in (1, 24, Window(61.3, 20), Window(13.2, 32)):
        found, n_padded = image.cut(centres, side)
        wanted, n = expected.cut(centres, side)
        np.testing.assert_array_equal(found, wanted)
        assert n_padded == n


def test_the_whole_image_and_its_thumbnail_are_those_of_the_array(written: tuple[SlideImage, np.ndarray]) -> None:
    image, truth = written
    assert image.size == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(image.read(), truth)
    np.testing.assert_array_equal(image.thumbnail(50), SlideImage.from_array(truth).thumbnail(50))


@settings(max_examples=60, deadline=None)
@given(
    x=st.floats(0, WIDTH - 0.001),
    y=st.floats(0, HEIGHT - 0.001),
    side=st.floats(2, 150),
    px=st.integers(1, 40),
    kept=st.integers(0, 20_000),
)
def test_a_lazy_cut_equals_the_cut_of_an_array(
    lazy: SlideImage, painted: np.ndarray, x: float, y: float, side: float, px: int, kept: int
) -> None:
    centres, window = np.array([[x, y], [WIDTH - 1 - x // 1, y]]), Window(side, px)
    with pytest.MonkeyPatch.context() as patching:
        patching.setattr(tiff_regions, "KEPT_BYTES", kept)
        patching.setattr(tiff_regions, "require_room", lambda *_: None)
        found, n_padded = lazy.cut(centres, window)
    wanted, n = SlideImage.from_array(painted).cut(centres, window)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(
        lazy.margins(centres, window), SlideImage.from_array(painted).margins(centres, window)
    )
    assert n_padded == n


@pytest.fixture(scope="module")
def lazy(painted: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> SlideImage:
    path = tmp_path_factory.mktemp("lazy") / "tiles.tif"
    tifffile.imwrite(path, painted, photometric="rgb", tile=(32, 48), compression="zlib")
    return SlideImage.from_file(path)


def test_a_resampled_window_shows_the_field_of_view_that_it_says(painted: np.ndarray) -> None:
    """Colours are ramps over x and y, so the mean of a patch says where its middle lies."""
    found, _ = SlideImage.from_array(painted).cut(np.array([[150.4, 100.7]]), Window(120.0, 24))
    middles = np.arange(24) * 5 + 2.5 - 60 - 0.5  # of the patch's pixels, from the spot's pixel
    # painted values are rounded down: half less in the mean
    np.testing.assert_allclose(found[0, 12, :, 0], (150 + middles) * 255 / WIDTH - 0.5, atol=0.7)
    np.testing.assert_allclose(found[0, :, 12, 1], (100 + middles) * 255 / HEIGHT - 0.5, atol=0.7)


def test_a_window_of_nearly_as_many_pixels_as_its_patch_is_not_resampled(painted: np.ndarray) -> None:
    image, centres = SlideImage.from_array(painted), np.array([[150.4, 100.7]])
    np.testing.assert_array_equal(image.cut(centres, Window(24.4, 24))[0], image.cut(centres, 24)[0])
    assert Window(24.6, 24).resampled


def test_a_window_is_resampled_from_the_coarsest_level_that_is_fine_enough(painted: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:  # levels of one colour each, to tell them apart
        writer.write(np.full((240, 320, 3), 10, np.uint8), photometric="rgb", tile=(32, 32), subifds=2)
        writer.write(np.full((120, 160, 3), 20, np.uint8), photometric="rgb", tile=(32, 32), subfiletype=1)
        writer.write(np.full((60, 80, 3), 40, np.uint8), photometric="rgb", tile=(32, 32), subfiletype=1)
    image, centres = SlideImage.from_file(path), np.array([[160.0, 120.0]])
    for side, level in ((16, 10), (31, 10), (32, 20), (63, 20), (64, 40), (200, 40)):
        assert (image.cut(centres, Window(side, 16))[0] == level).all(), side
    assert (image.cut(centres, 64)[0] == 10).all()  # of a window that is not resampled no level is asked


def test_a_tile_that_was_never_scanned_is_white(painted: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    tifffile.imwrite(path, painted, photometric="rgb", tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as file:
        page = file.pages[0]
        counts = list(page.databytecounts)
        counts[0] = 0
        page.tags["TileByteCounts"].overwrite(counts)
    pixels = SlideImage.from_file(path).read()
    assert (pixels[:64, :64] == 255).all()
    np.testing.assert_array_equal(pixels[64:], painted[64:])


def test_what_can_only_be_decoded_at_once_is_refused_in_one_line_where_memory_is_short(
    painted: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(painted).save(tmp_path / "section.jpg")
    tifffile.imwrite(tmp_path / "strip.tif", painted, photometric="rgb", rowsperstrip=HEIGHT, compression="lzw")
    tifffile.imwrite(tmp_path / "tiles.tif", painted, photometric="rgb", tile=(16, 16), compression="lzw")
    monkeypatch.setattr(picture_formats, "usable_memory", lambda: 100_000)
    monkeypatch.setattr(tiff_regions, "KEPT_BYTES", 10_000)
    for name, how in (("section.jpg", "a JPEG"), ("strip.tif", "compressed as one strip")):
        with pytest.raises(UserError, match=rf"301 x 210 px, {how}\) can only be decoded in one piece.*vips tiffsave"):
            SlideImage.from_file(tmp_path / name).cut(np.array([[50, 50]]), 8)
    SlideImage.from_file(tmp_path / "tiles.tif").cut(np.array([[50, 50]]), 8)


def test_samples_of_more_than_8_bits_are_said_to_be_scaled(painted: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "deep.tif"
    LAYOUTS["12 of 16 bits, OME, planes"](path, painted)
    assert SlideImage.from_file(path).remarks() == ["its samples are of 16 bits, 12 of them in use: 4095 becomes 255"]
    LAYOUTS["strips, deflate"](path, painted)
    assert SlideImage.from_file(path).remarks() == []


APERIO = "Aperio Image Library v11\n301x210 [0,0 301x210] (32x32) JPEG/RGB Q=70|AppMag = 40|MPP = 0.2498|Left = 1"
STATED: dict[str, tuple[dict[str, Any], float | None]] = {
    "OME, µm": ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeXUnit": "µm"}}, 0.5),
    "OME, nm": ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 274, "PhysicalSizeXUnit": "nm"}}, 0.274),
    "OME, no unit": ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.25}}, 0.25),
    "OME, nothing": ({"ome": True, "metadata": {"axes": "YXS"}}, None),
    "Aperio": ({"description": APERIO, "metadata": None}, 0.2498),
    "Aperio, no number": ({"description": APERIO.replace("0.2498", "0.2.4"), "metadata": None}, None),
    "OME, no number": ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": "1.2.3"}}, None),
    "OME, not finite": ({"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": "1e999"}}, None),
    "of nothing": ({"resolution": ((0, 1), (0, 1)), "resolutionunit": "centimeter"}, None),
    "per cm": ({"resolution": (20_000, 20_000), "resolutionunit": "centimeter"}, 0.5),
    "per inch": ({"resolution": (101_600, 101_600), "resolutionunit": "inch"}, 0.25),
    "a screen's": ({"resolution": (72, 72), "resolutionunit": "inch"}, None),
    "a printer's": ({"resolution": (600, 600), "resolutionunit": "inch"}, None),
    "without unit": ({"resolution": (20_000, 20_000), "resolutionunit": "none"}, None),
    "ImageJ": ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "um"}}, 0.25),
    "none": ({}, None),
}


@pytest.mark.parametrize("tags", STATED)
def test_the_size_of_a_pixel_is_found_in_the_tags(tags: str, painted: np.ndarray, tmp_path: Path) -> None:
    options, um = STATED[tags]
    path = tmp_path / "section.tif"
    tifffile.imwrite(path, painted, photometric="rgb", **options)
    stated = stated_pixel_size(SlideImage.from_file(path))
    assert (None if stated is None else stated.um) == (None if um is None else pytest.approx(um, rel=1e-4))
    if um is not None:  # of a picture at half the full resolution a full-resolution pixel is half as wide
        half = stated_pixel_size(SlideImage.from_file(path, scale=0.5, level="hires"))
        assert half is not None
        assert half.um == pytest.approx(um / 2, rel=1e-4)


@pytest.mark.parametrize("window", [Window.plain(24), Window(61, 24), Window(121.5, 24)])
def test_openslide_gives_the_same_windows_of_every_level(window: Window, painted: np.ndarray, tmp_path: Path) -> None:
    """Where the extra is installed: of a pyramid that both it and tifffile read."""
    pytest.importorskip("openslide")
    from stbench.slides.picture_formats import OpenSlidePixels, opened_slide

    path, pixels = tmp_path / "pyramid.tif", painted[:208, :300]
    with tifffile.TiffWriter(path) as writer:
        for step in (1, 2, 4):
            options = {"photometric": "rgb", "tile": (32, 32), "compression": "zlib", "subfiletype": int(step > 1)}
            writer.write(np.ascontiguousarray(pixels[::step, ::step]), **options)
    centres = np.random.default_rng(0).uniform((0, 0), (299, 207), (80, 2))
    found = np.empty((80, 24, 24, 3), dtype=np.uint8)
    with opened_slide(path) as slide:
        region = OpenSlidePixels(path, slide, window.side / window.px if window.resampled else 1.0)
        scale = region.shape[1] / 300
        cutting.cut_windows(region, window.corners(centres), window, (scale, scale), 255, found)
    np.testing.assert_array_equal(found, SlideImage.from_file(path).cut(centres, window)[0])


def test_a_slide_of_aperio_is_to_openslide_what_it_is_here(painted: np.ndarray, tmp_path: Path) -> None:
    """SVS is TIFF, and is read without OpenSlide: windows, size, and what the description says of a pixel."""
    openslide = pytest.importorskip("openslide")
    path = tmp_path / "slide.svs"
    levels = [np.ascontiguousarray(painted[:208, :300][::step, ::step]) for step in (1, 2)]
    text = "Aperio Image Library v12.0\r\n300x208 (32x32) JPEG/RGB Q=90|AppMag = 20|MPP = 0.4990"
    with tifffile.TiffWriter(path) as writer:
        for level in levels:
            options = {"photometric": "rgb", "tile": (32, 32), "compression": "jpeg"}
            writer.write(level, description=text, metadata=None, **options)
    image = SlideImage.from_file(path)
    with openslide.OpenSlide(str(path)) as slide:
        assert slide.detect_format(str(path)) == "aperio"
        assert slide.dimensions == image.size
        theirs = np.asarray(slide.read_region((0, 0), 0, slide.dimensions))[..., :3].astype(int)
        assert float(slide.properties["openslide.mpp-x"]) == 0.499
    assert stated_pixel_size(image) == StatedPixelSize(0.499, "MPP of its Aperio description")
    assert np.abs(image.read() - theirs).max() <= 3  # two decoders of JPEG


def test_a_thumbnail_of_a_large_image_is_made_band_by_band_once(
    painted: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.tif"
    tifffile.imwrite(path, painted, photometric="rgb", rowsperstrip=16, compression="zlib")
    whole = SlideImage.from_file(path).thumbnail(20)
    for module in (cutting, image_module):
        monkeypatch.setattr(module, "SMALL", 1000)
    monkeypatch.setattr(cutting, "BAND", 2000)
    monkeypatch.setattr(image_module, "OVERVIEW", 50)
    image = SlideImage.from_file(path)
    small = image.thumbnail(20)
    assert small.shape == whole.shape
    assert np.abs(small.astype(int) - whole).max() <= 3  # reduced twice rather than at once
    monkeypatch.setattr(image_module, "in_small", None)  # not read again
    assert image.thumbnail(40).shape == (28, 40, 3)
    np.testing.assert_array_equal(image.thumbnail(20), small)


def test_a_full_disk_is_not_taken_for_a_damaged_image(lazy: SlideImage) -> None:
    class Full:
        shape = (2, 8, 8, 3)

        def __setitem__(self, index: int, patch: np.ndarray) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left") as failure:
        lazy.cut(np.array([[20, 20], [90, 90]]), 8, out=Full())
    assert not isinstance(failure.value, UserError)


@settings(max_examples=150, deadline=None)
@given(
    form=st.sampled_from(["tiles", "strips", "rows", "ome"]),
    changes=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=5),
    length=st.floats(0.02, 1),
)
def test_a_damaged_tiff_is_one_line_or_an_image(
    form: str, changes: list[tuple[int, int]], length: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    options: dict[str, dict[str, Any]] = {
        "tiles": {"tile": (32, 32), "compression": "zlib"},
        "strips": {"rowsperstrip": 16, "compression": "jpeg"},
        "rows": {},
        "ome": {"ome": True, "metadata": {"axes": "YXS", "PhysicalSizeX": 0.5}},
    }
    buffer = io.BytesIO()
    y, x = np.mgrid[:60, :70]
    tifffile.imwrite(buffer, np.stack([x, y, x + y], axis=-1).astype(np.uint8), photometric="rgb", **options[form])
    content = bytearray(buffer.getvalue())
    for place, value in changes:
        content[place % len(content)] = value
    path = tmp_path_factory.mktemp("damaged") / "slide.tif"
    path.write_bytes(content[: max(8, int(length * len(content)))])
    said = ""
    try:
        image = SlideImage.from_file(path)
        image.remarks()
        stated_pixel_size(image)
        image.thumbnail(20)
        image.cut(np.array([[35.0, 30.0]]), 16)
    except UserError as error:
        said = str(error)
    assert "\n" not in said
