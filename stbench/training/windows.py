"""The windows of one slide as they are read for a network: the centre, with what lies outside the image painted."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from ..method import TestSlide
from ..slides.content import with_content
from ..system.mapped import require_whole

Padding = Literal["white", "black"]  # of what lies outside the image in a window at its border
AnySlide = TypeVar("AnySlide", bound=TestSlide)


def central_windows(slide: AnySlide, side: int) -> AnySlide:
    """The slide with the central ``side`` pixels of its windows, which are at least as large; patches are a view.

    It has a content key of its own where the slide has one.
    """
    start = _start(slide.patches, side)
    margins = slide.margins
    if margins is not None:
        margins = (margins - _cut_off(slide.patches, side)).clip(0)
    cut = replace(slide, patches=slide.patches[:, start : start + side, start : start + side], margins=margins)
    return cut if slide.content is None else with_content(cut, f"{slide.content}, central {side} px")


@dataclass(frozen=True)
class Windows:
    """The centre of one slide's windows."""

    pixels: np.ndarray  # (n, side, side, 3) uint8; a view
    margins: np.ndarray | None  # (n, 4): pixels of each that are made black: left, above, right, below; None: none
    key: Hashable  # what tells them, as they are read, from those of other slides; None: nothing does

    @classmethod
    def of(cls, slide: TestSlide, patch_px: int, padding: Padding) -> Windows:
        """The central ``patch_px`` pixels of a slide's windows, or whole ones where they are smaller."""
        side = min(slide.patches.shape[1], patch_px)
        start = _start(slide.patches, side)
        margins = None
        if padding == "black" and slide.margins is not None:
            margins = (np.asarray(slide.margins) - _cut_off(slide.patches, side)).clip(0, side)
        black = None if margins is None or not margins.any() else margins
        painted = b"" if black is None else black.tobytes()
        key = None if slide.content is None else (slide.content, side, painted)
        return cls(slide.patches[:, start : start + side, start : start + side], black, key)

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        return int(self.pixels.shape[1])

    def read(self, start: int, stop: int, into: np.ndarray) -> None:
        """Windows ``start`` to ``stop`` into an array of their shape."""
        require_whole(self.pixels)
        into[...] = self.pixels[start:stop]
        if self.margins is not None:
            for place, window in enumerate(into):
                self._paint(window, self.margins[start + place])

    def read_one(self, index: int, into: np.ndarray) -> None:
        """One window into an array of its shape; whoever reads many calls ``require_whole`` once before."""
        into[...] = self.pixels[index]
        if self.margins is not None:
            self._paint(into, self.margins[index])

    def _paint(self, window: np.ndarray, margins: np.ndarray) -> None:
        left, above, right, below = margins
        window[:, :left] = 0
        window[:above] = 0
        window[:, self.side - right :] = 0
        window[self.side - below :] = 0


def _start(patches: np.ndarray, side: int) -> int:
    """First row and column of the central ``side`` pixels: the spot's centre is pixel ``side // 2`` of any window."""
    return int(patches.shape[1] // 2 - side // 2)


def _cut_off(patches: np.ndarray, side: int) -> np.ndarray:
    """Pixels that the centre leaves out: left, above, right, below."""
    start, whole = _start(patches, side), patches.shape[1]
    return np.array([start, start, whole - side - start, whole - side - start])
