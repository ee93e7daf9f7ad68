"""The image of a slide: lazily opened, always RGB with 8 bits, and cut into patches around spots.

Pixel coordinates have their origin at the top left, x to the right and y down, as they are stored: an orientation
tag (EXIF) is not applied, because spot positions refer to the pixels as stored. So do scanpy, squidpy and tifffile.
Transparent pixels are white.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from ..errors import UserError
from ..system.compressed import existing
from .cutting import SMALL, Patches, Window, crossing, cut_windows, in_small
from .picture_formats import (
    ORIENTATION,
    OpenSlidePixels,
    Pixels,
    in_one_line,
    opened_picture,
    opened_slide,
    picture_array,
    picture_format,
    png_bits,
    remarks,
)
from .tiff import TiffLayout, decodes_to_rgb, opened_tiff, tag_of
from .tiff_regions import level_for, scaled, tiff_pixels

Level = Literal["full", "hires", "lowres"]
OVERVIEW = (
    1000  # pixels of the longer side of a thumbnail; of a large image all smaller ones are made of the same pixels
)
_overviews: dict[tuple[str, int, int, int], np.ndarray] = {}  # by path, size, time of change, and width of the level


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
        picture_format(path)
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
        with in_one_line(path):
            kind = picture_format(path)
            if kind == "tiff":
                with opened_tiff(path) as series:
                    return TiffLayout.of(path, series).size
            if kind == "openslide":
                with opened_slide(path) as slide:
                    return slide.dimensions
            with opened_picture(path) as picture:
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
            return reduced(self.read(), max_side)
        with in_one_line(self.path):
            kind = picture_format(self.path)
            if kind == "tiff":
                with opened_tiff(self.path) as series:
                    coarse = [level for level in series.levels if max(level.shape) >= max_side]
                    pixels = tiff_pixels(self.path, series, coarse[-1] if coarse else series.levels[0])
                    return reduced(self._overview(pixels, max_side), max_side)
            if kind == "openslide":
                with opened_slide(self.path) as slide:
                    return np.asarray(slide.get_thumbnail((max_side, max_side)).convert("RGB"))
            with opened_picture(self.path) as picture:
                if kind == "png":
                    return reduced(picture_array(self.path, picture), max_side)
                picture.thumbnail((max_side, max_side))  # a JPEG is decoded at a coarser scale, at once
                return np.asarray(picture.convert("RGB"))

    def _overview(self, pixels: Pixels, max_side: int) -> np.ndarray:
        """What a thumbnail is made of. Of a large image that has no coarse level it is kept: several are asked for."""
        height, width = pixels.shape[:2]
        if max_side > OVERVIEW or height * width <= SMALL:
            return in_small(pixels, max_side)
        about = cast(Path, self.path).stat()
        stamp = (str(self.path), about.st_size, about.st_mtime_ns, width)
        if stamp not in _overviews:
            _overviews.clear()  # of the last image
            _overviews[stamp] = in_small(pixels, OVERVIEW)
        return _overviews[stamp]

    def remarks(self) -> list[str]:
        """What the file says beyond its pixels that a user should know; reads its header, of 16 bits also the pixels.

        An orientation tag, which is not applied; colours that had to be converted, samples that had to be scaled; a
        colour profile other than sRGB, which is not applied.
        """
        if self.path is None:
            return []
        with in_one_line(self.path):
            kind = picture_format(self.path)
            if kind == "openslide":
                return []
            if kind == "tiff":
                with opened_tiff(self.path) as series:
                    model = TiffLayout.of(self.path, series).colours.model
                    return remarks(
                        tag_of(series.keyframe, "Orientation"),
                        None if model in ("RGB", "palette") or decodes_to_rgb(series.keyframe) else model,
                        tag_of(series.keyframe, "InterColorProfile"),
                    ) + [f"its samples are {text}" for text in scaled(self.path, series)]
            with opened_picture(self.path) as picture:
                converted = "CMYK" if picture.mode == "CMYK" else None
                said = remarks(picture.getexif().get(ORIENTATION), converted, picture.info.get("icc_profile"))
            deep = kind == "png" and png_bits(self.path) == 16
            return [*said, "its samples are of 16 bits: those in use become 8"] if deep else said

    def cut(
        self, centres: np.ndarray, side: int | Window, pad: int = 255, out: Patches | None = None
    ) -> tuple[Any, int]:
        """Cut a square window around every centre: the patches (n, side, side, 3) uint8, and how many were padded.

        ``centres`` is (n, 2) x, y and ``side`` a number of pixels, both at **full resolution**. A window covers
        [floor(c) - side // 2, floor(c) - side // 2 + side) on each axis. Where the image is coarser or finer than full
        resolution the same field of view is cut at the image's scale and resampled (bicubic, antialiased) to ``side``.
        With a :class:`Window` the field of view and the patch have sides of their own; it is resampled once, from the
        coarsest level of a pyramid that is not coarser than the patch. What lies beyond the border is filled with the
        constant ``pad`` (white); such windows are counted. ``out`` may be an array to write into, or what is written to
        like one. A centre outside the image is a ``UserError``.
        """
        centres = np.asarray(centres, dtype=np.float64)
        if centres.ndim != 2 or centres.shape[1] != 2:
            raise ValueError(f"centres must have the shape (n, 2), not {centres.shape}")
        window = side if isinstance(side, Window) else Window.plain(side)
        shape = (len(centres), window.px, window.px, 3)
        patches: Patches = np.empty(shape, dtype=np.uint8) if out is None else out
        if patches.shape != shape or getattr(patches, "dtype", np.uint8) != np.uint8:
            raise ValueError(f"out must be {shape} uint8, not {patches.shape} {getattr(patches, 'dtype', '')}")
        self.require_inside(centres)
        with self.opened(window) as (pixels, scale):
            cut_windows(pixels, window.corners(centres), window, scale, pad, patches)
        return patches, int(self.crossing(centres, window).sum())

    @contextmanager
    def opened(self, window: Window) -> Iterator[tuple[Pixels, tuple[float, float]]]:
        """What windows are cut from, and its pixels per full-resolution pixel of x and y."""
        reduction = window.side * self.scale / window.px if window.resampled else 1.0
        width, height = self.size
        with self._pixels(reduction) as pixels:
            yield pixels, (self.scale * pixels.shape[1] / width, self.scale * pixels.shape[0] / height)

    def outside(self, centres: np.ndarray) -> np.ndarray:
        """(n,) bool: which centres (x, y at full resolution) fall on no pixel of the image; NaN counts as outside."""
        width, height = self.full_resolution_size
        floored = np.floor(np.asarray(centres, dtype=np.float64))
        x, y = floored[:, 0], floored[:, 1]
        return ~((x >= 0) & (y >= 0) & (x < width) & (y < height))

    def crossing(self, centres: np.ndarray, side: int | Window) -> np.ndarray:
        """(n,) bool: the windows of which a part lies beyond the border, so that :meth:`cut` pads them."""
        window = side if isinstance(side, Window) else Window.plain(side)
        return crossing(window.corners(centres), window, self.scale, self.size)

    def margins(self, centres: np.ndarray, side: int | Window) -> np.ndarray:
        """(n, 4) int64: pixels of each patch left of, above, right of and below the image: what :meth:`cut` pads.

        Where it is resampled padding and image blend over a few pixels, and this is their middle.
        """
        window = side if isinstance(side, Window) else Window.plain(side)
        first = window.corners(centres)
        beyond = np.concatenate([-first, first + window.covered - np.array(self.full_resolution_size)], axis=1)
        if window.resampled:
            beyond *= window.px / window.side
        crosses = self.crossing(centres, window)[:, None]
        return np.where(crosses, np.rint(beyond).clip(0, window.px), 0).astype(np.int64)

    def require_inside(self, centres: np.ndarray) -> None:
        """Raise a ``UserError`` for centres (x, y at full resolution) that fall on no pixel of the image."""
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
    def _pixels(self, reduction: float = 1.0) -> Iterator[Pixels]:
        """The pixels: decoded at once where the format leaves no choice, else window by window.

        Of a pyramid the coarsest level that is not more than ``reduction`` times coarser.
        """
        if self.array is not None:
            yield self.array
            return
        path = cast(Path, self.path)
        with ExitStack() as opened:  # what is done with the pixels is none of the file's faults
            with in_one_line(path):
                kind = picture_format(path)
                if kind == "tiff":
                    series = opened.enter_context(opened_tiff(path))
                    pixels = tiff_pixels(path, series, level_for(path, series, reduction))
                elif kind == "openslide":
                    pixels = OpenSlidePixels(path, opened.enter_context(opened_slide(path)), reduction)
                else:
                    with opened_picture(path) as picture:
                        pixels = picture_array(path, picture)
            yield pixels


def _check_scale(scale: float, name: str) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise UserError(f"{name}: the scale {scale} is not a positive number - check the scale factors of the section")


def reduced(array: np.ndarray, max_side: int) -> np.ndarray:
    """A picture with its longer side reduced to ``max_side``; never enlarged."""
    from PIL import Image

    picture = Image.fromarray(array)
    picture.thumbnail((max_side, max_side))
    return np.asarray(picture)
