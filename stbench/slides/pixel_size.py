"""How large a pixel is by what a picture's file says of itself: a hint, which positions may contradict.

Some files state it ten times too small, and many state the resolution of a screen or a printer. So readers take it only
where nothing better is known, and say so; it is held against what a slide was read with.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .evidence import Finding
from .image import SlideImage
from .picture_formats import in_one_line, opened_slide, picture_format
from .tiff import ome_image, opened_tiff, tag_of

if TYPE_CHECKING:
    from .slide import Slide

SAME_SIZE = 1.1  # as many times as large as the other, or less
MICROSCOPIC = (0.01, 20.0)  # µm; 1,200 dots per inch of a printer are 21 µm, the 72 of a screen 353
NUMBER = r"(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
UNITS = {  # in µm, as OME and ImageJ spell them; "pixel" and "reference frame" are none
    "pm": 1e-6, "Å": 1e-4, "nm": 1e-3, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0,
    "\\u00B5m": 1.0, "mm": 1e3, "cm": 1e4, "dm": 1e5, "m": 1e6, "in": 25_400.0, "inch": 25_400.0,
}  # fmt: skip


@dataclass(frozen=True)
class StatedPixelSize:
    """``um`` are µm per **full-resolution** pixel; ``source`` says where that stands."""

    um: float
    source: str


def stated_pixel_size(image: SlideImage) -> StatedPixelSize | None:
    """What the file of ``image`` says of its pixels, read from its header; ``None``: nothing that can be of a slide.

    TIFF (OME's PhysicalSizeX, Aperio's MPP, ImageJ's unit, the resolution with its unit, as in NDPI too) and what
    OpenSlide reads where it is installed. Raises ``UserError`` for a file that cannot be read.
    """
    if image.path is None:
        return None
    with in_one_line(image.path):
        kind = picture_format(image.path)
        found = None
        if kind == "tiff":
            with opened_tiff(image.path) as series:
                found = _of_tiff(series)
        elif kind == "openslide":
            found = _of_openslide(image.path)
    if found is None or not MICROSCOPIC[0] <= found.um <= MICROSCOPIC[1]:
        return None
    return StatedPixelSize(found.um * image.scale, found.source)


def check_pixel_size(slide: Slide) -> Iterator[Finding]:
    """What the image's file says of its pixels, where the slide was read with another size or with none."""
    stated = stated_pixel_size(slide.image)
    if stated is None:
        return
    fact = f"by the {stated.source} a pixel of {slide.image.name} is {stated.um:.4g} µm wide"
    if slide.um_per_px is None:
        yield Finding(
            "notice",
            f"{fact}; nothing confirms that, so it is not used - if it is right, give um_per_px = {stated.um:.4g}",
        )
    elif not 1 / SAME_SIZE <= stated.um / slide.um_per_px <= SAME_SIZE:
        yield Finding(
            "notice",
            f"{fact}, {stated.um / slide.um_per_px:.3g} times the {slide.um_per_px:.4g} µm that the slide is read with "
            "and that stand - check um_per_px, and whether the image was scaled",
        )


def _of_tiff(series: Any) -> StatedPixelSize | None:
    """The most specific of what the tags say."""
    page, file = series.keyframe, series.keyframe.parent
    if file.is_ome and (stated_by_ome := _of_ome(ome_image(page))) is not None:
        return stated_by_ome
    if file.is_svs:
        stated = re.search(rf"\bMPP\s*=\s*({NUMBER})(?![\d.])", page.description)
        if stated is not None:
            return StatedPixelSize(float(stated[1]), "MPP of its Aperio description")
    per_unit, unit = tag_of(page, "XResolution"), tag_of(page, "ResolutionUnit")
    if not (isinstance(per_unit, tuple) and len(per_unit) == 2 and all(per_unit)):  # a fraction, as it is written
        return None
    pixels = per_unit[0] / per_unit[1]
    if file.is_imagej:
        scale = UNITS.get(str((file.imagej_metadata or {}).get("unit", "")))
        return None if scale is None else StatedPixelSize(scale / pixels, "resolution of its ImageJ description")
    length = {None: 25_400.0, 2: 25_400.0, 3: 10_000.0}.get(unit)  # inch, which is the default; cm
    return None if length is None else StatedPixelSize(length / pixels, "XResolution of its TIFF tags")


def _of_ome(description: str) -> StatedPixelSize | None:
    """Of what is said of the image whose pixels are read."""
    pixels = re.search(r"<(?:\w+:)?Pixels\b[^>]*>", description)
    if pixels is None:
        return None
    attributes = dict(re.findall(r"""(\w+)\s*=\s*["']([^"']*)["']""", pixels[0]))
    unit = UNITS.get(attributes.get("PhysicalSizeXUnit", "µm"))
    size = attributes.get("PhysicalSizeX", "")
    if unit is None or not re.fullmatch(NUMBER, size):
        return None
    return StatedPixelSize(float(size) * unit, "PhysicalSizeX of its OME metadata")


def _of_openslide(path: Path) -> StatedPixelSize | None:
    with opened_slide(path) as slide:
        stated = getattr(slide, "properties", {}).get("openslide.mpp-x")
    return None if stated is None else StatedPixelSize(float(stated), "openslide.mpp-x")
