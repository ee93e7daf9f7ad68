"""Windows around spots, and how they are cut out of an image: in the order of its tiles, several at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..system.cores import usable_cores
from .picture_formats import Pixels

MOST_THREADS = 16
AT_A_TIME = 64  # windows that a thread cuts before it takes the next ones
SMALL = 2**26  # pixels of an image that is read at once where all of it is looked at
BAND = 2**24  # pixels of a larger one that are
WORKING_BYTES = 128 * 2**20  # of the image's pixels between which the windows of a stretch lie


@dataclass(frozen=True)
class Window:
    """A square around a spot: ``side`` full-resolution pixels, which become a patch of ``px`` pixels.

    A window that is as large as its patch, but for less than half a pixel, is cut as it is: nothing is resampled.
    """

    side: float
    px: int

    def __post_init__(self) -> None:
        if self.px < 1 or not (math.isfinite(self.side) and self.side > 0):
            raise ValueError(f"a window must have at least one pixel, not {self}")

    @classmethod
    def plain(cls, side: int) -> Window:
        """The window whose pixels are those of its patch."""
        return cls(float(side), side)

    @property
    def resampled(self) -> bool:
        return abs(self.side - self.px) >= 0.5

    @property
    def covered(self) -> float:
        """Full-resolution pixels that a side of it covers."""
        return self.side if self.resampled else self.px

    def corners(self, centres: np.ndarray) -> np.ndarray:
        """(n, 2) x, y of the windows' upper left corners: the pixel of the centre is the middle one, of an even number
        of pixels the one after the middle."""
        floored = np.floor(np.asarray(centres, dtype=np.float64))
        return floored - (self.side / 2 if self.resampled else self.px // 2)


class Patches(Protocol):
    """What patches are written into: an array, or a file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __setitem__(self, index: int, patch: np.ndarray, /) -> None: ...


def cut_windows(
    pixels: Pixels, corners: np.ndarray, window: Window, scale: tuple[float, float], pad: int, out: Patches
) -> None:
    """Cut the windows at ``corners`` into ``out``, which holds the same whatever the order and number of threads.

    ``scale`` is pixels of ``pixels`` per full-resolution pixel, of x and y. What is beyond the border becomes ``pad``.
    """
    resampled = window.resampled or scale != (1.0, 1.0)

    def cut(indices: np.ndarray) -> None:
        for i in indices:
            x, y = corners[i]
            if resampled:
                out[i] = _resampled_window(pixels, x, y, window, scale, pad)
            else:
                out[i] = _window(pixels, int(x), int(y), window.px, window.px, pad)

    order = _in_order(pixels, corners, window, scale)
    copied = isinstance(pixels, np.ndarray) and not resampled
    if copied or len(corners) <= AT_A_TIME:
        cut(order)
        return
    threads = min(usable_cores(), MOST_THREADS, getattr(pixels, "at_a_time", MOST_THREADS))
    in_threads(cut, np.split(order, range(AT_A_TIME, len(order), AT_A_TIME)), threads)


def in_threads(work: Callable[[Any], Any], pieces: Iterable[Any], threads: int) -> list[Any]:
    """``work`` of each piece, several at once, in the order of the pieces; what one of them raises is raised here."""
    with ThreadPoolExecutor(threads, thread_name_prefix="pixels") as pool:
        return list(pool.map(work, pieces))


def region_of(
    key: tuple[slice, slice], size: tuple[int, int], cell: tuple[int, int], pixels_of: Callable[[int, int], np.ndarray]
) -> np.ndarray:
    """(rows, columns, 3) uint8 of an image of ``size`` (height, width) that lies in a grid of cells (height, width).

    ``key`` are slices with a step of one. ``pixels_of`` gives the pixels of the cell in a row and column of the grid;
    those in the last ones may be smaller, or reach beyond the image.
    """
    (top, bottom, _), (left, right, _) = (part.indices(length) for part, length in zip(key, size, strict=True))
    region = np.empty((max(0, bottom - top), max(0, right - left), 3), dtype=np.uint8)
    for row in range(top // cell[0], math.ceil(bottom / cell[0])):
        for column in range(left // cell[1], math.ceil(right / cell[1])):
            pixels = pixels_of(row, column)
            y, x = row * cell[0], column * cell[1]
            first_y, last_y = max(top, y), min(bottom, y + pixels.shape[0])
            first_x, last_x = max(left, x), min(right, x + pixels.shape[1])
            region[first_y - top : last_y - top, first_x - left : last_x - left] = pixels[
                first_y - y : last_y - y, first_x - x : last_x - x
            ]
    return region


def extents(corners: np.ndarray, window: Window, scale: tuple[float, float]) -> np.ndarray:
    """(n, 4) int64: first column, first row, and those after the last, of what each window needs of the pixels.

    They may lie beyond the border. What a kernel reaches around a window that is resampled is among them.
    """
    if not (window.resampled or scale != (1.0, 1.0)):
        first = corners.astype(np.int64)
        return np.concatenate([first, first + window.px], axis=1)
    sides = [_around(0.0, window.covered * factor, window.px) for factor in scale]
    first = np.floor(corners * np.array(scale)).astype(np.int64) + np.array([side[0] for side in sides])
    return np.concatenate([first, first + np.array([side[2] for side in sides])], axis=1)


def _in_order(pixels: Any, corners: np.ndarray, window: Window, scale: tuple[float, float]) -> np.ndarray:
    """The windows in such an order that a tile is decoded once: by stretches of columns, down each, tile by tile."""
    if not hasattr(pixels, "cell_height"):
        return np.arange(len(corners))
    x, y = corners[:, 0] * scale[0], corners[:, 1] * scale[1]
    reach = window.covered * max(scale)
    stretch = max(WORKING_BYTES / 3 / (2 * pixels.cell_height + reach), pixels.cell_width, reach)
    return np.lexsort((x, y // pixels.cell_height, x // stretch))


def crossing(corners: np.ndarray, window: Window, scale: float, size: tuple[int, int]) -> np.ndarray:
    """(n,) bool: the windows of which a part lies beyond the border of an image of ``size`` (width, height)."""
    first, last = corners * scale, (corners + window.covered) * scale
    # a coarse image's last pixel stands for a rounded number of full-resolution pixels; 1e-6 allows for arithmetic
    return np.any((first < 0) | (last > np.array(size) + 1e-6), axis=1)


def _window(pixels: Pixels, x: int, y: int, width: int, height: int, pad: int) -> np.ndarray:
    """The pixels [y, y + height) x [x, x + width); those beyond the border have the value ``pad``."""
    image_height, image_width = pixels.shape[:2]
    left, right = max(x, 0), min(x + width, image_width)
    top, bottom = max(y, 0), min(y + height, image_height)
    if (left, top, right, bottom) == (x, y, x + width, y + height):
        return pixels[top:bottom, left:right]
    window = np.full((height, width, 3), pad, dtype=np.uint8)
    if left < right and top < bottom:
        window[top - y : bottom - y, left - x : right - x] = pixels[top:bottom, left:right]
    return window


def _resampled_window(
    pixels: Pixels, x: float, y: float, window: Window, scale: tuple[float, float], pad: int
) -> np.ndarray:
    """The window at the full-resolution corner x, y, resampled to its patch (bicubic, antialiased)."""
    from PIL import Image

    side, px = window.covered, window.px
    (first_x, left, width), (first_y, top, height) = (
        _around(corner * factor, side * factor, px) for corner, factor in zip((x, y), scale, strict=True)
    )
    around = _window(pixels, first_x, first_y, width, height, pad)
    box = (left, top, left + side * scale[0], top + side * scale[1])
    return np.asarray(Image.fromarray(around).resize((px, px), Image.Resampling.BICUBIC, box=box))


def _around(start: float, length: float, px: int) -> tuple[int, float, int]:
    """First pixel, where the window starts after it, and number of pixels, with what the kernel reaches beyond it."""
    margin = math.ceil(2 * max(1.0, length / px)) + 1
    first = math.floor(start) - margin
    return first, start - first, math.ceil(length) + 1 + 2 * margin


def in_small(pixels: Pixels, max_side: int) -> np.ndarray:
    """The whole image; a large lazy one reduced by a whole number, its longer side still twice ``max_side`` or more.

    It is read in bands, several at once, so that little more than the reduced image is held.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    factor = max(height, width) // (2 * max_side)
    if isinstance(pixels, np.ndarray) or factor < 2 or height * width <= SMALL:
        return np.ascontiguousarray(pixels[:, :])
    rows = factor * max(1, BAND // (width * factor))

    def reduced(top: int) -> np.ndarray:
        return np.asarray(Image.fromarray(pixels[top : min(top + rows, height), :]).reduce(factor))

    threads = min(usable_cores(), 4, getattr(pixels, "at_a_time", 1))
    return np.concatenate(in_threads(reduced, range(0, height, rows), threads))
