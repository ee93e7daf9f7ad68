"""What is computed from a slide's patches alone is computed once: the folds of a benchmark share their slides."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable

import numpy as np

_known: dict[tuple[int, Hashable], np.ndarray] = {}


def once_per_slide(patches: np.ndarray, what: Hashable, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """``compute()``, or what it gave earlier in this process for the same array and the same ``what``; read-only.

    Remembered for as long as the array lives, and only for one that cannot be written to, as prepared patches are.
    """
    key = (id(patches), what)
    if key in _known:
        return _known[key]
    value = compute()
    value.setflags(write=False)
    if not patches.flags.writeable:
        _known[key] = value
        weakref.finalize(patches, _known.pop, key, None)
    return value
