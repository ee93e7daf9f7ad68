"""Tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .latex import cell_text, joined_head
from .table import Cell, Table


def markdown(table: Table) -> str:
    """A pipe table with its caption above and its notes below. Header groups become prefixes of their columns."""
    headers = [joined_head(group, column) for group, column in zip(table.group_of, table.columns, strict=True)]
    align = ["---" if i in table.text_columns else "---:" for i in range(len(headers))]
    lines = [f"**{_markdown_escape(table.caption)}**", "", _pipes(map(_markdown_escape, headers)), _pipes(align)]
    for place, block in enumerate(table.blocks):
        if place and block:
            lines.append(_pipes("" for _ in headers))
        lines += [_pipes(map(_markdown_cell, row)) for row in block]
    lines += ["", *(f"- {_markdown_escape(note)}" for note in table.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _markdown_cell(cell: Cell) -> str:
    text = _markdown_escape(cell_text(cell))
    return f"**{text}**" if cell.strong and text else text


def _markdown_escape(text: str) -> str:
    """``text`` as it is, where Markdown would have marks, HTML, an entity, a formula (``$``) or a heading."""
    return re.sub(r"([\\`*_|<>\[\]~$&]|^[#+]|^-(?= )|(?<=^\d)[.)](?= ))", r"\\\1", " ".join(text.split()))


def _pipes(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
