"""A sample as a slide: the spots of its AnnData file over its whole-slide image, or over its patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from stbench.slides.slide import Slide
from stbench.system.scalars import as_number

from ..h5ad import read as read_h5ad
from ..h5ad.scale import measured_pitch
from .files import HestFiles
from .metadata import pixel_size, read_metadata
from .patches import read_patches


def read(slide_id: str, patient: str, files: HestFiles, *, label: str | None = None) -> Slide:
    """Read one sample; spots are in the file's order, those without a patch left out where there is no image.

    Raises ``UserError`` for a file that is missing or malformed, or when the files do not belong together.
    """
    metadata = read_metadata(files.metadata) if files.metadata is not None else {}
    patches = read_patches(files.patches) if files.patches is not None else None
    image = files.image if patches is None else partial(patches.image, extent=_extent(metadata))
    slide = read_h5ad(slide_id, patient, files.expression, image=image, label=label)
    notes: list[str] = []
    if files.metadata is not None:
        um_per_px, source = pixel_size(metadata, measured_pitch(slide.array_xy, slide.centres), notes)
        slide = replace(slide, um_per_px=um_per_px, um_per_px_from=source)
    slide = replace(slide, notes=(*slide.notes, *(f"{slide_id}: {note}" for note in notes)))
    return slide if patches is None else patches.restricted(slide)


def _extent(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """The size of the slide in full-resolution pixels."""
    width, height = (as_number(metadata.get(f"fullres_px_{side}")) for side in ("width", "height"))
    return None if not width or not height or min(width, height) < 1 else (width, height)
