"""The colours of a slide's patches, in a few numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

LOOKED_AT = 512  # patches, evenly spread over the slide: more change the mean by less than a grey level
AT_A_TIME = 64


@dataclass(frozen=True)
class PatchColours:
    """Of the patches' mean colours: RGB, 0 to 255."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]  # from patch to patch


def patch_colours(patches: Any) -> PatchColours:
    """Of patches (n_spots, side, side, 3) uint8, or what is read like them; at least one."""
    chosen = np.unique(np.linspace(0, len(patches) - 1, min(len(patches), LOOKED_AT)).round().astype(np.int64))
    colours = np.concatenate(
        [
            np.asarray(patches[chosen[start : start + AT_A_TIME]]).mean(axis=(1, 2), dtype=np.float64)
            for start in range(0, len(chosen), AT_A_TIME)
        ]
    )
    return PatchColours(_rgb(colours.mean(axis=0)), _rgb(colours.std(axis=0)))


def _rgb(values: np.ndarray) -> tuple[float, float, float]:
    red, green, blue = (round(float(value), 3) for value in values)
    return red, green, blue
