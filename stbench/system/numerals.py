"""Numbers as text of a bounded width, so that one that went astray does not break a table."""

from __future__ import annotations

LARGEST_PLAIN = 1e5  # what is larger is written with an exponent


def bounded(value: float, digits: int = 4) -> str:
    """``0.1234``, or ``2.7e+18`` where the number is huge.

    >>> bounded(0.12345), bounded(-2.71e18), bounded(99999.0, 1), bounded(float("inf"))
    ('0.1235', '-2.7e+18', '99999.0', 'inf')
    """
    return f"{value:.{digits}f}" if abs(value) < LARGEST_PLAIN else f"{value:.1e}"
