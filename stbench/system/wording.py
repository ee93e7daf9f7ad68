"""Names one after the other, numbers and sizes, as people write them."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str]) -> str:
    """``A, B and C``, ``A and B``, ``A``; there is one name at least."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def counted(number: int, what: str) -> str:
    """``1 file``, ``1,250 files``: for words that take an s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def that(number: int, what: str, verb: str, verbs: str) -> str:
    """``1 gene is``, ``1,250 genes are``: ``verb`` for one, ``verbs`` for more."""
    return f"{counted(number, what)} {verb if number == 1 else verbs}"


def shortened(names: Sequence[str], most: int) -> str:
    """``A, B, C``; of more than ``most`` the first, and ``, ...``."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def amount(n_bytes: float) -> str:
    """``310 MiB``, ``4.2 GiB``"""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
