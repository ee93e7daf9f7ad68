"""The part of an image that windows lie on, kept as tiles, and patches that are cut from them when they are asked for.

Where windows overlap, as those of neighbouring bins do, their patches hold each pixel of the image many times. The
tiles hold it once; patches are cut from them by the same arithmetic as from the image, so every byte is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import UserError
from ..system.cores import usable_cores, usable_memory
from .cutting import Patches, Window, cut_windows, extents, in_threads, region_of
from .picture_formats import Pixels

TILE = 256  # pixels of a side
AT_A_TIME = 1024  # patches that are cut at once where all are gone through


@dataclass(frozen=True, eq=False)
class Tiles:
    """Pixels of an image of which only some tiles are there; sliced like an array (height, width, 3) uint8."""

    pixels: np.ndarray  # (n_tiles, TILE, TILE, 3) uint8, may be memory-mapped; what lies beyond the border is zero
    numbers: np.ndarray  # (rows, columns) int32 of the grid of tiles: which one is there; -1: none
    size: tuple[int, int]  # width, height of the image

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.size[1], self.size[0], 3

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        return region_of(key, self.shape[:2], (TILE, TILE), self._tile)

    def _tile(self, row: int, column: int) -> np.ndarray:
        number = int(self.numbers[row, column])
        if number < 0:
            raise IndexError(f"tile {row}, {column} of the image was not kept: no window lay on it")
        return np.asarray(self.pixels[number])


def tile_numbers(corners: np.ndarray, window: Window, scale: tuple[float, float], size: tuple[int, int]) -> np.ndarray:
    """(rows, columns) int32: a number, from 0, for each tile that a window needs; -1 for the others."""
    rows, columns = -(-size[1] // TILE), -(-size[0] // TILE)
    reach = extents(corners, window, scale)
    limits = np.array([size[0], size[1], size[0], size[1]])
    inside = reach.clip(0, limits)
    inside = inside[(inside[:, 0] < inside[:, 2]) & (inside[:, 1] < inside[:, 3])]
    first, last = inside[:, :2] // TILE, (inside[:, 2:] - 1) // TILE
    # how many windows begin and end where, summed over rows and columns: how many lie on each tile
    change = np.zeros((rows + 1, columns + 1), dtype=np.int64)
    np.add.at(change, (first[:, 1], first[:, 0]), 1)
    np.add.at(change, (last[:, 1] + 1, last[:, 0] + 1), 1)
    np.add.at(change, (first[:, 1], last[:, 0] + 1), -1)
    np.add.at(change, (last[:, 1] + 1, first[:, 0]), -1)
    needed = change.cumsum(axis=0).cumsum(axis=1)[:rows, :columns] > 0
    numbers = np.full((rows, columns), -1, dtype=np.int32)
    numbers[needed] = np.arange(int(needed.sum()), dtype=np.int32)
    return numbers


def keep_tiles(pixels: Pixels, numbers: np.ndarray, out: Patches) -> None:
    """Write the tiles that have a number into ``out``, (n_tiles, TILE, TILE, 3) uint8."""
    height, width = pixels.shape[:2]

    def keep(row: int) -> None:
        for column in np.flatnonzero(numbers[row] >= 0):
            y, x = row * TILE, int(column) * TILE
            region = pixels[y : min(y + TILE, height), x : min(x + TILE, width)]
            tile = np.zeros((TILE, TILE, 3), dtype=np.uint8)
            tile[: region.shape[0], : region.shape[1]] = region
            out[int(numbers[row, column])] = tile

    threads = min(usable_cores(), getattr(pixels, "at_a_time", 1))
    in_threads(keep, range(len(numbers)), threads)


@dataclass(frozen=True, eq=False)
class TiledPatches:
    """Patches (n_spots, side, side, 3) uint8 that are cut from tiles when they are asked for.

    It is read like an array that must not be written to: by a spot, a run of spots or an array of spots, which give
    arrays; ``patches[:, a:b, c:d]`` is a part of every patch, and nothing is cut yet. Reading is safe from several
    threads at once.
    """

    tiles: Tiles
    corners: np.ndarray  # (n_spots, 2) float64: x, y of the windows' upper left corners at full resolution
    window: Window
    scale: tuple[float, float]  # pixels of the tiles' image per full-resolution pixel
    pad: int  # what stands beyond the border
    part: tuple[slice, slice] = (slice(None), slice(None))  # rows and columns of each patch

    @property
    def shape(self) -> tuple[int, int, int, int]:
        rows, columns = (len(range(*part.indices(self.window.px))) for part in self.part)
        return len(self.corners), rows, columns, 3

    @property
    def dtype(self) -> np.dtype:
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        return 4

    @property
    def nbytes(self) -> int:
        """Of the patches, were they all cut."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def mapped(self) -> tuple[np.ndarray, ...]:
        """What it is read from, which may be a file: see :mod:`stbench.system.mapped`."""
        return (self.tiles.pixels,)

    def __len__(self) -> int:
        return len(self.corners)

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), AT_A_TIME):
            yield from self._cut(self.corners[start : start + AT_A_TIME])

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, tuple):
            spots, *rest = key
            if len(rest) == 3 and rest[2] == slice(None):
                del rest[2]
            if isinstance(spots, slice) and spots == slice(None) and 1 <= len(rest) <= 2 and self._is_plain(rest):
                inner = [*rest, slice(None)][:2]
                parts = [_within(mine, new, self.window.px) for mine, new in zip(self.part, inner, strict=True)]
                return replace(self, part=(parts[0], parts[1]))
            if spots is Ellipsis or spots is None:
                return np.asarray(self)[key]
            cut = self[spots]
            return cut[tuple(rest)] if isinstance(spots, int | np.integer) else np.asarray(cut)[(slice(None), *rest)]
        if isinstance(key, int | np.integer):
            return self._cut(self.corners[[int(key)]])[0]
        if isinstance(key, slice) and key == slice(None):
            return self
        return np.asarray(self) if key is Ellipsis else self._cut(self.corners[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        free = usable_memory()
        if self.nbytes > free:
            raise UserError(
                f"all {len(self):,} patches at once take {self.nbytes / 2**30:.1f} GiB of memory, and "
                f"{free / 2**30:.1f} GiB are free - read them in pieces: patches[start:stop]"
            )
        return self._cut(self.corners).astype(dtype or np.uint8, copy=False)

    def reordered(self, order: np.ndarray) -> TiledPatches:
        """The same patches, of which spot i has that of spot ``order[i]``; nothing is cut."""
        return replace(self, corners=self.corners[order])

    def _cut(self, corners: np.ndarray) -> np.ndarray:
        px = self.window.px
        cut = np.empty((len(corners), px, px, 3), dtype=np.uint8)
        cut_windows(self.tiles, corners, self.window, self.scale, self.pad, cut)
        return cut[:, self.part[0], self.part[1]]

    @staticmethod
    def _is_plain(parts: list[Any]) -> bool:
        return all(isinstance(part, slice) and part.step in (None, 1) for part in parts)


def _within(outer: slice, inner: slice, length: int) -> slice:
    """``inner`` of what ``outer`` leaves of so many rows, both with a step of one."""
    places = range(length)[outer][inner]
    return slice(places.start, places.stop)


def exchanged(patches: Any, order: np.ndarray) -> Any:
    """``patches[order]``, where it can be without cutting or copying one."""
    return patches.reordered(order) if isinstance(patches, TiledPatches) else patches[order]
