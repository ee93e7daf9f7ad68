"""A picture of a slide as scanpy and squidpy look for it, so that what is predicted can be drawn on it at once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

HIRES, LOWRES = 2000, 600  # pixels of the longer side, as Space Ranger writes them


def scanpy_pictures(
    library: str, pictures: Mapping[str, np.ndarray], longest: float, spot_diameter: float
) -> dict[str, Any]:
    """``uns["spatial"]`` of one slide, in the convention of scverse for Visium.

    Parameters
    ----------
    library : str
        Its name: the slice.
    pictures : mapping of str to ndarray
        The whole image as ``hires``, ``lowres`` or both: (height, width, 3) uint8.
    longest : float
        Full-resolution pixels of the image's longer side, to which the scale factors refer.
    spot_diameter : float
        Full-resolution pixels.
    """
    scales = {f"tissue_{name}_scalef": float(max(picture.shape[:2]) / longest) for name, picture in pictures.items()}
    return {
        library: {
            "images": dict(pictures),
            "scalefactors": {**scales, "spot_diameter_fullres": float(spot_diameter)},
            "metadata": {"software": "stbench"},
        }
    }
