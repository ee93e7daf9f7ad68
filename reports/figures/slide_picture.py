"""A picture of a slide for the eye to check: its spots, coloured by depth, drawn over its tissue."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stbench.data.thumbnails import spot_diameter
from stbench.slides.slide import Slide
from stbench.system.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WRONG = "#b00020"
SOUND = "spots must lie on the tissue"
BARS_UM = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)
LONGEST_BAR = 0.25  # of the image's width


def draw_slide(slide: Slide, path: Path, message: str = "", max_side: int = 1400) -> Path:
    """Write a PNG to ``path``: a thumbnail of the image with a circle per spot; returns ``path``.

    Below it stands ``message``, what is most wrong with the slide, or else what to look for; a bar of a round length is
    drawn where the size of a pixel is known. Circles have the spot's diameter where it is known, else half the distance
    to the nearest neighbour. Spots beyond the border are drawn too, so that a shifted image shows.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.collections import EllipseCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    thumbnail = slide.image.thumbnail(max_side)
    height, width = thumbnail.shape[:2]
    shrink = slide.image.scale * width / slide.image.size[0]  # thumbnail pixels per full-resolution pixel
    centres = slide.centres * shrink
    diameter = spot_diameter(slide) * shrink
    depth = np.log10(1 + np.asarray(slide.adata.X.sum(axis=1)).ravel())

    below = textwrap.wrap(f"{slide.id}: {message}" if message else SOUND, 110)
    figure = Figure(figsize=(8, 8 * height / width * 0.9 + 0.8 + 0.2 * len(below)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(thumbnail, extent=(0, width, height, 0))
    low, high = np.percentile(depth, [1, 99])  # a few nearly empty spots must not use up the whole scale
    colours = ScalarMappable(Normalize(low, max(high, low + 1e-9)), "viridis")
    ring = float(np.clip(0.2 * diameter * 500 / max(width, height), 0.3, 1.4))  # in points: thin where spots are small
    for edge, line_width in (
        ("white", 1.8 * ring),
        (colours.to_rgba(depth), ring),
    ):  # white lifts dark rings off tissue
        axes.add_collection(
            EllipseCollection(
                np.full(len(centres), diameter),
                np.full(len(centres), diameter),
                np.zeros(len(centres)),
                units="xy",
                offsets=centres,
                offset_transform=axes.transData,
                facecolors="none",
                edgecolors=edge,
                linewidths=line_width,
            )
        )
    axes.set_xlim(min(0, centres[:, 0].min() - diameter), max(width, centres[:, 0].max() + diameter))
    axes.set_ylim(max(height, centres[:, 1].max() + diameter), min(0, centres[:, 1].min() - diameter))
    axes.set_xticks([])
    axes.set_yticks([])
    pixel = "µm per px unknown" if slide.um_per_px is None else f"{slide.um_per_px:.3f} µm per px"
    patient = "" if slide.patient == slide.id else f", patient {slide.patient}"
    facts = f"{slide.n_spots} spots, {pixel}, {slide.image.level} image"
    axes.set_title(f"{slide.id}{patient}\n{facts}", fontsize=11)
    figure.supxlabel("\n".join(below), fontsize=9, color=WRONG if message else "black")
    if slide.um_per_px is not None:
        _scale_bar(axes, width, height, shrink / slide.um_per_px)
    bar = figure.colorbar(colours, ax=axes, shrink=0.6, pad=0.02, extend="both")
    bar.set_label("log$_{10}$(1 + total counts)")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=150, format="png")
    return path


def _scale_bar(axes: Axes, width: float, height: float, px_per_um: float) -> None:
    """A bar of a round length in the lower left corner; ``px_per_um`` is in pixels of the picture."""
    lengths = [length for length in BARS_UM if length * px_per_um <= LONGEST_BAR * width]
    if not lengths:  # a picture a few spots wide, or a pixel size that cannot be
        return
    length = lengths[-1]
    left, bottom = 0.03 * width, 0.965 * height
    label = f"{length} µm" if length < 1000 else f"{length // 1000} mm"
    for colour, line_width in (("white", 7), ("black", 3)):  # to be seen on tissue, too
        axes.plot([left, left + length * px_per_um], [bottom, bottom], color=colour, linewidth=line_width)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5}
    axes.text(left, bottom - 0.02 * height, label, fontsize=9, va="bottom", bbox=box)
