"""One slice drawn as the paper draws it: spots as filled circles at their places, over the H&E picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.data.thumbnails import read_index
from stbench.errors import DamagedFileError

from ..sections.section import Section
from ..sections.trial_files import evidence

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Normalize

FRAME = "#8b9199"


@dataclass(frozen=True)
class Background:
    """The thumbnail of a slice and what places spots on it."""

    path: Path
    scale: float  # thumbnail pixels per full-resolution pixel
    spot_diameter: float  # full-resolution pixels
    _bleached: dict[tuple[float, bool], np.ndarray] = field(default_factory=dict, init=False, repr=False, compare=False)

    @cached_property
    def pixels(self) -> np.ndarray:
        """(height, width, 3) uint8."""
        from PIL import Image

        try:
            with Image.open(self.path) as picture:
                return np.asarray(picture.convert("RGB"))
        except (OSError, ValueError, SyntaxError) as error:  # Pillow raises all of these on damaged files
            raise DamagedFileError(
                f"{self.path} cannot be read ({error}) - the command that made {self.path.parents[2]} makes it again"
            ) from error

    def bleached(self, fade: float, grey: bool) -> np.ndarray:
        """The pixels moved towards white by the share ``fade``, and without colours if ``grey``; made once for all
        the maps of a slice."""
        if (fade, grey) not in self._bleached:
            pixels = self.pixels
            if grey:
                pixels = np.repeat(pixels.mean(axis=2, keepdims=True), 3, axis=2)
            self._bleached[fade, grey] = np.rint(pixels + (255.0 - pixels) * fade).astype(np.uint8)
        return self._bleached[fade, grey]


def backgrounds(section: Section) -> Mapping[str, Background]:
    """Slice to its thumbnail, as far as the section's runs kept them (``stbench.results.evidence.write_slides``)."""
    folder = f"slides-{section.dataset}"
    found: dict[str, Background] = {}
    for index in evidence(section, f"{folder}/slides.json"):
        for name, facts in read_index(index).items():
            path = index.with_name(facts["file"])
            if path.is_file():
                found.setdefault(name, Background(path, float(facts["scale"]), float(facts["spot_diameter"])))
    return found


def diameter_on_paper(pixel_xy: np.ndarray, background: Background | None) -> float:
    """Of the circles, in full-resolution pixels: the spot's size, but at least 0.75 of the way to the next spot.

    A spot in its true size would be a speck in a small picture of a wide-spaced array.
    """
    from scipy.spatial import cKDTree

    if len(pixel_xy) < 2:
        return background.spot_diameter if background else 1.0
    distance, _ = cKDTree(pixel_xy).query(pixel_xy, k=2)
    pitch = float(np.median(distance[:, 1]))
    return max(0.75 * pitch, background.spot_diameter if background else 0.0)


def draw_spots(
    axes: Axes,
    pixel_xy: np.ndarray,
    values: np.ndarray,
    colours: str,
    norm: Normalize,
    background: Background | None,
    fade: float = 0.0,
    grey: bool = False,
) -> EllipseCollection:
    """Fill ``axes`` with a square field of view that holds all spots, and return the circles (a mappable).

    ``pixel_xy`` (n_spots, 2) at full resolution, ``values`` (n_spots,). ``fade``: how far the tissue is bleached
    towards white, from 0 to 1; ``grey``: without its colours.
    """
    from matplotlib.collections import EllipseCollection

    diameter = diameter_on_paper(pixel_xy, background)
    if background is not None:
        pixels = background.bleached(fade, grey)
        height, width = pixels.shape[:2]
        axes.imshow(pixels, extent=(0, width / background.scale, height / background.scale, 0), zorder=1)
    shape: dict[str, Any] = {"units": "xy", "offset_transform": axes.transData}
    sizes = np.full(len(pixel_xy), diameter)
    circles = EllipseCollection(
        sizes,
        sizes,
        np.zeros(len(pixel_xy)),
        offsets=pixel_xy,
        array=values,
        cmap=colours,
        norm=norm,
        zorder=2,
        **shape,
    )
    circles.set(edgecolor=FRAME if grey else "none", linewidth=0.3)  # a white circle may lie on a white hole
    axes.add_collection(circles)
    low, high = pixel_xy.min(axis=0), pixel_xy.max(axis=0)
    middle, half = (low + high) / 2, max(high - low) / 2 + 1.4 * diameter
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[1] + half, middle[1] - half)
    axes.set_aspect("equal")
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set(visible=True, color=FRAME, linewidth=0.6)
    return circles
