"""The registration of the H&E image: from µm on the instrument to pixels of the H&E image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from stbench.errors import UserError
from stbench.slides.image import SlideImage
from stbench.slides.pixel_size import StatedPixelSize
from stbench.system.compressed import existing, open_text

FORM = "three rows of three numbers, as Xenium Explorer writes ..._imagealignment.csv"
UNEVEN, IMPOSSIBLE = 1.05, 2.0  # how many times as long a pixel's one side may be as its other: said, refused
AGREE = 1.05  # pixel sizes that differ by less are the same
FEW, MOST = 0.1, 0.5  # shares of the cells that lie on the image


@dataclass(frozen=True, eq=False)
class Alignment:
    """``to_dapi`` (3, 3) takes (column, row, 1) of the H&E image to those of the DAPI image of ``dapi_um`` µm/px."""

    to_dapi: np.ndarray
    dapi_um: float

    @property
    def um_per_px(self) -> float:
        """The side of an H&E pixel in µm; of the square of the same area where the two sides differ."""
        return float(np.sqrt(abs(np.linalg.det(self.to_dapi[:2, :2]))) * self.dapi_um)

    def __str__(self) -> str:
        linear = self.to_dapi[:2, :2] @ np.diag([np.sign(np.linalg.det(self.to_dapi[:2, :2])), 1.0])
        turn = float(np.degrees(np.arctan2(linear[1, 0] - linear[0, 1], linear[0, 0] + linear[1, 1])))
        mirrored = np.linalg.det(self.to_dapi[:2, :2]) < 0
        return (
            f"the alignment takes H&E pixels of {self.um_per_px:.4g} µm to DAPI pixels of {self.dapi_um:.4g} µm, "
            f"{'mirrors the H&E image left to right and ' if mirrored else ''}turns it by {turn + 0.0:.0f}°"
        )

    @property
    def unevenness(self) -> float:
        """How many times as far an H&E pixel reaches in one direction as in any other; 1: it is square."""
        lengths = np.linalg.svd(self.to_dapi[:2, :2], compute_uv=False)
        return float(lengths[0] / lengths[1])

    @property
    def reversed(self) -> Alignment:
        """What the same matrix says if it was written from DAPI to H&E pixels."""
        return Alignment(np.linalg.inv(self.to_dapi), self.dapi_um)

    @cached_property
    def _to_he(self) -> np.ndarray:
        return np.linalg.inv(self.to_dapi)

    def he_pixels(self, um: np.ndarray) -> np.ndarray:
        """Pixels (n, 2), x and y, of the H&E image for positions ``um`` (n, 2), x and y in µm."""
        return (um / self.dapi_um) @ self._to_he[:2, :2].T + self._to_he[:2, 2]


def read_alignment(path: Path, dapi_um: float) -> Alignment:
    """The matrix in ``path``. Raises ``UserError`` unless it is one of a plane onto another."""
    with open_text(existing(path)) as text:
        rows = [re.split(r"[,;\s]+", line.strip().strip(",;")) for line in text if line.strip()]
    if rows and "fixedx" in {field.strip('"').lower() for field in rows[0]}:
        raise UserError(f"{path} lists the landmarks, not the matrix - give the file of {FORM}")
    try:
        matrix = np.array([[float(field.strip('"')) for field in row] for row in rows], dtype=np.float64)
    except ValueError as error:  # words, or rows of different lengths
        raise UserError(f"{path} is not a matrix of numbers - give {FORM}") from error
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        form = f"{matrix.shape} numbers" if matrix.shape != (3, 3) else "numbers that are missing or infinite"
        raise UserError(f"{path} holds {form} - give {FORM}")
    if not np.allclose(matrix[2], [0, 0, 1], atol=1e-9):
        last = ", ".join(f"{value:g}" for value in matrix[2])
        raise UserError(f"{path}: the last row of the matrix is {last}, not 0, 0, 1 - give {FORM}")
    lengths = np.linalg.svd(matrix[:2, :2], compute_uv=False)
    if not lengths[1] > 1e-6 * lengths[0]:
        raise UserError(f"{path} maps the whole image onto a line or a point (the matrix is singular) - give {FORM}")
    if not 1e-3 < lengths[0] < 1e3 or lengths[0] > IMPOSSIBLE * lengths[1]:
        raise UserError(
            f"{path} makes pixels of the H&E image {lengths[0] * dapi_um:.4g} by {lengths[1] * dapi_um:.4g} µm large, "
            f"which no scanner does - give {FORM}"
        )
    return Alignment(matrix, dapi_um)


def directed(
    alignment: Alignment, path: Path, cells_um: np.ndarray, image: SlideImage, stated: StatedPixelSize | None
) -> tuple[Alignment, list[str]]:
    """The alignment in the direction that the data speak for, and what is to be said of it.

    Xenium Explorer writes the matrix from H&E to DAPI pixels. Other tools write the inverse, which shows in the size of
    H&E pixels that follows from it, where the image says theirs (``stated``), and in where the cells (``cells_um``,
    (n, 2)) come to lie. Raises ``UserError`` where hardly a cell lies on the image in either direction.
    """
    notes = []
    other = alignment.reversed
    here, there = (float((~image.outside(way.he_pixels(cells_um))).mean()) for way in (alignment, other))
    differ = not _agree(alignment.um_per_px, other.um_per_px)
    by_size = (
        differ
        and stated is not None
        and _agree(other.um_per_px, stated.um)
        and not _agree(alignment.um_per_px, stated.um)
        and there >= MOST
    )
    if by_size or (here < FEW and there >= MOST):
        reason = (
            f"H&E pixels are {other.um_per_px:.4g} µm then, as the image says, and {alignment.um_per_px:.4g} otherwise"
            if by_size
            else f"{there:.0%} of the cells lie on the image then, and {here:.0%} otherwise"
        )
        notes.append(f"{path} is taken to map DAPI pixels to H&E pixels, the other way round than usual: {reason}")
        alignment, here = other, there
    elif here < FEW:
        raise UserError(
            f"{path} puts {here:.0%} of the cells on {image.name} ({there:.0%} if read the other way round) - give the "
            "H&E image of this section in the size in which it was aligned, and its alignment"
        )
    if np.allclose(alignment.to_dapi, np.eye(3)):
        notes.append(f"{path} is the identity, which is right only for an H&E image that was warped onto the DAPI one")
    notes.append(f"{alignment}; {here:.0%} of the cells lie on it")
    if alignment.unevenness > UNEVEN:
        notes.append(f"{path} stretches the H&E image by {alignment.unevenness:.3g} in one direction")
    return alignment, notes


def _agree(first: float, second: float) -> bool:
    return 1 / AGREE < first / second < AGREE
