"""Names of entries, broken into the lines for which a figure has room."""

from __future__ import annotations

import textwrap


def broken(name: str, width: int, max_lines: int | None = None) -> str:
    """``name`` in lines of at most ``width`` characters; if possible what is in brackets stands in a line of its own.

    What does not fit in ``max_lines`` is cut, with an ellipsis.

    >>> broken("Ridge on features (random weights)", 20)
    'Ridge on features\\n(random weights)'
    """
    title, bracket, tags = name.rpartition(" (")
    if bracket and len(name) > width >= max(len(title), len(tags) + 1):
        return f"{title}\n({tags}"
    return textwrap.fill(name, width, max_lines=max_lines, placeholder=" …")
