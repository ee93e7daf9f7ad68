"""Numbers as text."""

from __future__ import annotations

import math

from stbench.system.numerals import bounded


def number(value: float, digits: int = 4) -> str:
    """``0.1234``, with a true minus sign; an undefined value is a dash, and a huge one is ``2.7e+18``."""
    return "–" if math.isnan(value) else bounded(value, digits).replace("-", "−")


def plus_minus(mean: float, spread: float, digits: int = 4) -> str:
    """``0.1234 ± 0.012`` as the paper prints it: the spread with one digit less; left out where there is none."""
    return number(mean, digits) if math.isnan(spread) else f"{number(mean, digits)} ± {number(spread, digits - 1)}"


def percent(share: float) -> str:
    """``34 %``, with a true minus sign; a dash where it is undefined."""
    return "–" if math.isnan(share) else f"{round(100 * share)} %".replace("-", "−")
