"""An image of a store, read chunk by chunk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.slides.colour import Colours, not_rgb
from stbench.slides.cutting import in_small
from stbench.slides.image import Level, SlideImage
from stbench.slides.picture_formats import Pixels
from stbench.slides.tiff import TiffLayout, white_levels
from stbench.slides.tiff_regions import TiffRegions


@dataclass(frozen=True, eq=False)
class StoreImage(SlideImage):
    """The image element in ``folder``; its finest level is the image, coarser ones serve windows that are reduced.

    ``channels`` are those that hold red, green and blue, in this order.
    """

    level: Level = "full"
    folder: Path = Path()
    channels: tuple[int, int, int] = (0, 1, 2)

    @property
    def name(self) -> str:
        return str(self.folder)

    @cached_property
    def _levels(self) -> tuple[Any, ...]:
        """Arrays (channel, row, column), the finest first."""
        import zarr

        try:
            group: Any = zarr.open_group(self.folder, mode="r")
            attributes = dict(group.attrs)
            described = attributes.get("ome", attributes)["multiscales"][0]
            axes = "".join(axis["name"] for axis in described["axes"])
            arrays = tuple(group[dataset["path"]] for dataset in described["datasets"])
        except (OSError, KeyError, ValueError, TypeError, IndexError) as error:
            raise UserError(
                f"{self.folder} is not an image of a store ({reason_of(error)}) - write it again"
            ) from error
        if axes != "cyx" or not arrays or any(array.ndim != 3 for array in arrays):
            raise UserError(f"{self.folder} has the axes {axes}, not channel, row and column - write it again")
        return arrays

    @property
    def size(self) -> tuple[int, int]:
        height, width = self._levels[0].shape[1:]
        return int(width), int(height)

    def thumbnail(self, max_side: int = 1000) -> np.ndarray:
        from PIL import Image

        with self._pixels(max(1.0, max(self.size) / max_side)) as pixels:
            picture = Image.fromarray(in_small(pixels, max_side))
        picture.thumbnail((max_side, max_side))
        return np.asarray(picture)

    def remarks(self) -> list[str]:
        kind = self._levels[0].dtype
        return [] if kind == np.uint8 else [f"its samples are {kind}: {self._white[0]:g} becomes 255"]

    @contextmanager
    def _pixels(self, reduction: float = 1.0) -> Iterator[Pixels]:
        width = self.size[0]
        # levels' sizes are rounded: half a per cent is no coarser level
        fine = [array for array in self._levels if width <= 1.005 * max(reduction, 1.0) * array.shape[2]]
        array = (fine or list(self._levels[:1]))[-1]
        try:
            yield TiffRegions(self.folder, _layout(array), _Chunks(array, self.channels), self._white)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.folder} cannot be read ({reason_of(error)}) - write it again") from error

    @cached_property
    def _white(self) -> tuple[float, float]:
        """The values that stand for white and opaque: of the coarsest level, which is enough to see them."""
        array = self._levels[-1]
        if array.dtype.kind not in "uf":
            raise not_rgb(self.folder, f"values of type {array.dtype}")
        chunks = _Chunks(array, self.channels)
        return white_levels(self.folder, Colours(), (chunks.read(cell) for cell in chunks.cells()))


def _layout(array: Any) -> TiffLayout:
    """Of pixels as :class:`_Chunks` hands them out."""
    return TiffLayout(0, 1, 2, (int(array.shape[2]), int(array.shape[1])), Colours())


class _Chunks:
    """The chunks of an array (channel, row, column) as rectangles (height, width, 3)."""

    def __init__(self, array: Any, channels: tuple[int, int, int]) -> None:
        self._array, self._channels = array, channels
        chunk = getattr(array, "shards", None) or array.chunks
        self.cell_height, self.cell_width = int(chunk[1]), int(chunk[2])

    def cells(self) -> Iterator[tuple[int, int]]:
        _, height, width = self._array.shape
        for row in range(-(-height // self.cell_height)):
            for column in range(-(-width // self.cell_width)):
                yield row, column

    def read(self, cell: tuple[int, int]) -> np.ndarray:
        top, left = cell[0] * self.cell_height, cell[1] * self.cell_width
        samples = self._array[:, top : top + self.cell_height, left : left + self.cell_width]
        return np.moveaxis(np.asarray(samples)[list(self._channels)], 0, -1)
