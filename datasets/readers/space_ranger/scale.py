"""How large a pixel is: from the array's pitch on the image, and from what Space Ranger says of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.slides.geometry import array_map
from stbench.system.compressed import open_text
from stbench.system.scalars import as_number

VISIUM_PITCH_UM = 100.0  # centre to centre, hexagonal; spots are 55 µm wide
BY_FACTORS = "microns_per_pixel of its scale factors"
AGREES = 0.02  # share by which two statements of one length may differ
# A lattice is what its steps say within these: rows to columns, sine of the angle between them, and how far spots lie
# from it, in pitches. On real sections spots lie within 0.02 of it, and rows are 87 µm apart rather than 86.6.
STEPS, UPRIGHT, ASTRAY = 0.05, 0.99, 0.25


@dataclass(frozen=True)
class PixelSize:
    """µm per full-resolution pixel, ``None`` where nothing says it, and what a user should know of it."""

    um: float | None
    pitch_px: float | None
    origin: str = ""  # where it comes from, in a few words
    notes: tuple[str, ...] = ()


def pixel_size(
    factors: dict[str, float], array_xy: np.ndarray, centres: np.ndarray, pitch_um: float, hexagonal: bool
) -> PixelSize:
    """From the pitch of the array, or as the scale factors say, which is then held against the array.

    ``array_xy`` (n, 2) integers and ``centres`` (n, 2) pixels of all places of the array, ``pitch_um`` between them.
    The diameter that Space Ranger writes is no measure: it holds 65 µm for a spot in some versions, 55 in others.
    """
    pitch_px, stated = lattice_pitch(array_xy, centres, hexagonal), stated_size(factors).um
    form = "hexagonal" if hexagonal else "square"
    if pitch_px is None:
        unmeasured = f"spots do not lie on a {form} lattice whose pitch could be measured"
        if stated is None:
            note = f"the size of a pixel is not known: {unmeasured}: um_per_px may state it"
            return PixelSize(None, None, "", (note,))
        note = f"a pixel is {stated:.4g} µm by the scale factors alone: {unmeasured}"
        return PixelSize(stated, None, BY_FACTORS, (note,))
    measured = pitch_um / pitch_px
    if stated is None:
        return PixelSize(measured, pitch_px, f"the array's pitch of {pitch_um:g} µm")
    if abs(stated / measured - 1) <= AGREES:
        return PixelSize(stated, pitch_px, BY_FACTORS)
    note = (
        f"a pixel is {stated:.4g} µm by microns_per_pixel of the scale factors, but {measured:.4g} µm by the array, "
        f"whose pitch of {pitch_um:g} µm is {pitch_px:.4g} px on the image: the first is taken - check that positions "
        "and scale factors are of one run"
    )
    return PixelSize(stated, pitch_px, BY_FACTORS, (note,))


def stated_size(factors: dict[str, float]) -> PixelSize:
    """What the scale factors say: of Visium HD they do."""
    stated = factors.get("microns_per_pixel", 0.0)
    if stated > 0:
        return PixelSize(stated, None, BY_FACTORS)
    note = "the size of a pixel is not known, as the scale factors lack microns_per_pixel: um_per_px may state it"
    return PixelSize(None, None, "", (note,))


def lattice_pitch(array_xy: np.ndarray, centres: np.ndarray, hexagonal: bool) -> float | None:
    """Pixels between neighbours on the array, by least squares over all places; ``None`` where they are no lattice.

    Of a hexagonal array ``array_xy`` counts half pitches along a row, and rows: 7, 9 and 11 of one row are neighbours.
    Its pitch is the one along the rows, as rows are a little farther apart than in a regular hexagon. Distances to
    nearest neighbours would be too short by half a percent and more, as old versions round positions to whole pixels.
    """
    finite = np.isfinite(centres).all(axis=1)
    array_xy, centres = array_xy[finite], centres[finite]
    fitted = array_map(array_xy, centres)
    if fitted is None:
        return None
    column, row = fitted.column_step, fitted.row_step
    if hexagonal:
        if ((array_xy.sum(axis=1) - array_xy[0].sum()) % 2).any():
            return None
        column, row = 2 * column, row * 2 / np.sqrt(3)
    along, across = float(np.linalg.norm(column)), float(np.linalg.norm(row))
    if not min(along, across) > 0 or abs(fitted.turn) < UPRIGHT or abs(across / along - 1) > STEPS:
        return None
    pitch = along if hexagonal else float(np.sqrt(along * across))
    return pitch if np.median(fitted.residuals) <= ASTRAY * pitch else None


def read_scale_factors(path: Path) -> dict[str, float]:
    """The numbers in ``scalefactors_json.json``, be they written as texts or as lists of one (R writes both)."""
    with open_text(path) as text:
        try:
            content = json.load(text)
        except UnicodeDecodeError:
            raise  # who opened the text tells it
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path} is not valid JSON ({reason_of(error)}) - fetch it again") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no scale factors (not a JSON object) - fetch it again")
    numbers = {name: as_number(value) for name, value in content.items()}
    return {name: number for name, number in numbers.items() if number is not None}  # newer versions also record names


def picture_scale(factors: dict[str, float], level: str, path: Path) -> float:
    name = f"tissue_{level}_scalef"
    value = factors.get(name)
    if value is None or not (np.isfinite(value) and value > 0):
        raise UserError(f"{path} has no usable {name} (it says {value}) - without it the image has no known scale")
    return value
