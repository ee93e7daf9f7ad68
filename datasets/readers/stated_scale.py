"""The size of a pixel that an image file states, to hold against what follows from the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from stbench.slides.picture_formats import in_one_line, picture_format
from stbench.slides.tiff import opened_tiff, tag_of

LEAST_UM, MOST_UM = 0.02, 20.0  # µm per pixel; 72 or 300 dots per inch are a screen's or a printer's
UM_PER = {2: 25_400.0, 3: 10_000.0}  # TIFF's ResolutionUnit: inch, centimetre
UM_OF = {"µm": 1.0, "um": 1.0, "micron": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4}


def stated_um_per_px(path: Path) -> float | None:
    """µm per pixel as OME-XML or the resolution of a TIFF says it; ``None`` where there is nothing, or no such size."""
    with in_one_line(path):
        if picture_format(path) != "tiff":
            return None
        with opened_tiff(path) as series:
            page = series.keyframe
            stated = _in_ome(page.parent.ome_metadata) or _in_tags(page)
    return stated if stated is not None and LEAST_UM <= stated <= MOST_UM else None


def _in_ome(text: str | None) -> float | None:
    if not text:
        return None
    try:
        pixels = ElementTree.fromstring(text).find(".//{*}Pixels")
    except ElementTree.ParseError:  # a remark of its writer, which says nothing of the pixels
        return None
    if pixels is None:
        return None
    unit = UM_OF.get(pixels.get("PhysicalSizeXUnit", "µm"))
    size = _number(pixels.get("PhysicalSizeX"))
    return None if unit is None or size is None else size * unit


def _in_tags(page: Any) -> float | None:
    unit = UM_PER.get(int(tag_of(page, "ResolutionUnit") or 0))
    resolution = tag_of(page, "XResolution")
    if unit is None or not isinstance(resolution, tuple) or len(resolution) != 2 or not all(resolution):
        return None
    return unit * resolution[1] / resolution[0]


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
