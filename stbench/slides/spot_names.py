"""Names of spots on first-generation arrays: ``<x>x<y>``, as in ``7x12``; HEST-1k pads them to ``007x012``.

A name in this form says which spot it is, whatever the columns beside it are called: HEST-1k writes x, the first
number, into ``array_row``, everybody else into ``array_col``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np

PLAIN = re.compile(r"(\d+)x(\d+)")
# what concatenating several sections puts in front or behind: S1_7x12, 7x12-1
MARKED = re.compile(r"(?:.*[-_: ])?(\d+)x(\d+)(?:[-_: ].*)?")


def spot_name(x: int, y: int) -> str:
    return f"{x}x{y}"


def plain_name(name: str) -> str | None:
    """``name`` without padding, as ``7x12``; ``None`` where it has not the form ``<x>x<y>``."""
    match = PLAIN.fullmatch(name)
    return None if match is None else spot_name(int(match[1]), int(match[2]))


def indices_in_names(names: Iterable[str]) -> np.ndarray | None:
    """(n_spots, 2) int64: x, y as the names say, with or without a mark of their section; ``None`` if one does not."""
    matches = [MARKED.fullmatch(str(name)) for name in names]
    if not matches or not all(matches):
        return None
    return np.array([[int(match[1]), int(match[2])] for match in matches if match is not None], dtype=np.int64)
