"""Single values in files of other tools: R knows no scalars and writes vectors of one, others write numbers as text."""

from __future__ import annotations

from typing import Any

import numpy as np

NO_TEXT = ("", "NA", "None")  # how R and Python spell that there is none


def single(value: Any) -> Any:
    """``value`` itself, or what a vector or list of one holds."""
    if value is None or isinstance(value, str | bytes):
        return value
    array = np.asarray(value, dtype=object)
    return array.ravel()[0] if array.size == 1 else value


def as_text(value: Any) -> str | None:
    """The text that ``value`` is or holds; ``None`` for anything else."""
    value = single(value)
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    return value if isinstance(value, str) and value.strip() not in NO_TEXT else None


def as_number(value: Any) -> float | None:
    """The finite number that ``value`` is, holds or spells; ``None`` for anything else, logical values included."""
    value = single(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, str | bytes | int | float | np.number):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):  # no number, or a whole one of hundreds of digits
        return None
    return number if np.isfinite(number) else None
