"""The rows of a table to be, and what each is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..published.methods import ORDER
from .section import records

IDENTITY = ["method", "preset", "variant", "weights", "lowered", "version"]  # of an entry
NOT_PRINTED = ["tags", "version", "weights_kind"]  # columns of entries that the label says, or that label it


def entries_of(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per entry among ``rows``, indexed by ``entry``, in the order of the table, with its tags and label."""
    facts = ["title", "kind", "oracle", "leak", "weights_kind"]
    table = rows.drop_duplicates(IDENTITY)[[*IDENTITY, *facts]].reset_index(drop=True)

    def place(row: Any) -> tuple[int, int, int]:
        if row.kind == "control":
            return (2, int(row.oracle), row.Index)
        return (0, ORDER.index(row.method), row.Index) if row.method in ORDER else (1, 0, row.Index)

    table = table.iloc[[row.Index for row in sorted(records(table), key=place)]].reset_index(drop=True)
    table["tags"] = [_tags(row) for row in records(table)]
    brief = [_named(row.title, _warning_tags(row)) for row in records(table)]
    full = [_named(row.title, row.tags) for row in records(table)]
    table["label"] = [long if brief.count(short) > 1 else short for short, long in zip(brief, full, strict=True)]
    table["entry"] = [
        "/".join(filter(None, (row.method, row.preset, row.variant, row.weights, row.lowered, row.version)))
        for row in records(table)
    ]
    return table.set_index("entry")


def with_entry(rows: pd.DataFrame, entries: pd.DataFrame) -> pd.DataFrame:
    """``rows`` with the column ``entry``: whose row each is."""
    names = entries.reset_index().set_index(IDENTITY)["entry"]
    return rows.join(names, on=IDENTITY)


def _tags(row: Any) -> tuple[str, ...]:
    """What must stand beside a method's name: oracle, preset, changes to it, weights, a precision below float32."""
    preset = "" if row.kind == "control" and row.preset == "published" else row.preset
    weights = f"weights: {row.weights}" if row.weights not in ("", "none") else ""
    return tuple(filter(None, (_oracle_tag(row), preset, row.variant, weights, row.lowered, row.version)))


def _warning_tags(row: Any) -> tuple[str, ...]:
    """The part of the tags that changes what a number means; figures have room for no more."""
    random = "random weights" if row.weights_kind == "random" else ""
    # a control has no published settings to depart from
    preset = row.preset if row.kind != "control" and row.preset not in ("", "published") else ""
    return tuple(filter(None, (_oracle_tag(row), preset, row.variant, random, row.lowered, row.version)))


def _oracle_tag(row: Any) -> str:
    if row.leak:
        return "leak"
    return "oracle" if row.oracle and "oracle" not in row.title.lower() else ""


def _named(title: str, tags: Sequence[str]) -> str:
    return f"{title} ({', '.join(tags)})" if tags else title
