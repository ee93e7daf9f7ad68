"""Regions of TIFF pictures, of any size: only the tiles or strips that a region touches are read and decoded.

tifffile finds them and decodes them one by one. Those that were decoded last are kept as RGB, within bounds, so that
windows that lie side by side do not decode the same tile again. Reading is safe from several threads at once.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .cutting import region_of
from .picture_formats import Pixels, in_one_line, require_room
from .tiff import TiffLayout, libtiff_array, needs_libtiff, white_levels

KEPT_BYTES = 256 * 2**20  # of decoded tiles, as RGB
ROWS_BYTES = 4 * 2**20  # of rows that are read at once where pixels lie in the file as they are

Cell = tuple[int, int]  # row and column of a tile within the grid of tiles; of strips the column is 0


class Samples(Protocol):
    """A grid of rectangles that together are the picture, and what the file holds of each."""

    cell_height: int
    cell_width: int

    def read(self, cell: Cell) -> np.ndarray | None:
        """(height, width, samples) of one rectangle; ``None`` where the file leaves it out."""
        ...


class EncodedSegments:
    """Tiles or strips as tifffile decodes them; the samples of a pixel may lie in segments or pages of their own."""

    def __init__(self, pages: list[Any], layout: TiffLayout) -> None:
        page = pages[0].keyframe
        width, height = layout.size
        self._size = layout.size
        self._lock = threading.Lock()  # of the file's position; tifffile's own is none unless it is asked for
        self.cell_height = min(page.tilelength if page.is_tiled else page.rowsperstrip, height)
        self.cell_width = page.tilewidth if page.is_tiled else width
        self._columns = math.ceil(width / self.cell_width)
        self._n_cells = self._columns * math.ceil(height / self.cell_height)
        n = layout.colours.n_samples
        if len(pages) > 1:  # a page for each colour
            self._parts = [(each, 0) for each in pages[:n]]
        elif page.planarconfig == 2:
            self._parts = [(pages[0], plane * self._n_cells) for plane in range(n)]
        else:
            self._parts = [(pages[0], 0)]

    def read(self, cell: Cell) -> np.ndarray | None:
        parts = [self._segment(page, first, cell) for page, first in self._parts]
        present = [part for part in parts if part is not None]
        if not present:
            return None
        # a colour that is left out where others are not is zero, as tifffile has it
        whole = [np.zeros_like(present[0]) if part is None else part for part in parts]
        return whole[0] if len(whole) == 1 else np.concatenate(whole, axis=-1)

    def _segment(self, page: Any, first: int, cell: Cell) -> np.ndarray | None:
        index = first + cell[0] * self._columns + cell[1]
        file = page.parent.filehandle
        count = page.databytecounts[index]
        if count == 0:
            return None
        with self._lock:
            file.seek(page.dataoffsets[index])
            data = file.read(count)
        tables = {}
        if page.keyframe.compression in (6, 7, 34892, 33007):  # JPEG, whose tables stand once for all segments
            tables = {"jpegtables": page.jpegtables, "jpegheader": page.keyframe.jpegheader}
        decoded = page.keyframe.decode(data, index, **tables)[0]
        if decoded is None:
            return None
        height = min(self.cell_height, self._size[1] - cell[0] * self.cell_height)
        width = min(self.cell_width, self._size[0] - cell[1] * self.cell_width)
        return decoded[0, :height, :width]


class StoredRows:
    """Rows of a picture whose samples lie in the file one after the other, as they are."""

    def __init__(self, series: Any, layout: TiffLayout) -> None:
        self._file = series.keyframe.parent.filehandle
        self._dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
        self._offset, self._size = series.dataoffset, layout.size
        self._lock = threading.Lock()  # of the file's position
        stored = 1 if layout.samples is None else series.shape[layout.samples]
        self._planar = layout.samples is not None and layout.samples < layout.rows
        self._per_row = layout.size[0] * (1 if self._planar else stored)
        self._planes = stored if self._planar else 1
        self.cell_width = layout.size[0]
        row_bytes = self._per_row * self._planes * self._dtype.itemsize
        self.cell_height = min(layout.size[1], max(1, ROWS_BYTES // row_bytes))

    def read(self, cell: Cell) -> np.ndarray:
        width, height = self._size
        top = cell[0] * self.cell_height
        n_rows = min(self.cell_height, height - top)
        parts = []
        for plane in range(self._planes):
            start = self._offset + (plane * height + top) * self._per_row * self._dtype.itemsize
            with self._lock:
                self._file.seek(start)
                data = self._file.read(n_rows * self._per_row * self._dtype.itemsize)
            samples = np.frombuffer(data, self._dtype).astype(self._dtype.newbyteorder("="), copy=False)
            parts.append(samples.reshape(n_rows, width, -1))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


def samples_of(series: Any, layout: TiffLayout) -> Samples | None:
    """How a series, or a level of it, is read piece by piece; ``None``: it can only be read as a whole."""
    page = series.keyframe
    if page.imagedepth != 1 or layout.columns < layout.rows:
        return None
    if series.dataoffset is not None:
        return StoredRows(series, layout)
    pages = [each for each in series.pages if each is not None]
    if len(pages) == 1:
        return EncodedSegments(pages, layout)
    # a page for each colour: nothing else is on more than one page
    planes = layout.samples is not None and page.samplesperpixel == 1 and len(pages) == series.shape[layout.samples]
    same = (page.imagewidth, page.imagelength) == layout.size
    return EncodedSegments(pages, layout) if planes and same else None


def tiff_pixels(path: Path, series: Any, level: Any = None) -> Pixels:
    """The pixels of the first series of a TIFF, or of one level of its pyramid, region by region where that goes."""
    level = series if level is None else level
    layout = TiffLayout.of(path, level)
    width, height = layout.size
    if needs_libtiff(level.keyframe):
        require_room(path, layout.size, 8 * width * height, "whose colours are subsampled without JPEG")
        return libtiff_array(path, level.keyframe)
    white = _white(path, series, layout)
    samples = samples_of(level, layout)
    if samples is not None:
        return TiffRegions(path, layout, samples, white)
    require_room(path, layout.size, 2 * level.nbytes, f"with axes {level.axes} over {len(level.pages)} pages")
    return layout.rgb(layout.last(level.asarray()), white)


def level_for(path: Path, series: Any, reduction: float) -> Any:
    """The coarsest level of the pyramid that is not more than ``reduction`` times coarser than the finest."""
    if reduction <= 1:
        return series.levels[0]
    widths = [TiffLayout.of(path, level).size[0] for level in series.levels]
    # levels' sizes are rounded: half a per cent is no coarser level
    fine = [level for level, width in zip(series.levels, widths, strict=True) if widths[0] <= 1.005 * reduction * width]
    return fine[-1]


def scaled(path: Path, series: Any) -> list[str]:
    """How samples of more than 8 bits become 8, in words; nothing is said of others."""
    layout = TiffLayout.of(path, series)
    if series.dtype == np.uint8 or layout.colours.model == "palette":
        return []
    white = _white(path, series, layout)[0]
    kind = f"of 16 bits, {round(math.log2(white + 1))} of them in use" if white > 1 else "fractions"
    return [f"{kind}: {white:g} becomes 255"]


def _white(path: Path, series: Any, layout: TiffLayout) -> tuple[float, float]:
    if series.dtype == np.uint8 or layout.colours.model == "palette":
        return 255.0, 255.0
    about = path.stat()
    stamp = (str(path), about.st_size, about.st_mtime_ns)
    if stamp not in _WHITE:  # without a pyramid all pixels are looked at: once in a process
        _WHITE[stamp] = _white_of(path, series.levels[-1], layout)
    return _WHITE[stamp]


_WHITE: dict[tuple[str, int, int], tuple[float, float]] = {}  # by path, size and time of change


def _white_of(path: Path, coarse: Any, layout: TiffLayout) -> tuple[float, float]:
    """From the coarsest level, which is enough to see how many bits are in use."""
    coarse_layout = TiffLayout.of(path, coarse)
    samples = samples_of(coarse, coarse_layout)
    if samples is None:
        return white_levels(path, layout.colours, [coarse_layout.last(coarse.asarray())])
    pieces = (samples.read(cell) for cell in _cells(samples, coarse_layout))
    return white_levels(path, layout.colours, (piece for piece in pieces if piece is not None))


def _cells(samples: Samples, layout: TiffLayout) -> Iterator[Cell]:
    width, height = layout.size
    for row in range(math.ceil(height / samples.cell_height)):
        for column in range(math.ceil(width / samples.cell_width)):
            yield row, column


@dataclass
class _Kept:
    """A decoded tile, or one that a thread is decoding."""

    pixels: Future[np.ndarray]
    n_bytes: int


class TiffRegions:
    """Sliced like an array (height, width, 3) uint8 RGB; both slices have a step of one."""

    def __init__(self, path: Path, layout: TiffLayout, samples: Samples, white: tuple[float, float]) -> None:
        self._path, self._layout, self._samples, self._white = path, layout, samples, white
        width, height = layout.size
        self.shape = (height, width, 3)
        self.cell_height, self.cell_width = samples.cell_height, samples.cell_width
        self._kept: OrderedDict[Cell, _Kept] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()
        n_bytes = self.cell_height * self.cell_width * 3
        self.at_a_time = max(1, KEPT_BYTES // (4 * n_bytes))  # threads that may decode; each holds several copies
        if n_bytes > KEPT_BYTES // 2:
            pieces = min(3, math.ceil(height / self.cell_height))
            how = f"in strips of {self.cell_height:,} rows" if pieces > 1 else "compressed as one strip"
            require_room(path, layout.size, 2 * pieces * n_bytes, how)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        with in_one_line(self._path):
            return region_of(key, self.shape[:2], (self.cell_height, self.cell_width), self._cell)

    def _cell(self, row: int, column: int) -> np.ndarray:
        """The pixels of a tile; of several threads that want the same one, one decodes it and the others wait."""
        cell = row, column
        with self._lock:
            kept = self._kept.get(cell)
            if kept is not None:
                self._kept.move_to_end(cell)
            else:
                mine = self._kept[cell] = _Kept(Future(), 3 * self.cell_height * self.cell_width)
                self._n_bytes += mine.n_bytes
                while self._n_bytes > KEPT_BYTES and len(self._kept) > 2:  # a window may lie across two strips
                    self._n_bytes -= self._kept.popitem(last=False)[1].n_bytes
        if kept is not None:
            return kept.pixels.result()
        try:
            mine.pixels.set_result(self._decoded(cell))
        except BaseException as error:
            mine.pixels.set_exception(error)
            raise
        return mine.pixels.result()

    def _decoded(self, cell: Cell) -> np.ndarray:
        samples = self._samples.read(cell)
        if samples is None:  # not scanned: white, as glass
            height = min(self.cell_height, self.shape[0] - cell[0] * self.cell_height)
            width = min(self.cell_width, self.shape[1] - cell[1] * self.cell_width)
            return np.full((height, width, 3), 255, dtype=np.uint8)
        return self._layout.rgb(samples, self._white)
