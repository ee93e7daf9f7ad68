"""What is computed from a slide's patches alone is computed once: the folds of a benchmark share their slides."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

import numpy as np

from stbench.method import TestSlide

KEPT_BYTES = 2**29


class SlideResults:
    """Arrays that were computed of slides' patches: those that were used last, up to ``limit`` bytes together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.n_bytes = 0
        self._kept: OrderedDict[tuple[str | None, Hashable], np.ndarray] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def once(self, slide: TestSlide, what: Hashable, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """``compute()``, or what it gave earlier for a slide of the same content and the same ``what``; read-only.

        A slide without a content key is computed anew.
        """
        key = (slide.content, what)
        value = self._kept.get(key)
        if value is None:
            value = compute()
            value.setflags(write=False)
            if slide.content is not None and value.nbytes <= self.limit:
                self._keep(key, value)
        else:
            self._kept.move_to_end(key)
        return value

    def _keep(self, key: tuple[str | None, Hashable], value: np.ndarray) -> None:
        self._kept[key] = value
        self.n_bytes += value.nbytes
        while self.n_bytes > self.limit:
            _, oldest = self._kept.popitem(last=False)
            self.n_bytes -= oldest.nbytes


RESULTS = SlideResults(KEPT_BYTES)  # of this process


def once_per_slide(slide: TestSlide, what: Hashable, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """:meth:`SlideResults.once` of this process."""
    return RESULTS.once(slide, what, compute)
