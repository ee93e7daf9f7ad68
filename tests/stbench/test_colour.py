"""Colours: whatever model, depth, layout and container hold a picture, its patches are RGB on white glass.

Truth is the picture before it was written. Where a model cannot hold it exactly (YCbCr, Lab, CMYK rounded to 8 bits),
truth is what the formulas of its standard give, written out here in floating point.
"""

from __future__ import annotations

import gzip
import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from stbench.errors import UserError
from stbench.slides.colour import on_white
from stbench.slides.image import SlideImage


@pytest.fixture(scope="module")
def tissue() -> np.ndarray:
    """(72, 104, 3): smooth pinks and violets, so that half the chroma's pixels lose little."""
    y, x = np.mgrid[:72, :104]
    wave = 0.5 + 0.5 * np.sin(x / 19) * np.cos(y / 23)
    return np.rint([225, 150, 190] + wave[..., None] * np.array([-115, -90, -40])).astype(np.uint8)


def ycbcr(rgb: np.ndarray) -> np.ndarray:
    """JFIF: full range, coefficients of BT.601."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    planes = np.stack([y, 128 + (b - y) / 1.772, 128 + (r - y) / 1.402], axis=-1)
    return np.rint(planes).clip(0, 255).astype(np.uint8)


def cmyk(rgb: np.ndarray, black: int = 20) -> np.ndarray:
    """Inks of which ``black`` is at most that; R = 255 (1 - c)(1 - k) holds for any share of black."""
    k = np.minimum(black, 255 - rgb.max(axis=-1))
    inks = 255 - 255.0 * rgb / (255 - k[..., None].astype(float))
    return np.rint(np.dstack([inks, k])).clip(0, 255).astype(np.uint8)


def cielab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of sRGB with the white point D50, L scaled to 0..255, a and b in two's complement."""
    linear = rgb / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array(  # sRGB adapted to D50 (Bradford), as in sRGB's own ICC profile
        [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    )
    f = linear @ to_xyz.T / [0.96422, 1.0, 0.82521]
    f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
    lightness, a, b = 116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])
    signed = np.rint(np.stack([a, b], axis=-1)).astype(np.int8).view(np.uint8)
    return np.dstack([np.rint(lightness * 2.55).astype(np.uint8), signed])


def planes(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(array, -1, 0))


def write(path: Path, array: np.ndarray, **options: Any) -> None:
    tifffile.imwrite(path, array, **options)


def write_jpeg_tiff(path: Path, rgb: np.ndarray, subsampling: tuple[int, int]) -> None:
    write(path, rgb, photometric="rgb", compression="jpeg", compressionargs={"level": 98}, rowsperstrip=72,
          subsampling=subsampling)  # fmt: skip
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        assert (page.photometric, page.subsampling) == (6, subsampling)


def write_subsampled(path: Path, rgb: np.ndarray, compression: int = 1, byteorder: str = "<") -> None:
    """YCbCr with a chroma pixel for two by two of luma and without JPEG; no library at hand writes it."""
    values = ycbcr(rgb)
    height, width = values.shape[:2]
    blocks = values[..., 0].reshape(height // 2, 2, width // 2, 2).swapaxes(1, 2).reshape(height // 2, width // 2, 4)
    chroma = values[..., 1:].reshape(height // 2, 2, width // 2, 2, 2).astype(float).mean(axis=(1, 3))
    data = np.concatenate([blocks, np.rint(chroma).astype(np.uint8)], axis=-1).tobytes()
    if compression == 8:
        import zlib

        data = zlib.compress(data)
    entries = [
        (256, "I", [width]), (257, "I", [height]), (258, "H", [8, 8, 8]), (259, "H", [compression]), (262, "H", [6]),
        (273, "I", [0]), (274, "H", [3]), (277, "H", [3]), (278, "I", [height]), (279, "I", [len(data)]),
        (284, "H", [1]), (530, "H", [2, 2]), (531, "H", [1]),
    ]  # fmt: skip
    place = 8 + 2 + 12 * len(entries) + 4
    directory, beyond = struct.pack(byteorder + "H", len(entries)), b""
    for tag, kind, numbers in entries:
        if tag == 273:
            numbers = [place + 8]
        value = struct.pack(f"{byteorder}{len(numbers)}{kind}", *numbers)
        if len(value) > 4:
            beyond += value.ljust(8, b"\0")
            value = struct.pack(byteorder + "I", place)
        directory += struct.pack(byteorder + "HHI", tag, {"H": 3, "I": 4}[kind], len(numbers)) + value.ljust(4, b"\0")
    head = (b"II*\0" if byteorder == "<" else b"MM\0*") + struct.pack(byteorder + "I", 8)
    path.write_bytes(head + directory + b"\0\0\0\0" + beyond + data)


def write_adobe_jpeg(path: Path, rgb: np.ndarray) -> None:
    """CMYK as Photoshop writes it into a JPEG: 255 is no ink, marked by Adobe's segment."""
    Image.frombytes("CMYK", rgb.shape[1::-1], cmyk(rgb).tobytes()).save(path, "JPEG", quality=98)
    assert b"Adobe" in path.read_bytes()


# each writes the picture in another colour model; the second is the largest difference that rounding (or JPEG) explains
MODELS: dict[str, tuple[Callable[[Path, np.ndarray], None], int]] = {
    "YCbCr": (lambda path, rgb: write(path, ycbcr(rgb), photometric="ycbcr"), 2),
    "YCbCr, tiled, deflate": (
        lambda path, rgb: write(path, ycbcr(rgb), photometric="ycbcr", tile=(32, 32), compression="deflate"),
        2,
    ),
    "YCbCr, planes apart, big-endian": (
        lambda path, rgb: write(
            path, planes(ycbcr(rgb)), photometric="ycbcr", planarconfig="separate", tile=(16, 32), byteorder=">"
        ),
        2,
    ),
    "YCbCr, 16 bits": (lambda path, rgb: write(path, ycbcr(rgb).astype(np.uint16) * 257, photometric="ycbcr"), 2),
    "YCbCr, JPEG 2000 of Aperio": (
        lambda path, rgb: write(path, ycbcr(rgb), photometric="rgb", compression=33003, tile=(32, 32)),
        2,
    ),
    "YCbCr, Pillow": (lambda path, rgb: Image.fromarray(rgb).convert("YCbCr").save(path, "TIFF"), 3),
    "YCbCr in JPEG": (lambda path, rgb: write_jpeg_tiff(path, rgb, (1, 1)), 6),
    "YCbCr in JPEG, subsampled": (lambda path, rgb: write_jpeg_tiff(path, rgb, (2, 2)), 12),
    "YCbCr, subsampled": (write_subsampled, 6),
    "YCbCr, subsampled, big-endian, deflate": (lambda path, rgb: write_subsampled(path, rgb, 8, ">"), 6),
    "CMYK": (lambda path, rgb: write(path, cmyk(rgb), photometric="separated"), 2),
    "CMYK, planes apart, tiled": (
        lambda path, rgb: write(
            path, planes(cmyk(rgb)), photometric="separated", planarconfig="separate", tile=(32, 32)
        ),
        2,
    ),
    "CMYK, 16 bits, big-endian": (
        lambda path, rgb: write(path, cmyk(rgb).astype(np.uint16) * 257, photometric="separated", byteorder=">"),
        2,
    ),
    "CMYK with opacity": (
        lambda path, rgb: write(
            path, np.dstack([cmyk(rgb), opaque(rgb)]), photometric="separated", extrasamples=["unassalpha"]
        ),
        2,
    ),
    "CMYK JPEG": (write_adobe_jpeg, 8),
    "CIELab": (lambda path, rgb: write(path, cielab(rgb), photometric="cielab"), 4),
    "CIELab, tiled": (lambda path, rgb: write(path, cielab(rgb), photometric="cielab", tile=(32, 32)), 4),
    "ICCLab": (
        lambda path, rgb: write(path, cielab(rgb) ^ np.array([0, 128, 128], np.uint8), photometric="icclab"),
        4,
    ),
}


def opaque(rgb: np.ndarray) -> np.ndarray:
    return np.full(rgb.shape[:2], 255, dtype=np.uint8)


@pytest.mark.parametrize("model", MODELS)
def test_every_colour_model_gives_the_colours_of_the_picture(model: str, tissue: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "section.tif"
    writer, allowed = MODELS[model]
    writer(path, tissue)
    image = SlideImage.from_file(path)
    assert image.size == (104, 72)
    assert np.abs(image.read().astype(int) - tissue).max() <= allowed
    patches, _ = image.cut(np.array([[50.0, 40.0], [20.0, 60.0]]), 16)
    assert np.abs(patches[0].astype(int) - tissue[32:48, 42:58]).max() <= allowed
    assert np.abs(patches[1].astype(int) - tissue[52:68, 12:28]).max() <= allowed
    small = np.asarray(Image.fromarray(tissue).resize((52, 36), Image.Resampling.BOX)).astype(int)
    assert np.abs(image.thumbnail(52).astype(int) - small).mean() < 6


def test_a_lab_picture_is_what_littlecms_wrote(tissue: np.ndarray, tmp_path: Path) -> None:
    lab = ImageCms.profileToProfile(
        Image.fromarray(tissue), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    lab.save(tmp_path / "lab.tif")
    assert np.abs(SlideImage.from_file(tmp_path / "lab.tif").read().astype(int) - tissue).max() <= 4


@pytest.mark.parametrize("model", ["CMYK", "CIELab", "YCbCr", "CMYK JPEG"])
def test_converted_colours_are_said(model: str, tissue: np.ndarray, tmp_path: Path) -> None:
    MODELS[model][0](tmp_path / "a.tif", tissue)
    said = SlideImage.from_file(tmp_path / "a.tif").remarks()
    assert said == [f"its colours are {model.split()[0]}; they are converted to RGB without a colour profile"]


@pytest.mark.parametrize("model", ["YCbCr in JPEG, subsampled"])
def test_a_jpeg_inside_a_tiff_is_nothing_to_speak_of(model: str, tissue: np.ndarray, tmp_path: Path) -> None:
    MODELS[model][0](tmp_path / "a.tif", tissue)
    assert SlideImage.from_file(tmp_path / "a.tif").remarks() == []


def rational(*numbers: float) -> tuple[int, ...]:
    return tuple(part for number in numbers for part in (round(number * 10000), 10000))


def write_three_inks(path: Path, rgb: np.ndarray) -> None:
    write(path, 255 - rgb, photometric="rgb")
    with tifffile.TiffFile(path, mode="r+b") as file:
        file.pages[0].tags["PhotometricInterpretation"].overwrite(5)


REFUSED: dict[str, tuple[Callable[[Path, np.ndarray], None], str]] = {
    "grey": (lambda path, rgb: write(path, rgb[..., 0]), "greyscale"),
    "white is zero": (lambda path, rgb: write(path, rgb[..., 0], photometric="miniswhite"), "white is zero"),
    "grey with opacity": (
        lambda path, rgb: write(path, rgb[..., :2], photometric="minisblack", extrasamples=["unassalpha"]),
        "greyscale with an alpha channel",
    ),
    "grey png": (lambda path, rgb: Image.fromarray(rgb[..., 0]).save(path, "PNG"), "greyscale, mode L"),
    "LA png": (lambda path, rgb: Image.fromarray(rgb).convert("LA").save(path, "PNG"), "greyscale, mode LA"),
    "grey jpeg": (lambda path, rgb: Image.fromarray(rgb[..., 0]).save(path, "JPEG"), "greyscale, mode L"),
    "Lab of 16 bits": (
        lambda path, rgb: write(path, cielab(rgb).astype(np.uint16), photometric="cielab"),
        "CIELab of type uint16",
    ),
    "YCbCr of BT.709": (
        lambda path, rgb: write(
            path, ycbcr(rgb), photometric="ycbcr", extratags=[(529, 5, 3, rational(0.2126, 0.7152, 0.0722), True)]
        ),
        "YCbCr with the YCbCrCoefficients 0.2126, 0.7152, 0.0722",
    ),
    "YCbCr of the narrow range": (
        lambda path, rgb: write(
            path,
            ycbcr(rgb),
            photometric="ycbcr",
            extratags=[(532, 5, 6, rational(16, 235, 128, 240, 128, 240), True)],
        ),
        "YCbCr with the ReferenceBlackWhite 16, 235",
    ),
    "three inks": (write_three_inks, "3 inks"),
    "Log-Luv": (lambda path, rgb: write(path, rgb, photometric="logluv"), "LOGLUV"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_colours_that_are_not_converted_are_refused_by_their_name(
    what: str, tissue: np.ndarray, tmp_path: Path
) -> None:
    write_it, said = REFUSED[what]
    write_it(tmp_path / "section", tissue)
    with pytest.raises(UserError) as caught:
        SlideImage.from_file(tmp_path / "section").read()
    assert said in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert "\n" not in str(caught.value)


# --- palettes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [None, (32, 32)])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_in_tiff_is_read_as_one_in_png_is(
    bits: int, tile: tuple[int, int] | None, tissue: np.ndarray, tmp_path: Path
) -> None:
    reduced = Image.fromarray(tissue).quantize(200)
    reduced.save(tmp_path / "palette.png")
    colours = np.zeros((256, 3), dtype=np.uint16)
    table = np.array(reduced.getpalette()).reshape(-1, 3)
    colours[: len(table)] = table * (257 if bits == 16 else 1)  # some writers put 8 bits into the 16
    tifffile.imwrite(
        tmp_path / "palette.tif",
        np.asarray(reduced),
        photometric="palette",
        colormap=np.ascontiguousarray(colours.T),
        tile=tile,
    )
    truth = np.asarray(reduced.convert("RGB"))
    for name in ("palette.png", "palette.tif"):
        image = SlideImage.from_file(tmp_path / name)
        assert image.size == (104, 72)
        np.testing.assert_array_equal(image.read(), truth)
        np.testing.assert_array_equal(image.cut(np.array([[50, 40]]), 16)[0][0], truth[32:48, 42:58])


# --- transparency ----------------------------------------------------------------------------------------------------


def glass(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture that is black and clear on its left third, its opacity, and what it looks like on white."""
    third = rgb.shape[1] // 3
    hidden, alpha, seen = rgb.copy(), opaque(rgb), rgb.copy()
    hidden[:, :third], alpha[:, :third], seen[:, :third] = 0, 0, 255
    return hidden, alpha, seen


def png_with_clear_palette(path: Path, rgb: np.ndarray, alpha: np.ndarray) -> None:
    indices = np.where(alpha > 0, rgb[..., 0] // 2 + 1, 0).astype(np.uint8)
    picture = Image.frombytes("P", rgb.shape[1::-1], indices.tobytes())
    picture.putpalette([value for i in range(256) for value in (min(2 * i, 255), 0, 0)])
    picture.save(path, "PNG", transparency=0)


def tiff_with(kind: str, **options: Any) -> Callable[[Path, np.ndarray, np.ndarray], None]:
    def write_it(path: Path, rgb: np.ndarray, alpha: np.ndarray) -> None:
        rgba = np.dstack([rgb, alpha])
        if options.get("planarconfig") == "separate":
            rgba = planes(rgba)
        tifffile.imwrite(path, rgba, photometric="rgb", extrasamples=[kind], **options)

    return write_it


CLEAR: dict[str, Callable[[Path, np.ndarray, np.ndarray], None]] = {
    "png": lambda path, rgb, alpha: Image.fromarray(np.dstack([rgb, alpha])).save(path, "PNG"),
    "png, gzipped": lambda path, rgb, alpha: path.write_bytes(gzip.compress(png_bytes(np.dstack([rgb, alpha])))),
    "png, one colour is clear": lambda path, rgb, alpha: Image.fromarray(rgb).save(path, "PNG", transparency=(0, 0, 0)),
    "png, 16 bits": lambda path, rgb, alpha: path.write_bytes(png16(np.dstack([rgb, alpha]))),
    "tiff, unassociated": tiff_with("unassalpha"),
    "tiff, unassociated, tiled": tiff_with("unassalpha", tile=(32, 32), compression="deflate"),
    "tiff, unassociated, planes": tiff_with("unassalpha", planarconfig="separate", byteorder=">"),
    "tiff, associated": tiff_with("assocalpha"),
    "tiff, associated, tiled": tiff_with("assocalpha", tile=(16, 16)),
    "tiff, 16 bits": lambda path, rgb, alpha: tifffile.imwrite(
        path, np.dstack([rgb, alpha]).astype(np.uint16) * 257, photometric="rgb", extrasamples=["unassalpha"]
    ),
    "tiff, Pillow": lambda path, rgb, alpha: Image.fromarray(np.dstack([rgb, alpha])).save(path, "TIFF"),
}


def png_bytes(rgba: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgba).save(buffer, "PNG")
    return buffer.getvalue()


def png16(samples: np.ndarray) -> bytes:
    import imagecodecs

    return imagecodecs.png_encode(samples.astype(np.uint16) * 257)


@pytest.mark.parametrize("form", CLEAR)
def test_transparent_glass_is_white(form: str, tissue: np.ndarray, tmp_path: Path) -> None:
    hidden, alpha, seen = glass(tissue)
    CLEAR[form](tmp_path / "section", hidden, alpha)
    image = SlideImage.from_file(tmp_path / "section")
    np.testing.assert_array_equal(image.read(), seen)
    np.testing.assert_array_equal(image.cut(np.array([[34, 40]]), 16)[0][0], seen[32:48, 26:42])
    assert (image.thumbnail(52)[:, :14] > 250).all()


def test_a_clear_entry_of_a_palette_is_white(tissue: np.ndarray, tmp_path: Path) -> None:
    hidden, alpha, _ = glass(tissue)
    png_with_clear_palette(tmp_path / "p.png", hidden, alpha)
    pixels = SlideImage.from_file(tmp_path / "p.png").read()
    assert (pixels[alpha == 0] == 255).all()
    assert (pixels[alpha > 0][:, 1] == 0).all()


def test_a_fourth_sample_that_is_said_to_be_no_opacity_is_none(tissue: np.ndarray, tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif", np.dstack([tissue, tissue[..., 0]]), photometric="rgb", extrasamples=["unspecified"]
    )
    np.testing.assert_array_equal(SlideImage.from_file(tmp_path / "a.tif").read(), tissue)


@given(colour=st.integers(0, 255), alpha=st.integers(0, 255))
def test_half_transparent_pixels_are_mixed_with_white(colour: int, alpha: int) -> None:
    exact = (colour * alpha + 255 * (255 - alpha)) / 255
    one = np.full((1, 1, 3), colour, dtype=np.uint8)
    opacity = np.full((1, 1), alpha, dtype=np.uint8)
    assert abs(int(on_white(one, opacity)[0, 0, 0]) - exact) <= 0.5
    multiplied = np.full((1, 1, 3), colour * alpha // 255, dtype=np.uint8)
    assert abs(int(on_white(multiplied, opacity, associated=True)[0, 0, 0]) - exact) <= 1


# --- tags that change how a picture is shown -------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_an_orientation_tag_is_said_and_not_applied(form: str, tissue: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "section"
    if form == "TIFF":
        tifffile.imwrite(path, tissue, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    else:
        exif = Image.Exif()
        exif[274] = 6
        Image.fromarray(tissue).save(path, form, exif=exif, quality=95)
    image = SlideImage.from_file(path)
    (said,) = image.remarks()
    assert "orientation tag (6)" in said
    assert "turned by 90 degrees clockwise" in said
    assert image.size == (104, 72)
    assert np.abs(image.read().astype(int) - tissue).max() <= 8


def test_a_subsampled_picture_is_not_turned_by_its_tag_either(tissue: np.ndarray, tmp_path: Path) -> None:
    write_subsampled(tmp_path / "a.tif", tissue)  # its tag says 3: turned by 180 degrees
    image = SlideImage.from_file(tmp_path / "a.tif")
    assert any("180 degrees" in text for text in image.remarks())
    assert np.abs(image.read().astype(int) - tissue).max() <= 6


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF"])
def test_a_colour_profile_other_than_srgb_is_said(form: str, tissue: np.ndarray, tmp_path: Path) -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(tissue).save(tmp_path / "usual", form, icc_profile=srgb)
    assert SlideImage.from_file(tmp_path / "usual").remarks() == []
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    Image.fromarray(tissue).save(tmp_path / "other", form, icc_profile=lab)
    (said,) = SlideImage.from_file(tmp_path / "other").remarks()
    assert "colour profile (" in said
    assert "is not applied" in said


# --- the container changes nothing -----------------------------------------------------------------------------------


@st.composite
def tiff_options(draw: st.DrawFn) -> dict[str, Any]:
    options: dict[str, Any] = {
        "byteorder": draw(st.sampled_from("<>")),
        "bigtiff": draw(st.booleans()),
        "compression": draw(st.sampled_from([None, "deflate", "lzw", "zstd", "packbits"])),
        "planarconfig": draw(st.sampled_from(["contig", "separate"])),
    }
    if draw(st.booleans()):
        options["tile"] = draw(st.sampled_from([(16, 16), (32, 16), (64, 64)]))
    else:
        options["rowsperstrip"] = draw(st.integers(1, 40))
    if options["compression"] not in (None, "packbits"):
        options["predictor"] = draw(st.booleans())
    return options


@settings(max_examples=60)
@given(
    data=st.data(),
    model=st.sampled_from(["RGB", "RGBA", "associated", "YCbCr", "CMYK", "CIELab", "palette"]),
    bits=st.sampled_from([8, 16]),
)
def test_compression_tiling_byte_order_and_planes_change_no_byte(
    data: st.DataObject, model: str, bits: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Against the same samples in the plainest TIFF there is: one strip, little-endian, uncompressed."""
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    n = {"RGBA": 4, "associated": 4, "CMYK": 4, "palette": 1}.get(model, 3)
    samples = rng.integers(0, 256, (40, 56, n)).astype(np.uint8)
    if bits == 16 and model not in ("CIELab", "palette"):
        samples = samples.astype(np.uint16) * 256 + rng.integers(0, 256, samples.shape).astype(np.uint16)
    kinds: dict[str, dict[str, Any]] = {
        "RGB": {"photometric": "rgb"},
        "RGBA": {"photometric": "rgb", "extrasamples": ["unassalpha"]},
        "associated": {"photometric": "rgb", "extrasamples": ["assocalpha"]},
        "YCbCr": {"photometric": "ycbcr"},
        "CMYK": {"photometric": "separated"},
        "CIELab": {"photometric": "cielab"},
        "palette": {"photometric": "palette", "colormap": (rng.integers(0, 256, (3, 256)) * 257).astype(np.uint16)},
    }
    options = data.draw(tiff_options())
    folder = tmp_path_factory.mktemp("containers")
    if model == "palette":
        samples, options = samples[..., 0], {key: options[key] for key in options if key != "planarconfig"}
        tifffile.imwrite(folder / "plain.tif", samples, **kinds[model])
    else:
        tifffile.imwrite(folder / "plain.tif", samples, planarconfig="contig", **kinds[model])
        if options["planarconfig"] == "separate":
            samples = planes(samples)
    tifffile.imwrite(folder / "other.tif", samples, **options, **kinds[model])
    if data.draw(st.booleans()):
        (folder / "other.tif").write_bytes(gzip.compress((folder / "other.tif").read_bytes()))
    plain, other = SlideImage.from_file(folder / "plain.tif"), SlideImage.from_file(folder / "other.tif")
    np.testing.assert_array_equal(other.read(), plain.read())
    centres = np.array([[0.0, 0.0], [28.2, 19.9], [55.0, 39.0]])
    np.testing.assert_array_equal(other.cut(centres, 12)[0], plain.cut(centres, 12)[0])


@settings(max_examples=30)
@given(seed=st.integers(0, 999), bits=st.sampled_from([8, 16]), with_alpha=st.booleans(), level=st.integers(0, 9))
def test_a_png_and_a_tiff_of_the_same_samples_are_the_same(
    seed: int, bits: int, with_alpha: bool, level: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    import imagecodecs

    rng = np.random.default_rng(seed)
    samples = rng.integers(0, 2**bits, (30, 44, 4 if with_alpha else 3)).astype(np.uint8 if bits == 8 else np.uint16)
    folder = tmp_path_factory.mktemp("png")
    (folder / "a.png").write_bytes(imagecodecs.png_encode(samples, level=level))
    extra = {"extrasamples": ["unassalpha"]} if with_alpha else {}
    tifffile.imwrite(folder / "a.tif", samples, photometric="rgb", **extra)
    np.testing.assert_array_equal(
        SlideImage.from_file(folder / "a.png").read(), SlideImage.from_file(folder / "a.tif").read()
    )
