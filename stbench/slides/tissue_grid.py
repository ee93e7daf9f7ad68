"""Spots laid over the tissue of an image where none were measured: a grid of a physical pitch, as on an array."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .image import SlideImage
from .on_tissue import tissue

Shape = Literal["hexagonal", "square"]
PIXELS_PER_PITCH, MOST_PIXELS = 8, 2000  # of the picture in which tissue is looked for
DARK = 0.3  # how much of a pixel is tissue, from where it counts: fat and lumina are paler, and are filled
LEAST = 0.5  # share of a spot that lies on tissue
SPECK, HOLE = 4.0, 4.0  # squares of a side of one pitch: smaller tissue is dirt, a smaller hole within it is of it


@dataclass(frozen=True)
class TissueGrid:
    """Places of a grid, row by row."""

    centres: np.ndarray  # (n, 2) float64: x, y in full-resolution pixels
    array_xy: np.ndarray  # (n, 2) int64: column, row from 0; on a hexagonal one every other column, as Visium counts
    on_tissue: bool  # False: the image is not plainly of tissue on glass, and the grid covers all of it


def tissue_grid(image: SlideImage, pitch: float, shape: Shape = "hexagonal") -> TissueGrid:
    """The places of a grid over the whole image that lie on tissue, at least half of a circle of half a pitch.

    ``pitch``, between neighbours, is in full-resolution pixels. The grid begins half a pitch from the upper left
    corner, wherever the tissue lies. It may have no place.
    """
    width, height = image.full_resolution_size
    array_xy, centres = _places(width, height, pitch, shape)
    side = int(np.clip(PIXELS_PER_PITCH * max(width, height) / pitch, 256, MOST_PIXELS))
    stained = tissue(image.thumbnail(side))
    if stained is None:
        return TissueGrid(centres, array_xy, on_tissue=False)
    shrink = stained.shape[1] / width
    mask = _whole_tissue(stained >= DARK, (pitch * shrink) ** 2)
    kept = _share_around(mask, centres * shrink, pitch * shrink / 4) >= LEAST
    array_xy, centres = array_xy[kept], centres[kept]
    if len(array_xy):
        first = array_xy.min(axis=0)
        if shape == "hexagonal":  # column and row stay both even or both odd
            first[0] -= first.sum() % 2
        array_xy = array_xy - first
    return TissueGrid(centres, array_xy, on_tissue=True)


def _places(width: float, height: float, pitch: float, shape: Shape) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) columns and rows, and (n, 2) centres, of all places within the image."""
    step = (pitch / 2, pitch * np.sqrt(0.75)) if shape == "hexagonal" else (pitch, pitch)
    columns, rows = (
        np.arange(max(0, int(np.ceil((side - pitch / 2) / one))))
        for side, one in zip((width, height), step, strict=True)
    )
    row, column = (axis.ravel() for axis in np.meshgrid(rows, columns, indexing="ij"))
    if shape == "hexagonal":
        row, column = row[(row + column) % 2 == 0], column[(row + column) % 2 == 0]
    array_xy = np.column_stack([column, row]).astype(np.int64)
    return array_xy, pitch / 2 + array_xy * np.array(step)


def _whole_tissue(mask: np.ndarray, unit: float) -> np.ndarray:
    """``mask`` without specks, its small holes filled; ``unit`` is the area of a square of one pitch in its pixels."""
    filled = mask | _small(~mask, HOLE * unit)
    return filled & ~_small(filled, SPECK * unit)


def _small(mask: np.ndarray, area: float) -> np.ndarray:
    """The connected parts of a mask that are smaller than ``area``."""
    from scipy.ndimage import label

    numbered, _ = label(mask)
    sizes = np.bincount(numbered.ravel())
    sizes[0] = int(np.ceil(area))  # what is not of the mask
    return np.asarray((sizes < area)[numbered])


def _share_around(mask: np.ndarray, centres: np.ndarray, radius: float) -> np.ndarray:
    """(n,) share of the mask in a square as large as the circle around each centre."""
    from scipy.ndimage import uniform_filter

    share = uniform_filter(mask.astype(np.float64), size=max(1, round(np.sqrt(np.pi) * radius)), mode="constant")
    columns, rows = np.floor(centres).astype(np.int64).T
    return np.asarray(share[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)])
