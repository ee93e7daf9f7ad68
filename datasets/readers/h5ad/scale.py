"""How large a pixel is, where an object says it or where its array is a ruler."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..pitch import nearest_neighbour_pitch
from ..space_ranger.scale import VISIUM_PITCH_UM, lattice_pitch

VISIUM_PLACES = (224, 128)  # columns and rows of the slide of 11 mm


def um_per_px_of(
    factors: Mapping[str, float], array_xy: np.ndarray, centres: np.ndarray, pitch_um: float | None
) -> tuple[float | None, str]:
    """µm per pixel and where that comes from, in a few words."""
    if "microns_per_pixel" in factors:
        return factors["microns_per_pixel"], "microns_per_pixel of its scale factors"
    pitch_px = measured_pitch(array_xy, centres)
    if pitch_px is None:
        return None, ""
    if pitch_um is not None:
        return pitch_um / pitch_px, f"the spots' pitch of {pitch_um:g} µm"
    if not _is_visium(factors.get("spot_diameter_fullres", 0.0), array_xy, centres, pitch_px):
        return None, ""
    return VISIUM_PITCH_UM / pitch_px, f"the spots' pitch of {VISIUM_PITCH_UM:g} µm, as the array looks like Visium's"


def _is_visium(diameter_px: float, array_xy: np.ndarray, centres: np.ndarray, pitch_px: float) -> bool:
    """By the size of spots, which Space Ranger states as 55 to 65 µm at a pitch of 100 µm; else by the lattice."""
    if not hexagonal(array_xy):
        return False
    if diameter_px > 0:
        return 1.4 < pitch_px / diameter_px < 2.0
    on_slide = bool((array_xy >= 0).all() and (array_xy < VISIUM_PLACES).all())
    return on_slide and lattice_pitch(array_xy, centres, hexagonal=True) is not None


def measured_pitch(array_xy: np.ndarray, centres: np.ndarray) -> float | None:
    """Pixels from spot to spot: by least squares over the array where spots lie on one, else between neighbours."""
    on_lattice = lattice_pitch(array_xy, centres, hexagonal(array_xy))
    return on_lattice if on_lattice is not None else nearest_neighbour_pitch(centres)


def hexagonal(array_xy: np.ndarray) -> bool:
    return bool((array_xy.sum(axis=1) % 2 == 0).all())
