"""The image of a slide: lazily opened, always RGB with 8 bits, and cut into patches around spots.

Pixel coordinates have their origin at the top left, x to the right and y down, as they are stored: an orientation
tag (EXIF) is not applied, because spot positions refer to the pixels as stored.
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
                    height, width = _tiff_layout(path, series.shape)[1]
                    return width, height
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
                picture.thumbnail((max_side, max_side))  # a JPEG is decoded at a coarser scale, at once
                return np.asarray(picture.convert("RGB"))

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
                    yield _TiledTiff(path, series) if series.keyframe.is_tiled else _tiff_array(path, series)
            elif kind == "openslide":
                with _openslide(path) as slide:
                    yield _OpenSlidePixels(slide)
            else:
                with _picture(path) as picture:
                    yield np.asarray(picture.convert("RGB"))


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
        raise UserError(
            f"{path} cannot be read as an image ({reason}) - it is damaged or cut off: fetch it again"
        ) from error


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
            if picture.mode not in ("RGB", "RGBA", "P", "CMYK", "YCbCr"):
                raise _not_rgb(path, f"mode {picture.mode}")
            yield picture
    finally:
        Image.MAX_IMAGE_PIXELS = limit


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


def _tiff_layout(path: Path, shape: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """Which axis of ``shape`` holds the colours, and (height, width): (y, x, c), (c, y, x), each with leading ones."""
    axes = [axis for axis, length in enumerate(shape) if length != 1]
    lengths = [shape[axis] for axis in axes]
    if len(axes) == 3 and lengths[2] in (3, 4):
        return axes[2], (lengths[0], lengths[1])
    if len(axes) == 3 and lengths[0] in (3, 4):
        return axes[0], (lengths[1], lengths[2])
    raise _not_rgb(path, f"its TIFF axes are {' x '.join(map(str, shape))}, not height x width x 3 or 4")


def _tiff_array(path: Path, series: Any) -> np.ndarray:
    """All pixels of a series or of one level of it: (height, width, 3) uint8."""
    colour_axis, (height, width) = _tiff_layout(path, series.shape)
    pixels = np.moveaxis(series.asarray(), colour_axis, -1).reshape(height, width, -1)[..., :3]
    return _eight_bits(path, pixels, _white_level(path, pixels))


def _white_level(path: Path, pixels: np.ndarray) -> float:
    """The value that stands for white. 16-bit files hold 8, 10, 12, 14 or 16 significant bits: the fewest that fit."""
    if pixels.dtype == np.uint8:
        return 255.0
    highest = float(pixels.max())
    if pixels.dtype == np.uint16:
        return next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
    if pixels.dtype.kind == "f" and float(pixels.min()) >= 0 and highest <= 1:
        return 1.0
    raise _not_rgb(path, f"values of type {pixels.dtype} up to {highest:g}, not 8 or 16 bits")


def _eight_bits(path: Path, pixels: np.ndarray, white: float) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    scaled = np.multiply(pixels, 255.0 / white, dtype=np.float32)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


class _TiledTiff:
    """A tiled TIFF from which windows are read: only the tiles that a window touches are decoded."""

    def __init__(self, path: Path, series: Any) -> None:
        import zarr

        self._path = path
        self._array: Any = zarr.open(series.aszarr(level=0), mode="r")
        self._colour_axis, (height, width) = _tiff_layout(path, series.shape)
        self._row_axis, self._column_axis = [
            axis for axis, length in enumerate(series.shape) if length != 1 and axis != self._colour_axis
        ]
        self.shape = (height, width, 3)
        # the coarsest level is enough to see how many bits are in use
        coarsest = series.levels[-1]
        self._white = 255.0 if series.dtype == np.uint8 else _white_level(path, coarsest.asarray())

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        index: list[int | slice] = [0] * len(self._array.shape)
        index[self._row_axis], index[self._column_axis] = key
        index[self._colour_axis] = slice(0, 3)
        pixels = np.asarray(self._array[tuple(index)])
        if self._colour_axis < self._row_axis:
            pixels = np.moveaxis(pixels, 0, -1)
        return _eight_bits(self._path, pixels, self._white)


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
        white = np.full((bottom - top, right - left, 3), 255, dtype=np.uint8)  # unscanned areas are transparent
        rgba = np.asarray(region)
        return np.where(rgba[..., 3:] > 0, rgba[..., :3], white)


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
