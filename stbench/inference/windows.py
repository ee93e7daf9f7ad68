"""Which window of an image shows what the windows showed that a model was trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import UserError
from ..models.facts import ModelFacts, SlideFacts
from ..slides.cutting import Window
from ..slides.slide import Slide

SAME_SCALE = 1.05  # as many times as large as the smallest or largest pixel of training, or less
COARSE = 1.5  # times as large as the largest pixel of training: what is enlarged so far lacks detail


@dataclass(frozen=True)
class FittingWindow:
    """The window to cut, and what is to be said of it."""

    window: Window
    notes: tuple[str, ...]


def training_slides(models: Sequence[ModelFacts]) -> dict[str, SlideFacts]:
    """By slice, of all models; folds share most of them."""
    found: dict[str, SlideFacts] = {}
    for facts in models:
        found |= {f"{facts.dataset}/{name}": slide for name, slide in facts.slides.items()}
    return found


def known_sizes(slides: Mapping[str, SlideFacts]) -> list[float]:
    """µm per pixel of training slides where it is known, from the smallest."""
    return sorted(slide.um_per_px for slide in slides.values() if slide.um_per_px is not None)


def fitting_window(models: Sequence[ModelFacts], slide: Slide) -> FittingWindow:
    """The window around each spot of ``slide`` for models that share the size of their patches.

    As in training: ``patch_um`` micrometres, or ``patch_px`` pixels where those are as large as in training. Where they
    are not, as many as show the same tissue, resampled to ``patch_px``. Raises ``UserError`` where that is not known.
    """
    facts, size, sizes = models[0], slide.um_per_px, known_sizes(training_slides(models))
    plain = Window.plain(facts.patch_px)
    if size is None:
        if facts.patch_um is None and not sizes:
            return FittingWindow(
                plain, ("how large a pixel is is known neither of the image nor of the training slides",)
            )
        raise UserError(
            f"how many µm a pixel of {slide.image.name} is does not stand in its file - give it with --um-per-px "
            f"({_range(sizes)} in training)"
        )
    if facts.patch_um is not None:
        window = _physical(facts.patch_um, slide, facts.patch_px)
        return FittingWindow(window, (*_cut(facts.patch_um, slide, window), *_detail(slide, sizes)))
    if not sizes:
        return FittingWindow(
            plain,
            (
                f"how large a pixel is is not known of the training slides: windows of {facts.patch_px} px are "
                f"{facts.patch_px * size:.4g} µm here, which may be more or less than in training",
            ),
        )
    if sizes[0] / SAME_SCALE <= size <= sizes[-1] * SAME_SCALE:
        return FittingWindow(plain, ())
    side_um = facts.patch_px * float(np.median(sizes))
    window = _physical(side_um, slide, facts.patch_px)
    other = f"a pixel of the image is {size:.4g} µm, in training it was {_range(sizes)}"
    return FittingWindow(window, (other, *_cut(side_um, slide, window), *_detail(slide, sizes)))


def _physical(side_um: float, slide: Slide, patch_px: int) -> Window:
    assert slide.um_per_px is not None
    side, longest = side_um / slide.um_per_px, max(slide.image.full_resolution_size)
    if not 1 <= side <= longest:
        raise UserError(
            f"a window of {side_um:.4g} µm, as in training, is {side:,.1f} px wide on {slide.image.name}, whose longer "
            f"side has {longest:,.0f} - check --um-per-px ({slide.um_per_px:.4g})"
        )
    return Window(side, patch_px)


def _cut(side_um: float, slide: Slide, window: Window) -> list[str]:
    if not window.resampled:
        return []
    return [
        f"windows of {side_um:.4g} µm, as in training, are {window.side:.1f} px here ({slide.um_per_px:.4g} µm per px, "
        f"{slide.um_per_px_from}) and were resampled to {window.px} px"
    ]


def _detail(slide: Slide, sizes: Sequence[float]) -> list[str]:
    assert slide.um_per_px is not None
    size = slide.um_per_px / slide.image.scale
    if not sizes or size <= COARSE * sizes[-1]:
        return []
    return [
        f"the image is {size / sizes[-1]:.1f} times as coarse as those of training: its windows lack detail that the "
        "model was trained on"
    ]


def _range(sizes: Sequence[float]) -> str:
    if not sizes:
        return "not known"
    low, high = f"{sizes[0]:.4g}", f"{sizes[-1]:.4g}"
    return low if low == high else f"{low} to {high}"
