"""The parts of a report, in the order in which the page shows them; each module answers one question."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..load import Section
from ..part import Context, Part
from . import alarms, claims, cost

PARTS: Sequence[Callable[[Section, Context], Part | None]] = (
    alarms.part,
    cost.part,
    claims.part,
)


def parts(section: Section, context: Context) -> list[Part]:
    """What there is to say about a section; a part that has nothing to work with is left out."""
    return [made for make in PARTS if (made := make(section, context)) is not None]
