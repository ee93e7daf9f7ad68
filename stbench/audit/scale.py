"""Whether the slices are on one scale: of length, of the image, of the target; and which slices are absent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from ..data.prepared import PreparedDataset, PreparedSlide
from ..data.targets import Target
from .record import Finding, some

TOLERANCE = 0.05  # relative difference of µm per pixel; scanners and registration differ by about one per cent


def unequal(slides: Mapping[str, PreparedSlide]) -> Finding:
    """Slides whose pixel size is not the median one, or whose patches come from a coarser image than most."""
    # of windows of a physical size a patch's pixel is what methods see
    sizes = {
        name: slide.um_per_px * (slide.window_side / side)
        for name, slide in slides.items()
        if slide.um_per_px is not None and (side := slide.patches.shape[1])
    }
    usual = float(np.median(list(sizes.values()))) if sizes else float("nan")
    odd = {
        name: f"{name}: {size:.3f} µm per px" for name, size in sizes.items() if not abs(size / usual - 1) <= TOLERANCE
    }
    levels = {name: slide.image_level for name, slide in slides.items()}
    usual_level = min(Counter(levels.values()).items(), key=lambda item: (-item[1], item[0]))[0]
    odd |= {name: f"{name}: {level} image" for name, level in levels.items() if level != usual_level}
    unknown = [name for name in slides if name not in sizes]
    silent = f" The scale of {len(unknown)} slices is unknown and was not compared." if unknown else ""
    common = f" The median is {usual:.3f} µm per px." if sizes else ""
    return Finding(
        "image-scale",
        "Slices whose images have another scale",
        "warning" if odd else "note" if unknown else "ok",
        len(odd),
        len(slides),
        "A window of the same number of pixels shows more tissue where a pixel is larger, so a method must generalise "
        f"over scale as well.{common}{silent}",
        some([*odd.values(), *(f"{name}: unknown" for name in unknown)]),
    )


def normalisation(target: Target) -> Finding:
    """A target that pools the spots of a slice cannot be known from one spot."""
    pools = target.pools_spots
    return Finding(
        "normalisation",
        "A target whose values depend on other spots of the slice",
        "note" if pools else "ok",
        int(pools),
        1,
        f"{target.name} scales each gene by its sum over all spots of the slice, the test slice included, so a spot's "
        "truth depends on the whole slice and sequencing depth stays in it; nothing crosses between slices."
        if pools
        else f"{target.name} is computed from each spot alone: nothing of a test slice enters another slice's target.",
    )


def absent(data: PreparedDataset) -> Finding:
    """Slices of the dataset that take no part."""
    gone = [name for name in data.expected if name not in data.slides]
    return Finding(
        "missing-slices",
        "Slices of the dataset that are not here",
        "note" if gone else "ok",
        len(gone),
        len(data.expected),
        "Numbers over some of the slices are not comparable with numbers over all of them."
        if gone
        else "All slices take part.",
        some(gone),
    )
