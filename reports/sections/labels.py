"""What entries are called in words and figures."""

from __future__ import annotations

from .section import Section


def entry_label(section: Section, entry: str) -> str:
    """As in the table; with ``3/6`` behind it where not every slice and seed has finished."""
    rows = section.rows[section.rows["entry"] == entry]
    finished = int((rows["state"] == "finished").sum())
    share = "" if finished == len(rows) else f" ({finished}/{len(rows)})"
    return f"{entry_labels(section)[entry]}{share}"


def entry_labels(section: Section) -> dict[str, str]:
    """Entry to its name in tables and figures, in the order of the table."""
    return {str(entry): str(label) for entry, label in section.entries["label"].items()}
