"""Raw counts: what is wrong with values as such, and counts that are whole but for rounding.

Files that went through 32-bit floating point, or through a logarithm and back, hold 2.9999998 where 3 was counted.
Such values are taken for the whole number that they are next to, and a reader says so; anything else that is not whole
is no count.
"""

from __future__ import annotations

import numpy as np

HIGHEST = int(np.iinfo(np.int32).max)  # counts are kept as int32
# How far a count may lie from a whole number. A logarithm and back in 32 bits moves x by up to 1e-6 x.
ROUNDING, RELATIVE_ROUNDING, FARTHEST = 1e-3, 1e-6, 0.1


def count_fault(values: np.ndarray) -> str | None:
    """What is wrong with ``values`` as raw counts, in words; ``None`` when they are non-negative integers.

    Values that are whole but for rounding are accepted: :func:`distance_to_whole` says by how much.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "iufb":
        return f"values of type {values.dtype} where numbers are expected"
    if values.size == 0:
        return None
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        return f"{np.count_nonzero(~np.isfinite(values))} missing or infinite values (NaN) among the counts"
    if values.min() < (-ROUNDING if values.dtype.kind == "f" else 0):
        return f"negative counts (the smallest is {_shown(values.min())})"
    if values.max() > HIGHEST:
        return f"a count of {_shown(values.max())}, more than {HIGHEST} can be no count of molecules"
    if values.dtype.kind != "f":
        return None
    whole = np.rint(values)
    distance = np.abs(values - whole)
    far = distance > np.minimum(ROUNDING + RELATIVE_ROUNDING * np.abs(whole), FARTHEST)
    if far.any():
        return f"counts that are not whole numbers (for example {_worst(values, distance)}): normalised or logged?"
    if distance.any() and not whole.any():  # shares of a total, all of them small, are not zeros
        return f"values that are all near zero, but not zero (for example {_worst(values, distance)}): normalised?"
    return None


def distance_to_whole(values: np.ndarray) -> float:
    """The largest distance of a value to a whole number; 0.0 for whole numbers of whatever type."""
    values = np.asarray(values)
    if values.dtype.kind != "f" or values.size == 0:
        return 0.0
    return float(np.abs(values - np.rint(values)).max())


def _worst(values: np.ndarray, distance: np.ndarray) -> str:
    """The value farthest from a whole number."""
    return _shown(values.ravel()[int(np.argmax(distance))])


def _shown(value: np.generic) -> str:
    """A number in the fewest digits that no other number of its type has, without an exponent."""
    return np.format_float_positional(value, trim="-") if isinstance(value, np.floating) else str(value)
