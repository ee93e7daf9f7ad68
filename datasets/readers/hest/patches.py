"""The patches of a sample as an image, for collections without whole-slide images (the HEST benchmark).

``img`` (n, 224, 224, 3) at 0.5 µm/px, ``coords`` (n, 2) their upper left corners in full-resolution pixels, and
``barcode`` (n, 1), which spot each is around: in an order of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.slides.cutting import Window, in_small
from stbench.slides.evidence import NOTHING
from stbench.slides.image import Level, SlideImage, reduced
from stbench.slides.picture_formats import Pixels
from stbench.slides.slide import Slide

from ..assemble import unmatched
from ..h5ad.file import open_hdf5

EDGE = 16  # pixels around a patch that are taken to be as its border is, for the kernel of resampling
TOLERANCE = 1.5  # full-resolution pixels between a spot and the middle of its patch
BARCODES = ("barcode", "barcodes")  # of the writer, of the benchmark


@dataclass(frozen=True, eq=False)
class PatchImage(SlideImage):
    """Patches where they lie on the slide, white between them; windows up to the size of a patch can be cut.

    ``corners`` (n, 2) int64 are in pixels of the patches, of which there are ``scale`` to a full-resolution pixel.
    """

    level: Level = "full"
    file: Path = Path()
    corners: np.ndarray = field(default_factory=lambda: np.empty((0, 2), dtype=np.int64))
    side: int = 0
    extent: tuple[int, int] = (0, 0)  # width, height

    @property
    def name(self) -> str:
        return str(self.file)

    @property
    def size(self) -> tuple[int, int]:
        return self.extent

    def thumbnail(self, max_side: int = 1000) -> np.ndarray:
        with self._pixels() as pixels:
            return reduced(in_small(pixels, max_side), max_side)

    def remarks(self) -> list[str]:
        return []

    @contextmanager
    def opened(self, window: Window) -> Iterator[tuple[Pixels, tuple[float, float]]]:
        if window.covered * self.scale > self.side + 2 * TOLERANCE:
            raise UserError(
                f"a window of {window.covered:.4g} full-resolution pixels is larger than the patches of {self.file} "
                f"({self.side / self.scale:.4g} px) - choose smaller windows (--patch-um 112), or fetch the "
                "whole-slide image (wsis/)"
            )
        with super().opened(window) as opened:
            yield opened

    @contextmanager
    def _pixels(self, reduction: float = 1.0) -> Iterator[Pixels]:
        with open_hdf5(self.file) as file:
            yield _Mosaic(file["img"], self.corners, self.side, self.extent)


class _Mosaic:
    """Sliced like an array (height, width, 3) uint8; of a region the patch in its middle lies on top."""

    at_a_time = 1  # HDF5 is read by one thread at a time

    def __init__(self, images: Any, corners: np.ndarray, side: int, extent: tuple[int, int]) -> None:
        self._images, self._corners, self._side = images, corners, side
        self.shape = (extent[1], extent[0], 3)

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import cKDTree

        return cKDTree(self._corners + self._side / 2)

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        top, bottom, _ = key[0].indices(self.shape[0])
        left, right, _ = key[1].indices(self.shape[1])
        _, own = self._tree.query([(left + right) / 2, (top + bottom) / 2])
        x, y = self._corners[own]
        reach = self._side + EDGE
        if x - EDGE <= left and y - EDGE <= top and right <= x + reach and bottom <= y + reach:
            framed = np.pad(self._images[own], ((EDGE, EDGE), (EDGE, EDGE), (0, 0)), mode="edge")
            return framed[top - y + EDGE : bottom - y + EDGE, left - x + EDGE : right - x + EDGE]
        region = np.full((bottom - top, right - left, 3), 255, dtype=np.uint8)
        first = self._corners - (left, top)
        touching = np.flatnonzero(
            (first + self._side > 0).all(axis=1) & (first < (right - left, bottom - top)).all(axis=1)
        )
        for patch in touching:
            x, y = first[patch]
            rows, columns = (slice(max(start, 0), start + self._side) for start in (y, x))
            part = region[rows, columns]
            inside = self._images[patch][max(-y, 0) :, max(-x, 0) :]
            part[...] = inside[: part.shape[0], : part.shape[1]]
        return region


@dataclass(frozen=True)
class PatchFile:
    """What a file says of its patches: ``corners`` (n, 2) float64 in full-resolution pixels, ``side`` in their own."""

    path: Path
    names: list[str]  # barcodes
    corners: np.ndarray
    side: int

    def image(self, spot_ids: Sequence[str], centres: np.ndarray, extent: tuple[float, float] | None) -> PatchImage:
        """The patches as an image of the size ``extent``, in full-resolution pixels; they show how large they are.

        Raises ``UserError`` where patches and spots do not belong together.
        """
        row = {name: position for position, name in enumerate(self.names)}
        kept = [spot for spot, name in enumerate(spot_ids) if name in row]
        if not kept:
            ours, theirs = unmatched(spot_ids, self.names)
            raise UserError(
                f"none of the {len(spot_ids)} spots has a patch in {self.path} ({ours} there, {theirs} here) - the two "
                "files do not belong together"
            )
        halves = centres[kept] - self.corners[[row[spot_ids[spot]] for spot in kept]]
        near = np.abs(halves - np.median(halves)) <= TOLERANCE  # corners are whole pixels: their mean is finer
        half = float(halves[near].mean()) if near.any() else 0.0
        if not half > 0 or 2 * near.sum() < near.size:
            raise UserError(
                f"the patches of {self.path} do not lie around the spots of their barcodes - the two files do not "
                "belong together"
            )
        scale = self.side / (2 * half)
        full = self.corners.max(axis=0) + 2 * half if extent is None else np.array(extent)
        width, height = (int(length) for length in np.rint(full * scale))
        return PatchImage(
            scale=scale,
            file=self.path,
            corners=np.rint(self.corners * scale).astype(np.int64),
            side=self.side,
            extent=(width, height),
        )

    def restricted(self, slide: Slide) -> Slide:
        """``slide`` with the spots that have a patch, and what is to be said of that."""
        known = set(self.names)
        kept = [spot for spot, name in enumerate(slide.spot_ids) if name in known]
        notes = [
            f"windows are cut from its patches ({self.path.name}), as there is no whole-slide image: none of more than "
            f"{self.side / slide.image.scale:.4g} full-resolution pixels can be cut"
        ]
        if len(kept) < slide.n_spots:
            notes.append(f"{slide.n_spots - len(kept)} of {slide.n_spots} spots have no patch and are left out")
        told = tuple(f"{slide.id}: {note}" for note in notes)
        # small pictures show what lies between the patches, too, and would seem to be of another section
        return replace(slide, adata=slide.adata[kept].copy(), notes=(*slide.notes, *told), evidence=NOTHING)


def read_patches(path: Path) -> PatchFile:
    """All but the pixels. Raises ``UserError``."""
    with open_hdf5(path) as file:
        try:
            images, corners = file["img"], np.asarray(file["coords"][...], dtype=np.float64)
            barcodes = next((file[name] for name in BARCODES if name in file), None)
            if barcodes is None:
                raise KeyError("neither barcode nor barcodes is in it")
            names = [name.decode() if isinstance(name, bytes) else str(name) for name in np.ravel(barcodes[...])]
            shape, kind = images.shape, images.dtype
        except (KeyError, ValueError, TypeError, OSError, AttributeError) as error:
            raise UserError(f"{path} does not hold patches ({reason_of(error)}) - fetch it again") from error
    sound = (
        len(shape) == 4 and shape[1] == shape[2] and shape[3] == 3 and kind == np.uint8 and shape[1] > 1
        and corners.shape == (len(names), 2) == (shape[0], 2) and bool(np.isfinite(corners).all())
    )  # fmt: skip
    if not sound:
        raise UserError(
            f"{path} holds images {shape} {kind}, corners {corners.shape} and {len(names)} barcodes, not (n, side, "
            "side, 3) uint8, (n, 2) and n - fetch it again"
        )
    if len(set(names)) < len(names):
        raise UserError(f"{path} has more than one patch of a barcode - fetch it again")
    return PatchFile(path, names, corners, int(shape[1]))
