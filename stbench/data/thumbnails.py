"""Small pictures of the slides, for figures that show predictions on tissue, and how results keep them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, PositiveFloat, ValidationError

from ..errors import DamagedFileError, first_problem
from ..system.files import ANEW, read_object

if TYPE_CHECKING:
    from ..slides.slide import Slide

MAX_SIDE = 700  # pixels; a figure shows it at an inch or two
QUALITY = 85  # of the JPEG
INDEX = "slides.json"


def write_thumbnail(slide: Slide, path: Path) -> float:
    """Write the whole image of ``slide``, its longer side at most ``MAX_SIDE`` px, as a JPEG to ``path``.

    Returns the thumbnail's pixels per full-resolution pixel. An image smaller than that is not enlarged.
    """
    from PIL import Image

    pixels = slide.image.thumbnail(MAX_SIDE)
    Image.fromarray(pixels).save(path, format="JPEG", quality=QUALITY)
    return float(max(pixels.shape[:2]) / max(slide.image.full_resolution_size))


def spot_diameter(slide: Slide) -> float:
    """Of a spot, in full-resolution pixels; where it is not known half the distance to the nearest neighbour."""
    from scipy.spatial import cKDTree

    section = slide.adata.uns.get("spatial", {}).get(slide.id, {})
    known = section.get("scalefactors", {}).get("spot_diameter_fullres")
    if known is not None and known > 0:
        return float(known)
    if slide.n_spots < 2:
        return 0.02 * max(slide.image.full_resolution_size)
    distance, _ = cKDTree(slide.centres).query(slide.centres, k=2)
    return 0.5 * float(np.median(distance[:, 1]))


class Picture(BaseModel):
    """An entry of ``slides.json``."""

    file: str
    scale: PositiveFloat  # thumbnail pixels per full-resolution pixel
    spot_diameter: PositiveFloat  # full-resolution pixels


def read_index(path: Path) -> dict[str, dict[str, Any]]:
    """Slice to ``file``, ``scale`` and ``spot_diameter``, of a ``slides.json``. Raises ``DamagedFileError``."""
    content = read_object(path)
    try:
        return {name: Picture.model_validate(facts).model_dump() for name, facts in content.items()}
    except ValidationError as error:
        raise DamagedFileError(f"{path} does not list thumbnails ({first_problem(error)}) - {ANEW}") from error
