"""What of a slide lies outside what a model was trained on."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from ..slides.patch_colours import PatchColours
from .facts import SlideFacts

# Spreads; see :func:`colour_distance`. Nine real sections, each held against others: of one study, patients included,
# 0.1 to 1.1; breast tumours of three laboratories, 0.2 to 1.6; a lymph node on a dim scan, 3.5 to 8.0.
FAR = 2.0


def colour_distance(colours: PatchColours, training: Collection[SlideFacts]) -> float:
    """How far the mean colour of a slide's patches lies from that of training, in units of the training's own spread.

    Root mean square over red, green and blue of the difference of means over the standard deviation of patches' mean
    colours over all training slides, within and between them.
    """
    weights = np.array([slide.n_spots for slide in training], dtype=np.float64)
    weights /= weights.sum()
    means = np.array([slide.mean_rgb for slide in training])
    centre = weights @ means
    variance = weights @ (np.array([slide.std_rgb for slide in training]) ** 2 + (means - centre) ** 2)
    spread = np.sqrt(np.maximum(variance, 1.0))  # at least a grey level: made-up slides may be of one colour
    return float(np.sqrt((((np.array(colours.mean) - centre) / spread) ** 2).mean()))


def unlike_in_colour(colours: PatchColours, training: Collection[SlideFacts]) -> list[str]:
    """What to say of a slide whose patches are of other colours than those of training; nothing where they are not."""
    distance = colour_distance(colours, training)
    if distance <= FAR:
        return []
    mean = ", ".join(f"{value:.0f}" for value in colours.mean)
    return [
        f"the image's colours (mean RGB {mean}) lie {distance:.1f} times the spread of the training patches away from "
        "theirs: it is stained or scanned otherwise, or of other tissue"
    ]
