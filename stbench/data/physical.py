"""Windows of a stated physical size: the same field of view on every slide, whatever its resolution.

A slide's window has as many pixels as its own µm per pixel gives; it is resampled once, when it is cut, to the
dataset's ``patch_px``, so that all patches have one size and methods keep their input. What is cut so is another
dataset to a reader: it has a name and a title of its own, and its numbers never stand in one table with others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from ..dataset import Dataset
from ..errors import UserError
from ..slides.cutting import Window
from ..slides.pixel_size import stated_pixel_size
from ..slides.slide import Slide
from .dataset_view import DatasetView


class PhysicalWindows(DatasetView):
    """A dataset whose windows are squares of ``patch_um`` micrometres; all else is the dataset's own."""

    def __init__(self, dataset: Dataset, patch_um: float) -> None:
        super().__init__(dataset)
        self.patch_um = patch_um
        self.name = f"{dataset.name}@{patch_um:g}um"
        self.title = f"{dataset.title}, windows of {patch_um:g} µm"


def with_patch_um(dataset: Dataset, patch_um: float | None) -> Dataset:
    """``dataset`` with windows of ``patch_um`` micrometres; ``None``: as it is. Raises ``UserError`` for no size."""
    if patch_um is None:
        return dataset
    if not (math.isfinite(patch_um) and patch_um > 0):
        raise UserError(f"--patch-um {patch_um:g} is no size of a window - write for example --patch-um 112")
    return PhysicalWindows(dataset, patch_um)  # a Dataset by what it passes on


def patch_um_of(dataset: Dataset) -> float | None:
    """Side of the dataset's windows in micrometres; ``None``: they have ``patch_px`` full-resolution pixels."""
    found: float | None = getattr(dataset, "patch_um", None)
    return found


def window_of(slide: Slide, dataset: Dataset) -> Window:
    """The window around each spot of ``slide``.

    Raises ``UserError`` where it is to have a physical size and the slide's pixels have none that is known, or where it
    is smaller than a pixel or larger than the image.
    """
    patch_um = patch_um_of(dataset)
    if patch_um is None:
        return Window.plain(dataset.patch_px)
    if slide.um_per_px is None:
        stated = stated_pixel_size(slide.image)
        hint = "" if stated is None else f" (by the {stated.source}, which nothing confirms, {stated.um:.4g})"
        raise UserError(
            f"slice {slide.id}: how many µm a pixel is is not known, so a window of {patch_um:g} µm (--patch-um) has "
            f"no size in pixels - give um_per_px{hint} in the slice's entry of a manifest, or --um-per-px to "
            "'stbench data import', or leave --patch-um out"
        )
    side = patch_um / slide.um_per_px
    longest = max(slide.image.full_resolution_size)
    if not 1 <= side <= longest:
        raise UserError(
            f"slice {slide.id}: a window of {patch_um:g} µm (--patch-um) is {side:,.1f} px wide at "
            f"{slide.um_per_px:.4g} µm per px, and its image {longest:,.0f} px - check um_per_px, or give another size"
        )
    return Window(side, dataset.patch_px)


def in_words(slide: Slide, window: Window, patch_um: float) -> str:
    """What became of the windows of a slide, for the notes that stay with its numbers."""
    source = f", from {slide.um_per_px_from}" if slide.um_per_px_from else ""
    fact = f"{slide.id}: windows of {patch_um:g} µm are {window.side:.1f} px ({slide.um_per_px:.4g} µm per px{source})"
    if not window.resampled:
        return f"{fact} and are cut as they are"
    coarse = "" if slide.image.scale == 1 else f" of full resolution, cut from the {slide.image.level} image"
    return f"{fact}{coarse}, resampled to patches of {window.px} px"


def unknown_sizes(sizes: Mapping[str, float | None]) -> str | None:
    """What to say where the size of a pixel (µm by slice) is not known in all of several slices."""
    unknown = [name for name, size in sizes.items() if size is None]
    if not unknown or len(sizes) < 2:
        return None
    which = "all slices" if len(unknown) == len(sizes) else ", ".join(unknown)
    return (
        f"the size of a pixel is unknown in {which}: whether a window shows as much tissue in one slice as in another "
        "cannot be told - give um_per_px in a slice's entry where it is known"
    )
