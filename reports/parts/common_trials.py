"""Where methods stand on the trials that all of them finished: said where one of them lacks some."""

from __future__ import annotations

from ..numbers.common_trials import standings
from ..sections.section import Section
from ..tables.standings import board_table, lead
from .part import Context, Part

QUESTION = "Who is ahead on the trials that all finished?"


def part(section: Section, context: Context) -> Part | None:
    """``None`` where all methods finished the same trials, or fewer than two can be ranked.

    The report's table leaves an entry out of its ranks that lacks a single trial; here it is ranked with the others,
    all on what they share.
    """
    standing = standings(section)
    ranked = standing.table[standing.table["ranked"]]
    if len(ranked) < 2 or (ranked["n_trials"] == len(standing.common)).all():
        return None
    return Part("common-trials", QUESTION, lead(standing), [board_table(standing, with_runs=False)])
