"""What a trial may take: time and memory, enforced from outside its process."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...errors import UserError

TIME = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?")
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


@dataclass(frozen=True)
class Limits:
    """None: there is none."""

    seconds: float | None = None
    resident_bytes: int | None = None  # of the worker and all its children together


def seconds_of(text: str) -> float:
    """``90``, ``15m``, ``2h``, ``1d12h`` in seconds. Raises ``UserError``.

    Examples
    --------
    >>> seconds_of("1h30m")
    5400.0
    """
    found = TIME.fullmatch(text.strip().lower())
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups()) if found else (0, 0, 0, 0)
    total = float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
    if total <= 0:
        raise UserError(f"'{text}' is no time - write seconds, or for example 15m, 2h, 1d12h")
    return total


def bytes_of(text: str) -> int:
    """``800M``, ``16G`` in bytes (powers of 1024). Raises ``UserError``.

    Examples
    --------
    >>> bytes_of("1.5G")
    1610612736
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    total = int(float(found[1]) * UNITS[found[2]]) if found else 0
    if total <= 0:
        raise UserError(f"'{text}' is no amount of memory - write for example 800M or 16G")
    return total
