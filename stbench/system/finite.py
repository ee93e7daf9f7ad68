"""Values that are not finite numbers: how many there are, and where the first one stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class NotFinite:
    """What is wrong with a table of numbers."""

    count: int
    row: int  # of the first one, in reading order
    column: int


def not_finite(values: np.ndarray) -> NotFinite | None:
    """The NaN and infinite values of an array of shape (rows, columns); ``None`` where there are none."""
    wrong = ~np.isfinite(values)
    if not wrong.any():
        return None
    row, column = np.argwhere(wrong)[0]
    return NotFinite(int(wrong.sum()), int(row), int(column))
