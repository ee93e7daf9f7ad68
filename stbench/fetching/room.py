"""Whether a disk has room for what is about to be written."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..errors import PlaceError

SPARE = 256 << 20  # bytes that are left free


def require_room(folder: Path, needed: int) -> None:
    """``PlaceError`` where ``needed`` bytes, and some to spare, do not fit into the file system of ``folder``."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    free = shutil.disk_usage(there).free
    if needed + SPARE > free:
        raise PlaceError(
            f"{folder} has {in_words(free)} free and {in_words(needed)} are needed - make room, or choose another "
            "place (--data); the same command then goes on"
        )


def in_words(n_bytes: int) -> str:
    """
    Examples
    --------
    >>> in_words(812), in_words(1_340_590), in_words(2_500_000_000)
    ('812 bytes', '1.3 MB', '2.5 GB')
    """
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"
