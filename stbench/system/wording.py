"""Names as people write them one after the other."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """``A, B and C``, ``A and B``, ``A``; there is one name at least."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, what: str) -> str:
    """``1 file``, ``1,250 files``: for words that take an s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
