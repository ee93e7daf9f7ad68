"""A process with its children, of which some may be gone before they are looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def family(pid: int) -> list[psutil.Process]:
    """A process and its children, as far as they can be seen."""
    import psutil

    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.Error:
        return []


def resident_bytes(processes: Iterable[psutil.Process]) -> int:
    """What they hold in memory together."""
    import psutil

    total = 0
    for each in processes:
        with contextlib.suppress(psutil.Error):
            total += each.memory_info().rss
    return total
