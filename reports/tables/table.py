"""A table, cell by cell, before it is typeset."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Cell:
    """``text`` as printed; ``value`` to sort by (None: last); ``tags`` stand beside it; ``minor`` is a second line."""

    text: str
    value: float | str | None = None
    strong: bool = False
    tags: tuple[str, ...] = ()
    minor: str = ""


@dataclass(frozen=True)
class Table:
    """``groups``: header groups as (text, number of columns), or none. ``blocks``: rows, a rule between blocks."""

    name: str
    caption: str
    columns: tuple[str, ...]
    blocks: tuple[tuple[tuple[Cell, ...], ...], ...]
    groups: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()
    text_columns: frozenset[int] = field(default_factory=lambda: frozenset({0}))

    @property
    def group_of(self) -> tuple[str, ...]:
        """The header group of each column; empty strings where there are none."""
        return tuple(text for text, n in self.groups for _ in range(n)) or ("",) * len(self.columns)

    @property
    def n_rows(self) -> int:
        return sum(map(len, self.blocks))
