"""The image of a slide: lazily opened, always RGB with 8 bits, and cut into patches around spots.

Pixel coordinates have their origin at the top left, x to the right and y down, as they are stored: an orientation
tag (EXIF) is not applied, because spot positions refer to the pixels as stored. So do scanpy, squidpy and tifffile.
Transparent pixels are white.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, cast

import numpy as np

from .colour import Alpha, Colours, Model, eight_bits, on_white
from .compressed import existing, is_gzipped, open_binary
from .errors import UserError

Level = Literal["full", "hires", "lowres"]

# A Visium section at full resolution has about 0.7 Gpx; Pillow's guard against decompression bombs warns at 0.09.
PIXEL_LIMIT = 4_000_000_000


class _Pixels(Protocol):
    """What windows are cut from: an array (height, width, 3) uint8, or something lazy that is sliced like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class SlideImage:
    """An RGB image, held as a path (opened when pixels are asked for) or as an array.

    ``scale`` is image pixels per full-resolution pixel; ``level`` says which of a section's images this is. JPEG, PNG,
    TIFF (whole, tiled, pyramidal) and what OpenSlide reads where it is installed; each may be gzipped. The format is
    told by the first bytes.
    """

    path: Path | None = None
    array: np.ndarray | None = None
    scale: float = 1.0
    level: Level = "full"

    @classmethod
    def from_file(cls, path: Path | str, scale: float = 1.0, level: Level = "full") -> SlideImage:
        path = existing(Path(path))
        _check_scale(scale, str(path))
        _format(path)
        return cls(path=path, scale=float(scale), level=level)

    @classmethod
    def from_array(cls, array: np.ndarray, scale: float = 1.0, level: Level = "full") -> SlideImage:
        """``array``: (height, width, 3) uint8 RGB."""
        _check_scale(scale, "an image array")
        array = np.asarray(array)
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise UserError(
                f"an image array must be (height, width, 3) uint8 RGB, not {array.shape} {array.dtype} - convert it"
            )
        return cls(array=array, scale=float(scale), level=level)

    @property
    def name(self) -> str:
        """What messages call this image: its path, or that it is an array."""
        return str(self.path) if self.path is not None else "the embedded image"

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in image pixels; reads no more than the file's header."""
        if self.array is not None:
            return int(self.array.shape[1]), int(self.array.shape[0])
        path = cast(Path, self.path)
        with _one_line(path):
            kind = _format(path)
            if kind == "tiff":
                with _tiff(path) as series:
                    return _TiffLayout.of(path, series).size
            if kind == "openslide":
                with _openslide(path) as slide:
                    return slide.dimensions
            with _picture(path) as picture:
                return picture.size

    @property
    def full_resolution_size(self) -> tuple[float, float]:
        """(width, height) of the section's image in full-resolution pixels."""
        width, height = self.size
        return width / self.scale, height / self.scale

    def read(self) -> np.ndarray:
        """The whole image: (height, width, 3) uint8 RGB."""
        with self._pixels() as pixels:
            return np.ascontiguousarray(pixels[:, :])

    def thumbnail(self, max_side: int = 1000) -> np.ndarray:
        """The image with its longer side reduced to ``max_side`` (never enlarged): (height, width, 3) uint8 RGB."""
        if self.path is None:
            return _reduced(self.read(), max_side)
        with _one_line(self.path):
            kind = _format(self.path)
            if kind == "tiff":
                with _tiff(self.path) as series:
                    coarse = [level for level in series.levels if max(level.shape) >= max_side]
                    return _reduced(_tiff_array(self.path, coarse[-1] if coarse else series.levels[0]), max_side)
            if kind == "openslide":
                with _openslide(self.path) as slide:
                    return np.asarray(slide.get_thumbnail((max_side, max_side)).convert("RGB"))
            with _picture(self.path) as picture:
                if kind == "png":
                    return _reduced(_picture_array(self.path, picture), max_side)
                picture.thumbnail((max_side, max_side))  # a JPEG is decoded at a coarser scale, at once
                return np.asarray(picture.convert("RGB"))

    def remarks(self) -> list[str]:
        """What the file says beyond its pixels that a user should know; reads no more than its header.

        An orientation tag, which is not applied; colours that had to be converted; a colour profile other than sRGB,
        which is not applied.
        """
        if self.path is None:
            return []
        with _one_line(self.path):
            kind = _format(self.path)
            if kind == "openslide":
                return []
            if kind == "tiff":
                with _tiff(self.path) as series:
                    model = _TiffLayout.of(self.path, series).colours.model
                    return _remarks(
                        _tag(series.keyframe, "Orientation"),
                        None if model in ("RGB", "palette") or _decodes_to_rgb(series.keyframe) else model,
                        _tag(series.keyframe, "InterColorProfile"),
                    )
            with _picture(self.path) as picture:
                converted = "CMYK" if picture.mode == "CMYK" else None
                return _remarks(picture.getexif().get(_ORIENTATION), converted, picture.info.get("icc_profile"))

    def cut(
        self, centres: np.ndarray, side: int, pad: int = 255, out: np.ndarray | None = None
    ) -> tuple[np.ndarray, int]:
        """Cut a square window around every centre: the patches (n, side, side, 3) uint8, and how many were padded.

        ``centres`` is (n, 2) x, y and ``side`` a number of pixels, both at **full resolution**. A window covers
        [floor(c) - side // 2, floor(c) - side // 2 + side) on each axis. Where the image is coarser or finer than full
        resolution the same field of view is cut at the image's scale and resampled (bicubic, antialiased) to ``side``.
        What lies beyond the border is filled with the constant ``pad`` (white); such windows are counted. ``out`` may
        be an array to write into, for example a memory map. A centre outside the image is a ``UserError``.
        """
        centres = np.asarray(centres, dtype=np.float64)
        if centres.ndim != 2 or centres.shape[1] != 2:
            raise ValueError(f"centres must have the shape (n, 2), not {centres.shape}")
        if side < 1:
            raise ValueError(f"a patch must have at least one pixel, not side={side}")
        if out is None:
            out = np.empty((len(centres), side, side, 3), dtype=np.uint8)
        elif out.shape != (len(centres), side, side, 3) or out.dtype != np.uint8:
            raise ValueError(f"out must be ({len(centres)}, {side}, {side}, 3) uint8, not {out.shape} {out.dtype}")
        self._check_inside(centres)
        corners = np.floor(centres) - side // 2
        with self._pixels() as pixels:
            for i, (x, y) in enumerate(corners):
                if self.scale == 1.0:
                    out[i] = _window(pixels, int(x), int(y), side, pad)
                else:
                    out[i] = _resampled_window(pixels, x, y, side, self.scale, pad)
        return out, int(self.crossing(centres, side).sum())

    def outside(self, centres: np.ndarray) -> np.ndarray:
        """(n,) bool: which centres (x, y at full resolution) fall on no pixel of the image; NaN counts as outside."""
        width, height = self.full_resolution_size
        floored = np.floor(np.asarray(centres, dtype=np.float64))
        x, y = floored[:, 0], floored[:, 1]
        return ~((x >= 0) & (y >= 0) & (x < width) & (y < height))

    def crossing(self, centres: np.ndarray, side: int) -> np.ndarray:
        """(n,) bool: the windows of which a part lies beyond the border, so that :meth:`cut` pads them."""
        corners = np.floor(np.asarray(centres, dtype=np.float64)) - side // 2
        width, height = self.size
        first, last = corners * self.scale, (corners + side) * self.scale
        # a coarse image's last pixel stands for a rounded number of full-resolution pixels; 1e-6 allows for arithmetic
        return np.any((first < 0) | (last > np.array([width, height]) + 1e-6), axis=1)

    def margins(self, centres: np.ndarray, side: int) -> np.ndarray:
        """(n, 4) int64: pixels of each window left of, above, right of and below the image: what :meth:`cut` pads.

        Where the image is not at full resolution padding and image blend over a few pixels, and this is their middle.
        """
        first = np.floor(np.asarray(centres, dtype=np.float64)) - side // 2
        beyond = np.concatenate([-first, first + side - np.array(self.full_resolution_size)], axis=1)
        return np.where(self.crossing(centres, side)[:, None], np.rint(beyond).clip(0, side), 0).astype(np.int64)

    def _check_inside(self, centres: np.ndarray) -> None:
        outside = self.outside(centres)
        if outside.any():
            x, y = centres[int(np.argmax(outside))]
            width, height = self.full_resolution_size
            raise UserError(
                f"{int(outside.sum())} of {len(centres)} spot centres lie outside {self.name} "
                f"({width:.0f} x {height:.0f} px at full resolution), the first at x={x:.1f}, y={y:.1f} - check that "
                "the positions belong to this image and are in full-resolution pixels"
            )

    @contextmanager
    def _pixels(self) -> Iterator[_Pixels]:
        """The pixels: decoded at once where the format leaves no choice, else window by window."""
        if self.array is not None:
            yield self.array
            return
        path = cast(Path, self.path)
        with _one_line(path):
            kind = _format(path)
            if kind == "tiff":
                with _tiff(path) as series:
                    lazily = series.keyframe.is_tiled and not _needs_libtiff(series.keyframe)
                    yield _TiledTiff(path, series) if lazily else _tiff_array(path, series)
            elif kind == "openslide":
                with _openslide(path) as slide:
                    yield _OpenSlidePixels(slide)
            else:
                with _picture(path) as picture:
                    yield _picture_array(path, picture)


def _check_scale(scale: float, name: str) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"{name}: the scale {scale} is not a positive number - check the scale factors of the section")


@contextmanager
def _one_line(path: Path) -> Iterator[None]:
    """Decoders raise all kinds of errors on a damaged image; the user needs its name and one reason."""
    try:
        yield
    except (OSError, EOFError, ValueError, KeyError, SyntaxError, RuntimeError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, NotImplementedError) or "not supported" in reason:
            advice = "this form of image is not supported: save it as RGB, in PNG or TIFF"
        else:
            advice = "it is damaged or cut off: fetch it again"
        raise UserError(f"{path} cannot be read as an image ({reason}) - {advice}") from error


# --- formats -------------------------------------------------------------------------------------------------------


def _format(path: Path) -> Literal["jpeg", "png", "tiff", "openslide"]:
    with open_binary(path) as stream:
        head = stream.read(8)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"\xff\xd8\xff"):
        # the index file of a MIRAX slide is a small JPEG; the slide itself is in the folder of the same name
        return "openslide" if (path.with_suffix("") / "Slidedat.ini").is_file() else "jpeg"
    if not is_gzipped(path) and _openslide_knows(path):
        return "openslide"
    raise UserError(
        f"{path} is not an image that can be read (it begins with {head[:4]!r}) - "
        "give a JPEG, PNG or TIFF, or install stbench[wsi] for other whole-slide formats"
    )


def _openslide_knows(path: Path) -> bool:
    try:
        import openslide
    except ImportError:
        return False
    return openslide.OpenSlide.detect_format(str(path)) is not None


@contextmanager
def _picture(path: Path) -> Iterator[Any]:
    """A JPEG or PNG opened by Pillow, not yet decoded."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXEL_LIMIT
    try:
        with open_binary(path) as stream, Image.open(stream) as picture:
            if picture.mode not in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"):
                grey = picture.mode in ("1", "L", "LA", "I", "F") or picture.mode.startswith("I;16")
                raise _not_rgb(path, f"greyscale, mode {picture.mode}" if grey else f"mode {picture.mode}")
            yield picture
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _picture_array(path: Path, picture: Any) -> np.ndarray:
    """All pixels of a JPEG or PNG that Pillow has opened: (height, width, 3) uint8."""
    if picture.format == "PNG" and _png_bits(path) == 16:  # Pillow drops the lower half of the bits
        import imagecodecs

        with open_binary(path) as stream:
            samples = imagecodecs.png_decode(stream.read())
        colours = Colours("RGB", "unassociated" if samples.shape[2] == 4 else None)
        white = _white_levels(path, colours, samples)
        parts = [eight_bits(samples[..., :3], white[0]), eight_bits(samples[..., 3:], white[1])]
        return colours.rgb(np.concatenate(parts, axis=-1))
    if picture.mode in ("RGBA", "PA") or "transparency" in picture.info:
        return Colours("RGB", "unassociated").rgb(np.asarray(picture.convert("RGBA")))
    return np.asarray(picture.convert("RGB"))


def _png_bits(path: Path) -> int:
    with open_binary(path) as stream:
        return stream.read(25)[24]  # signature, then the header chunk: length, name, width, height, bits a sample


def _not_rgb(path: Path, what: str) -> UserError:
    return UserError(f"{path} is not a colour image ({what}) - an H&E image in RGB is needed")


def _reduced(array: np.ndarray, max_side: int) -> np.ndarray:
    from PIL import Image

    picture = Image.fromarray(array)
    picture.thumbnail((max_side, max_side))
    return np.asarray(picture)


@contextmanager
def _tiff(path: Path) -> Iterator[Any]:
    """The first series of a TIFF (its full-resolution image with the pyramid's levels), checked to be complete."""
    import tifffile

    if is_gzipped(path):
        with open_binary(path) as stream:
            content = stream.read()
        source: Any = io.BufferedReader(io.BytesIO(content))  # not writable: zarr asks for that
        length = len(content)
    else:
        source, length = path, path.stat().st_size
    with tifffile.TiffFile(source) as file:
        if not file.series:
            raise ValueError("there is no image in it")
        series = file.series[0]
        for page in series.pages:
            # tifffile fills what is missing with zeros; a black corner must not pass for tissue
            if page is not None and any(
                offset + count > length for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ):
                raise ValueError("the file ends before its last pixel")
        yield series


@dataclass(frozen=True, eq=False)
class _TiffLayout:
    """Which axes of a series' shape hold rows, columns and samples of a pixel, and what the samples mean."""

    rows: int
    columns: int
    samples: int | None  # None: one sample, without an axis of its own
    size: tuple[int, int]  # width, height
    colours: Colours

    @classmethod
    def of(cls, path: Path, series: Any) -> _TiffLayout:
        """(y, x, c), (c, y, x), or (y, x) for a palette, each with ones between them. ``series`` may be one level."""
        page, shape = series.keyframe, series.shape
        colours = _tiff_colours(path, page)
        axes = [axis for axis, length in enumerate(shape) if length != 1]
        lengths = [shape[axis] for axis in axes]
        if colours.model == "palette" and colours.alpha is None and len(axes) == 2:
            return cls(axes[0], axes[1], None, (lengths[1], lengths[0]), colours)
        # planes of one sample each, as OME-TIFF has them, are taken in the order red, green, blue
        possible = (3, 4) if page.samplesperpixel == 1 else (page.samplesperpixel,)
        if len(axes) == 3 and lengths[2] in possible and lengths[2] >= colours.n_samples:
            return cls(axes[0], axes[1], axes[2], (lengths[1], lengths[0]), colours)
        if len(axes) == 3 and lengths[0] in possible and lengths[0] >= colours.n_samples:
            return cls(axes[1], axes[2], axes[0], (lengths[2], lengths[1]), colours)
        if len(axes) == 2 or page.samplesperpixel == 2:
            raise _not_rgb(path, "greyscale" + (" with an alpha channel" if page.samplesperpixel == 2 else ""))
        raise _not_rgb(path, f"its TIFF axes are {' x '.join(map(str, shape))}, not height x width x 3 or 4")

    def last(self, pixels: np.ndarray) -> np.ndarray:
        """``pixels``, an array of the series' axes, as (height, width, samples)."""
        height, width = pixels.shape[self.rows], pixels.shape[self.columns]
        if self.samples is not None:
            pixels = np.moveaxis(pixels, self.samples, -1)
        return pixels.reshape(height, width, -1)


_ORIENTATION = 274  # the tag's number in TIFF and EXIF
_SHOWN_FROM = {  # where an orientation tag wants the first stored row and column
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored across the diagonal",
    6: "turned by 90 degrees clockwise",
    7: "mirrored across the other diagonal",
    8: "turned by 90 degrees anticlockwise",
}
_JPEG = (6, 7, 34892)
_JPEG2000_YCBCR, _JPEG2000_RGB = 33003, 33005  # Aperio's, whatever the photometric tag says
_BT601 = (0.299, 0.587, 0.114)
_FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def _tiff_colours(path: Path, page: Any) -> Colours:
    """What the samples of a TIFF page mean once decoded; a model that cannot be converted is refused by its name."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    if page.compression == _JPEG2000_YCBCR:
        photometric = "YCBCR"
    elif page.compression == _JPEG2000_RGB or _decodes_to_rgb(page):
        photometric = "RGB"
    if photometric == "PALETTE":
        return Colours("palette", palette=_tiff_palette(path, page))
    models: dict[str, Model] = {
        "RGB": "RGB",
        "MINISBLACK": "RGB",  # of three or four planes; a single one is refused as grey
        "YCBCR": "YCbCr",
        "SEPARATED": "CMYK",
        "CIELAB": "CIELab",
        "ICCLAB": "ICCLab",
    }
    model = models.get(photometric)
    if photometric == "MINISWHITE" and page.samplesperpixel <= 2:
        raise _not_rgb(path, "greyscale, white is zero")
    if model is None:
        raise _not_rgb(path, f"the colours of this TIFF are {photometric}, which is not converted")
    if model in ("CIELab", "ICCLab") and page.dtype != np.uint8:
        raise _not_rgb(path, f"its colours are {model} of type {page.dtype}, of which only 8 bits are converted")
    if model == "YCbCr":
        _require_usual_ycbcr(path, page)
    if model == "CMYK" and page.samplesperpixel < 4:
        raise _not_rgb(path, f"it has {page.samplesperpixel} inks, not the four of CMYK")
    return Colours(model, None if photometric == "MINISBLACK" else _tiff_alpha(page, model))


def _decodes_to_rgb(page: Any) -> bool:
    """A JPEG inside a TIFF is decoded to RGB, unless its three components lie apart."""
    return page.photometric == 6 and page.compression in _JPEG and page.planarconfig == 1


def _needs_libtiff(page: Any) -> bool:
    """Chroma of fewer pixels than luma, without JPEG: tifffile decodes it not, libtiff does."""
    return page.photometric == 6 and page.compression not in _JPEG and page.subsampling not in (None, (1, 1))


def _tiff_alpha(page: Any, model: Model) -> Alpha | None:
    n = 4 if model == "CMYK" else 3
    if page.samplesperpixel <= n:
        return None
    if not page.extrasamples:  # against the standard; Pillow and libtiff take it for opacity
        return "unassociated" if page.samplesperpixel == n + 1 else None
    kinds: dict[int, Alpha] = {1: "associated", 2: "unassociated"}
    return kinds.get(int(page.extrasamples[0]))  # 0: unspecified, no opacity


def _tiff_palette(path: Path, page: Any) -> np.ndarray:
    table = _tag(page, "ColorMap")
    if table is None:
        raise _not_rgb(path, "its colours are those of a palette that it lacks")
    table = np.asarray(table, dtype=np.uint16).reshape(3, -1).T
    # 16 bits; some writers put 8 into them
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)


def _require_usual_ycbcr(path: Path, page: Any) -> None:
    for tag, usual in (("YCbCrCoefficients", _BT601), ("ReferenceBlackWhite", _FULL_RANGE)):
        stated = _tag(page, tag)
        if stated is None:
            continue
        pairs = np.asarray(stated, dtype=np.float64).reshape(-1, 2)
        values = pairs[:, 0] / pairs[:, 1]
        # one unit of black and white makes no difference that is seen
        if len(values) != len(usual) or np.abs(values - usual).max() > (0.001 if tag == "YCbCrCoefficients" else 1):
            shown = ", ".join(f"{value:g}" for value in values)
            raise _not_rgb(path, f"its colours are YCbCr with the {tag} {shown}, which is not converted")


def _tag(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def _remarks(orientation: Any, model: str | None, profile: Any) -> list[str]:
    said = []
    if orientation in _SHOWN_FROM:
        said.append(
            f"its orientation tag ({orientation}) says that it should be shown {_SHOWN_FROM[orientation]}; the tag is "
            "not applied, because positions are taken to be those of the stored pixels, as in scanpy and squidpy - "
            "look at the picture of 'stbench data check'"
        )
    if model is not None:
        said.append(f"its colours are {model}; they are converted to RGB without a colour profile")
    if profile:
        name = _profile_name(bytes(profile))
        if "srgb" not in name.lower():
            said.append(f"its colour profile ({name}) is not applied: other slides may have other colours for that")
    return said


def _profile_name(profile: bytes) -> str:
    from PIL import ImageCms

    try:
        return " ".join(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).split())
    except (OSError, ImageCms.PyCMSError):
        return "unreadable"


def _tiff_array(path: Path, series: Any) -> np.ndarray:
    """All pixels of a series or of one level of it: (height, width, 3) uint8."""
    layout = _TiffLayout.of(path, series)
    if _needs_libtiff(series.keyframe):
        return _libtiff_array(path, series.keyframe)
    return _tiff_rgb(path, layout, series.asarray(), None)


def _tiff_rgb(path: Path, layout: _TiffLayout, pixels: np.ndarray, white: tuple[float, float] | None) -> np.ndarray:
    samples, colours = layout.last(pixels)[..., : layout.colours.n_samples], layout.colours
    if colours.model != "palette" and samples.dtype != np.uint8:
        white = white or _white_levels(path, colours, samples)
        n = colours.n_samples - (colours.alpha is not None)
        parts = [eight_bits(samples[..., :n], white[0])]
        if colours.alpha is not None:
            parts.append(eight_bits(samples[..., n:], white[1]))
        samples = np.concatenate(parts, axis=-1)
    return colours.rgb(samples)


def _libtiff_array(path: Path, page: Any) -> np.ndarray:
    """The page as libtiff converts it to RGB, in the order in which its rows and columns are stored."""
    import imagecodecs

    with open_binary(path) as stream:
        content = bytearray(stream.read())
    tag = page.tags.get("Orientation")
    if tag is not None:  # libtiff would apply half of it
        upright = struct.pack(page.parent.byteorder + "H", 1)
        content[tag.valueoffset : tag.valueoffset + 2] = upright
    rgba = imagecodecs.tiff_decode(bytes(content), index=page.index, asrgb=True)
    return np.ascontiguousarray(rgba[..., :3])


def _white_levels(path: Path, colours: Colours, samples: np.ndarray) -> tuple[float, float]:
    """The values that stand for white, and for opaque."""
    if colours.model == "palette" or samples.dtype == np.uint8:
        return 255.0, 255.0
    n = colours.n_samples - (colours.alpha is not None)
    white = _white_level(path, samples[..., :n])
    return white, _white_level(path, samples[..., n]) if colours.alpha is not None else white


def _white_level(path: Path, pixels: np.ndarray) -> float:
    """The value that stands for white. 16-bit files hold 8, 10, 12, 14 or 16 significant bits: the fewest that fit."""
    highest = float(pixels.max())
    if pixels.dtype == np.uint16:
        return next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
    if pixels.dtype.kind == "f" and float(pixels.min()) >= 0 and highest <= 1:
        return 1.0
    raise _not_rgb(path, f"values of type {pixels.dtype} up to {highest:g}, not 8 or 16 bits")


class _TiledTiff:
    """A tiled TIFF from which windows are read: only the tiles that a window touches are decoded."""

    def __init__(self, path: Path, series: Any) -> None:
        import zarr

        self._path = path
        self._array: Any = zarr.open(series.aszarr(level=0), mode="r")
        self._layout = _TiffLayout.of(path, series)
        width, height = self._layout.size
        self.shape = (height, width, 3)
        self._white: tuple[float, float] | None = None
        if series.dtype != np.uint8 and self._layout.colours.model != "palette":
            # the coarsest level is enough to see how many bits are in use
            samples = self._layout.last(series.levels[-1].asarray())
            self._white = _white_levels(path, self._layout.colours, samples)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        # axes keep their places: an axis of length one is sliced, not dropped
        index = [slice(0, 1)] * len(self._array.shape)
        index[self._layout.rows], index[self._layout.columns] = key
        if self._layout.samples is not None:
            index[self._layout.samples] = slice(0, self._layout.colours.n_samples)
        return _tiff_rgb(self._path, self._layout, np.asarray(self._array[tuple(index)]), self._white)


@contextmanager
def _openslide(path: Path) -> Iterator[Any]:
    try:
        import openslide
    except ImportError as error:
        raise UserError(f"{path} needs OpenSlide to be read - install it with: pip install 'stbench[wsi]'") from error
    try:
        with openslide.OpenSlide(str(path)) as slide:
            yield slide
    except openslide.OpenSlideError as error:
        raise ValueError(str(error)) from error


class _OpenSlidePixels:
    """A slide opened by OpenSlide, sliced like an array."""

    def __init__(self, slide: Any) -> None:
        self._slide = slide
        width, height = slide.dimensions
        self.shape = (height, width, 3)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        top, bottom, _ = key[0].indices(self.shape[0])
        left, right, _ = key[1].indices(self.shape[1])
        region = self._slide.read_region((left, top), 0, (right - left, bottom - top))
        rgba = np.asarray(region)  # unscanned areas are transparent
        return on_white(rgba[..., :3], rgba[..., 3])


# --- windows -------------------------------------------------------------------------------------------------------


def _window(pixels: _Pixels, x: int, y: int, side: int, pad: int) -> np.ndarray:
    """The pixels [y, y + side) x [x, x + side); those beyond the border have the value ``pad``."""
    image_height, image_width = pixels.shape[:2]
    left, right = max(x, 0), min(x + side, image_width)
    top, bottom = max(y, 0), min(y + side, image_height)
    if (left, top, right, bottom) == (x, y, x + side, y + side):
        return pixels[top:bottom, left:right]
    window = np.full((side, side, 3), pad, dtype=np.uint8)
    if left < right and top < bottom:
        window[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return window


def _resampled_window(pixels: _Pixels, x: float, y: float, side: int, scale: float, pad: int) -> np.ndarray:
    """The full-resolution window [x, x + side) x [y, y + side) out of an image at ``scale``, resampled to ``side``."""
    from PIL import Image

    left, top, length = x * scale, y * scale, side * scale
    margin = math.ceil(2 * max(1.0, scale)) + 1  # the bicubic kernel's reach beyond the window
    first_x, first_y = math.floor(left) - margin, math.floor(top) - margin
    around = _window(pixels, first_x, first_y, math.ceil(length) + 1 + 2 * margin, pad)
    box = (left - first_x, top - first_y, left - first_x + length, top - first_y + length)
    return np.asarray(Image.fromarray(around).resize((side, side), Image.Resampling.BICUBIC, box=box))
