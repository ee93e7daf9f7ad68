"""Times as Slurm writes them."""

from __future__ import annotations

import re

from ....errors import UserError

NO_LIMIT = ("infinite", "unlimited", "-1")
FORM = re.compile(r"(?:(?P<days>\d+)-(?P<of_day>\d+(?::\d+){0,2})|(?P<plain>\d+(?::\d+){0,2}))")


def seconds_of_limit(text: str) -> int | None:
    """What ``--time`` means: seconds, or ``None`` where there is no limit (0, ``UNLIMITED``). Raises ``UserError``.

    Slurm reads ``MINUTES``, ``MINUTES:SECONDS``, ``HOURS:MINUTES:SECONDS``, ``DAYS-HOURS``, ``DAYS-HOURS:MINUTES`` and
    ``DAYS-HOURS:MINUTES:SECONDS``.

    Examples
    --------
    >>> [seconds_of_limit(text) for text in ("90", "90:30", "4:00:00", "1-02", "1-02:00", "UNLIMITED")]
    [5400, 5430, 14400, 93600, 93600, None]
    """
    words = text.strip().lower()
    if words in NO_LIMIT:
        return None
    found = FORM.fullmatch(words)
    if found is None:
        raise UserError(
            f"time={text} is no time of Slurm's - write minutes, or for example 4:00:00 (hours:minutes:seconds) or "
            "1-12:00 (days-hours:minutes)"
        )
    if found["days"] is not None:  # what follows counts from the hours
        hours, minutes, seconds = [*map(int, found["of_day"].split(":")), 0, 0][:3]
        return (int(found["days"]) * 86400 + hours * 3600 + minutes * 60 + seconds) or None
    parts = [int(part) for part in found["plain"].split(":")]
    if len(parts) < 3:  # minutes come first where there are no hours
        parts = [0, *parts, 0][:3]
    hours, minutes, seconds = parts
    return (hours * 3600 + minutes * 60 + seconds) or None
