"""How large a pixel is, where an object says it or where its array is a ruler."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..pitch import nearest_neighbour_pitch
from ..space_ranger.scale import VISIUM_PITCH_UM, lattice_pitch


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
    diameter = factors.get("spot_diameter_fullres", 0.0)
    # Space Ranger states a diameter of 55 to 65 µm at 100 µm pitch
    is_visium = hexagonal(array_xy) and diameter > 0 and 1.4 < pitch_px / diameter < 2.0
    if not is_visium:
        return None, ""
    return VISIUM_PITCH_UM / pitch_px, f"the spots' pitch of {VISIUM_PITCH_UM:g} µm, as the array looks like Visium's"


def measured_pitch(array_xy: np.ndarray, centres: np.ndarray) -> float | None:
    """Pixels from spot to spot: by least squares over the array where spots lie on one, else between neighbours."""
    on_lattice = lattice_pitch(array_xy, centres, hexagonal(array_xy))
    return on_lattice if on_lattice is not None else nearest_neighbour_pitch(centres)


def hexagonal(array_xy: np.ndarray) -> bool:
    return bool((array_xy.sum(axis=1) % 2 == 0).all())
