"""The image of a slide: every format gives the same pixels, windows lie where they should, damage is one line."""

from __future__ import annotations

import gzip
import io
import logging
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stbench.errors import UserError
from stbench.slides.image import SlideImage
from stbench.slides.pixel_size import StatedPixelSize, stated_pixel_size


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """(90, 130, 3): no two pixels of a row or column alike, so that any shift, flip or swap shows."""
    y, x = np.mgrid[:90, :130]
    return np.stack([x * 1.9, y * 2.8, (x + 2 * y) % 256], axis=-1).astype(np.uint8)


def encoded(array: np.ndarray, form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form)
    return buffer.getvalue()


def opaque(array: np.ndarray) -> np.ndarray:
    return np.full(array.shape[:2], 255, dtype=np.uint8)


# each writes the same picture losslessly in another form
FORMS: dict[str, Callable[[Path, np.ndarray], object]] = {
    "png": lambda path, array: path.write_bytes(encoded(array, "PNG")),
    "png with alpha": lambda path, array: path.write_bytes(encoded(np.dstack([array, opaque(array)]), "PNG")),
    "gzipped png": lambda path, array: path.write_bytes(gzip.compress(encoded(array, "PNG"))),
    "striped tiff": lambda path, array: tifffile.imwrite(path, array, photometric="rgb"),
    "tiled tiff": lambda path, array: tifffile.imwrite(path, array, photometric="rgb", tile=(32, 48)),
    "compressed tiled tiff": lambda path, array: tifffile.imwrite(
        path, array, photometric="rgb", tile=(32, 32), compression="zlib", bigtiff=True
    ),
    "gzipped tiff": lambda path, array: path.write_bytes(gzip.compress(tiff_bytes(array))),
    "tiff, colours first": lambda path, array: tifffile.imwrite(
        path, np.moveaxis(array, -1, 0), photometric="rgb", planarconfig="separate"
    ),
    "tiled tiff, colours first": lambda path, array: tifffile.imwrite(
        path, np.ascontiguousarray(np.moveaxis(array, -1, 0)), photometric="minisblack", tile=(32, 32)
    ),
    "tiff, leading one": lambda path, array: tifffile.imwrite(path, array[None], photometric="rgb", tile=(32, 32)),
    "tiff, four channels": lambda path, array: tifffile.imwrite(
        path, np.dstack([array, opaque(array)]), photometric="rgb", extrasamples=["unassalpha"], tile=(32, 32)
    ),
    "tiff, 16 bits": lambda path, array: tifffile.imwrite(path, array.astype(np.uint16) * 257, photometric="rgb"),
    "tiff, 16 bits of which 8 are used": lambda path, array: tifffile.imwrite(
        path, array.astype(np.uint16), photometric="rgb", tile=(32, 32)
    ),
}


def tiff_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, photometric="rgb", tile=(32, 32))
    return buffer.getvalue()


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_pixels_size_and_windows(form: str, picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "section.wrong-suffix"
    FORMS[form](path, picture)
    image = SlideImage.from_file(path)
    assert image.size == (130, 90)
    np.testing.assert_array_equal(image.read(), picture)
    patches, n_padded = image.cut(np.array([[65.7, 45.2], [20.0, 70.0]]), 16)
    assert n_padded == 0
    np.testing.assert_array_equal(patches[0], picture[37:53, 57:73])
    np.testing.assert_array_equal(patches[1], picture[62:78, 12:28])
    assert image.thumbnail(65).shape == (45, 65, 3)
    assert image.thumbnail(1000).shape == (90, 130, 3)


def test_a_jpeg_is_read_as_pillow_decodes_it_gzipped_or_not(picture: np.ndarray, tmp_path: Path) -> None:
    content = encoded(picture, "JPEG")
    decoded = np.asarray(Image.open(io.BytesIO(content)))
    (tmp_path / "plain.jpg").write_bytes(content)
    (tmp_path / "packed.jpg.gz").write_bytes(gzip.compress(content))
    (tmp_path / "not-packed.jpg.gz").write_bytes(content)
    for name in ("plain.jpg", "packed.jpg.gz", "not-packed.jpg.gz"):
        image = SlideImage.from_file(tmp_path / name)
        assert image.size == (130, 90)
        np.testing.assert_array_equal(image.read(), decoded)


def test_a_pyramid_is_cut_at_full_resolution_and_its_thumbnail_comes_from_a_coarse_level(
    picture: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "pyramid.tif"
    with tifffile.TiffWriter(path) as writer:
        writer.write(picture, photometric="rgb", tile=(32, 32), subifds=1)
        writer.write(np.full((45, 65, 3), 7, dtype=np.uint8), photometric="rgb", tile=(32, 32), subfiletype=1)
    image = SlideImage.from_file(path)
    assert image.size == (130, 90)
    np.testing.assert_array_equal(image.cut(np.array([[65, 45]]), 16)[0][0], picture[37:53, 57:73])
    assert (image.thumbnail(60) == 7).all()  # the coarse level was given another content to tell it apart
    assert (image.thumbnail(100) != 7).any()


def test_only_the_tiles_under_the_window_are_decoded(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "tiled.tif"
    tifffile.imwrite(path, picture, photometric="rgb", tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(path) as file:
        offset, count = file.pages[0].dataoffsets[-1], file.pages[0].databytecounts[-1]
    content = bytearray(path.read_bytes())
    content[offset : offset + count] = b"\0" * count  # the last tile cannot be decoded
    path.write_bytes(content)
    image = SlideImage.from_file(path)
    np.testing.assert_array_equal(image.cut(np.array([[16, 16]]), 16)[0][0], picture[8:24, 8:24])
    with pytest.raises(UserError, match="damaged"):
        image.read()


@given(x=st.floats(0, 129.999), y=st.floats(0, 89.999), half=st.integers(1, 40), pad=st.integers(0, 255))
def test_a_window_equals_the_slice_of_the_padded_image(
    picture: np.ndarray, x: float, y: float, half: int, pad: int
) -> None:
    patches, n_padded = SlideImage.from_array(picture).cut(np.array([[x, y]]), 2 * half, pad=pad)
    wide = np.full((90 + 80, 130 + 80, 3), pad, dtype=np.uint8)
    wide[40:130, 40:170] = picture
    row, column = int(y) + 40, int(x) + 40
    np.testing.assert_array_equal(patches[0], wide[row - half : row + half, column - half : column + half])
    crosses = int(x) < half or int(y) < half or int(x) + half > 130 or int(y) + half > 90
    assert n_padded == int(crosses)


@given(x=st.floats(0, 129.999), y=st.floats(0, 89.999), half=st.integers(1, 40))
def test_margins_are_what_the_window_pads(picture: np.ndarray, x: float, y: float, half: int) -> None:
    image, centre, side = SlideImage.from_array(picture), np.array([[x, y]]), 2 * half
    (left, above, right, below), (white,) = image.margins(centre, side)[0], image.cut(centre, side, pad=255)[0]
    white[:, :left], white[:above], white[:, side - right :], white[side - below :] = 0, 0, 0, 0
    np.testing.assert_array_equal(white, image.cut(centre, side, pad=0)[0][0])


def test_a_coarse_images_margins_are_in_the_windows_pixels() -> None:
    image = SlideImage.from_array(np.zeros((50, 50, 3), dtype=np.uint8), scale=0.5)  # 100 px at full resolution
    margins = image.margins(np.array([[50.0, 50.0], [5.0, 50.0], [98.0, 90.0]]), 40)
    assert margins.tolist() == [[0, 0, 0, 0], [15, 0, 0, 0], [0, 0, 18, 10]]


def test_a_coarse_image_keeps_the_field_of_view(picture: np.ndarray) -> None:
    y, x = np.mgrid[:400, :400].astype(float)
    smooth = np.stack([x / 2, y / 2, (x + y) / 4], axis=-1)
    full = SlideImage.from_array(smooth.astype(np.uint8))
    coarse = SlideImage.from_array(smooth.reshape(80, 5, 80, 5, 3).mean(axis=(1, 3)).astype(np.uint8), scale=0.2)
    centres = np.array([[200.4, 150.9], [90.0, 310.0]])
    wanted, given = full.cut(centres, 100)[0], coarse.cut(centres, 100)[0]
    assert given.shape == wanted.shape == (2, 100, 100, 3)
    assert np.abs(wanted.astype(int) - given).max() <= 3
    assert coarse.full_resolution_size == (400, 400)


def test_a_finer_image_is_reduced_without_aliasing() -> None:
    stripes = np.zeros((400, 400, 3), dtype=np.uint8)
    stripes[:, ::2] = 255  # finer than a full-resolution pixel: only the mean may remain
    fine = SlideImage.from_array(stripes, scale=4.0)
    patches, _ = fine.cut(np.array([[50.0, 50.0]]), 40)
    assert np.abs(patches.astype(int) - 127).max() <= 2


def test_scaled_windows_beyond_the_border_are_padded_and_counted() -> None:
    image = SlideImage.from_array(np.zeros((50, 50, 3), dtype=np.uint8), scale=0.5)
    patches, n_padded = image.cut(np.array([[50.0, 50.0], [5.0, 50.0], [98.0, 98.0]]), 40)
    assert n_padded == 2
    assert image.crossing(np.array([[50.0, 50.0], [5.0, 50.0], [98.0, 98.0]]), 40).tolist() == [False, True, True]
    assert (patches[0] == 0).all()
    assert (patches[1][:, :12] == 255).all()
    assert (patches[1][:, 18:] == 0).all()


def test_patches_are_written_into_a_given_array(picture: np.ndarray) -> None:
    image = SlideImage.from_array(picture)
    out = np.zeros((1, 8, 8, 3), dtype=np.uint8)
    patches, _ = image.cut(np.array([[50, 50]]), 8, out=out)
    assert patches is out
    np.testing.assert_array_equal(out[0], picture[46:54, 46:54])
    with pytest.raises(ValueError, match="uint8"):
        image.cut(np.array([[50, 50]]), 8, out=np.zeros((1, 8, 8, 3)))


def test_a_centre_outside_the_image_is_refused(picture: np.ndarray) -> None:
    image = SlideImage.from_array(picture)
    for centre in ([130.0, 45.0], [-0.5, 45.0], [65.0, 90.0], [np.nan, 45.0]):
        with pytest.raises(UserError, match="1 of 2 spot centres lie outside"):
            image.cut(np.array([[1.0, 1.0], centre]), 8)
    assert image.cut(np.array([[129.9, 89.9]]), 8)[1] == 1


def test_no_spots_give_no_patches(picture: np.ndarray) -> None:
    patches, n_padded = SlideImage.from_array(picture).cut(np.empty((0, 2)), 8)
    assert patches.shape == (0, 8, 8, 3)
    assert n_padded == 0


def test_the_decoders_guard_against_large_images_is_lifted_only_while_reading(
    picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded(picture, "PNG"))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert SlideImage.from_file(path).read().shape == (90, 130, 3)
    assert Image.MAX_IMAGE_PIXELS == 100


def spoilt(name: str, picture: np.ndarray, path: Path) -> None:
    tiled = tiff_bytes(picture)
    contents = {
        "empty": b"",
        "text": b"x\ty\n1\t2\n",
        "truncated jpeg": encoded(picture, "JPEG")[:900],
        "truncated png": encoded(picture, "PNG")[:300],
        "truncated tiff": tiled[: len(tiled) // 2],
        "jpeg header only": b"\xff\xd8\xff\xe0" + b"\0" * 40,
        "tiff header only": b"II*\0" + b"\xff" * 20,
        "truncated gzip": gzip.compress(encoded(picture, "JPEG"))[:600],
        "corrupt gzip": b"\x1f\x8b\x08\x00" + b"\x55" * 200,
        "grey png": encoded(picture[..., 0], "PNG"),
        "grey tiff": grey_tiff(picture),
        "float tiff beyond one": float_tiff(picture),
    }
    path.write_bytes(contents[name])


def grey_tiff(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture[..., 0])
    return buffer.getvalue()


def float_tiff(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, picture.astype(np.float32) * 3, photometric="rgb")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "empty",
        "text",
        "truncated jpeg",
        "truncated png",
        "truncated tiff",
        "jpeg header only",
        "tiff header only",
        "truncated gzip",
        "corrupt gzip",
        "grey png",
        "grey tiff",
        "float tiff beyond one",
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line_that_names_the_file(
    name: str, picture: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / "bad.jpg"
    spoilt(name, picture, path)
    with pytest.raises(UserError) as caught:
        SlideImage.from_file(path).read()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_missing_file_a_folder_and_an_unreadable_scale_are_refused(picture: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        SlideImage.from_file(tmp_path / "nowhere.jpg")
    with pytest.raises(UserError, match="not a file"):
        SlideImage.from_file(tmp_path)
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="not a positive number"):
            SlideImage.from_array(picture, scale=scale)
    with pytest.raises(UserError, match="uint8 RGB"):
        SlideImage.from_array(picture.astype(float))


def test_an_unknown_format_goes_to_openslide_where_it_is_installed(
    picture: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenSlide is an optional extra: a stand-in with its interface shows that windows and sizes pass through right."""
    path = tmp_path / "slide.xyz"
    path.write_bytes(b"a vendor's own format")
    rgba = np.dstack([picture, np.full(picture.shape[:2], 255, dtype=np.uint8)])
    rgba[:, :10] = 0  # never scanned: transparent

    class OpenSlide:
        dimensions = (130, 90)

        def __init__(self, name: str) -> None:
            assert name == str(path)

        def __enter__(self) -> OpenSlide:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        @staticmethod
        def detect_format(name: str) -> str:
            return "vendor"

        def read_region(self, corner: tuple[int, int], level: int, size: tuple[int, int]) -> Image.Image:
            (x, y), (width, height) = corner, size
            return Image.fromarray(rgba[y : y + height, x : x + width])

        def get_thumbnail(self, size: tuple[int, int]) -> Image.Image:
            small = Image.fromarray(picture)
            small.thumbnail(size)
            return small

    stand_in = types.ModuleType("openslide")
    stand_in.OpenSlide = OpenSlide  # type: ignore[attr-defined]
    stand_in.OpenSlideError = type("OpenSlideError", (Exception,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "openslide", stand_in)
    image = SlideImage.from_file(path)
    assert image.size == (130, 90)
    patches, n_padded = image.cut(np.array([[65, 45], [2, 45]]), 16)
    np.testing.assert_array_equal(patches[0], picture[37:53, 57:73])
    assert n_padded == 1
    assert (patches[1][:, :16] == 255).all()  # padded and unscanned are both white
    assert image.thumbnail(65).shape == (45, 65, 3)


def test_without_openslide_an_unknown_format_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    (tmp_path / "slide.xyz").write_bytes(b"a vendor's own format")
    with pytest.raises(UserError, match=r"stbench\[wsi\]"):
        SlideImage.from_file(tmp_path / "slide.xyz")


def planes(path: Path, array: np.ndarray, names: list[str]) -> None:
    metadata = {"axes": "CYX", "Channel": {"Name": names}}
    tifffile.imwrite(path, np.moveaxis(array, -1, 0).copy(), photometric="minisblack", metadata=metadata)


def test_planes_that_are_named_are_put_into_the_order_of_colours(picture: np.ndarray, tmp_path: Path) -> None:
    for names, order in ((["Blue", "Green", "Red"], [2, 1, 0]), (["C0", "C1", "C2"], [0, 1, 2])):
        planes(tmp_path / "planes.ome.tif", picture[..., order], names)
        np.testing.assert_array_equal(SlideImage.from_file(tmp_path / "planes.ome.tif").read(), picture)


def test_channels_of_fluorescence_are_refused_by_their_names(picture: np.ndarray, tmp_path: Path) -> None:
    planes(tmp_path / "planes.ome.tif", picture, ["DAPI", "CD3", "PanCK"])
    with pytest.raises(UserError, match=r"channels are those of fluorescence: DAPI, CD3, PanCK\)"):
        SlideImage.from_file(tmp_path / "planes.ome.tif").read()


def test_a_label_before_the_image_is_passed_over_with_what_it_says(picture: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "slide.ome.tif"
    with tifffile.TiffWriter(path, ome=True) as file:
        for array, um in ((picture[:20, :30], 9.0), (picture, 0.5)):
            metadata = {"axes": "YXS", "PhysicalSizeX": um, "PhysicalSizeXUnit": "µm"}
            file.write(array, photometric="rgb", metadata=metadata)
    image = SlideImage.from_file(path)
    np.testing.assert_array_equal(image.read(), picture)
    assert stated_pixel_size(image) == StatedPixelSize(0.5, "PhysicalSizeX of its OME metadata")


def test_a_damaged_tiff_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """tifffile writes to its log, which goes to the terminal where nobody takes it."""
    path = tmp_path / "slide.svs"
    path.write_bytes(b"II*\x00" + b"0" * 50)
    with pytest.raises(UserError, match="cannot be read as an image"):
        SlideImage.from_file(path).read()
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("tifffile").handlers)
