"""Numbers as cells: what is printed, and what a table is sorted by. An undefined number is said, and sorted last."""

from __future__ import annotations

import math

from ..words.format import number
from .table import Cell

DASH = "–"


def number_cell(value: float, digits: int = 4, undefined: str = DASH, strong: bool = False, minor: str = "") -> Cell:
    """``0.1234``; of an undefined value ``undefined`` alone."""
    return Cell(undefined) if math.isnan(value) else Cell(number(value, digits), float(value), strong, minor=minor)


def count_cell(value: float) -> Cell:
    """``12``"""
    return Cell(DASH) if math.isnan(value) else Cell(f"{int(value)}", float(value))


def amount_cell(value: float, digits: int = 0) -> Cell:
    """``1,234``, for what may be large."""
    return Cell(DASH) if math.isnan(value) else Cell(f"{value:,.{digits}f}", float(value))


def rank_cell(value: float, strong: bool = False) -> Cell:
    """``3``; tied ranks are whole numbers, too."""
    return Cell(DASH) if math.isnan(value) else Cell(f"{value:.0f}", float(value), strong)


def worded_cell(words: str, value: float) -> Cell:
    """``words`` say ``value``, also where it is undefined."""
    return Cell(words, None if math.isnan(value) else float(value))


def text_cell(value: object) -> Cell:
    """A text, by which it is sorted."""
    return Cell(str(value), str(value))
