"""What MLflow takes at once, and at most: what is much is split, a long value is cut with a mark, and that is said."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

LONGEST_PARAM, LONGEST_TAG = 6000, 4000  # characters
CUT = " ... (cut)"
MOST_METRICS, MOST_PARAMS, MOST_TAGS = 1000, 100, 100  # of one request
MOST_BYTES = 800_000  # of one request, as counted here; MLflow takes 1,000,000, and lays JSON out in its own way
ENTRY_BYTES = 160  # of an entry in a request, beside its name and its text

Entry = TypeVar("Entry")


@dataclass(frozen=True)
class Point:
    """One value of a metric. ``when``: milliseconds since the epoch."""

    name: str
    value: float
    when: int
    step: int = 0


@dataclass(frozen=True)
class Batch:
    """What one request logs."""

    metrics: Sequence[Point] = ()
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)


def cut_all(values: Mapping[str, object], longest: int) -> dict[str, str]:
    """The values as texts that are not longer than ``longest`` characters."""
    return {name: cut(str(value), longest) for name, value in values.items()}


def cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(CUT)] + CUT


def batches(metrics: Iterable[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> Iterator[Batch]:
    """All of it in requests that MLflow takes: parameters first, tags last, so that a tag may speak of what it follows.

    >>> from stbench.results.tracking.limits import Point, batches
    >>> [len(batch.metrics) for batch in batches([Point("mse", 0.5, 0, step) for step in range(2500)], {}, {})]
    [1000, 1000, 500]
    """
    for entries in _split(params.items(), MOST_PARAMS, _bytes_of_text):
        yield Batch(params=dict(entries))
    for points in _split(metrics, MOST_METRICS, _bytes_of_point):
        yield Batch(metrics=points)
    for entries in _split(tags.items(), MOST_TAGS, _bytes_of_text):
        yield Batch(tags=dict(entries))


def _split(entries: Iterable[Entry], most: int, bytes_of: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    part: list[Entry] = []
    size = 0
    for entry in entries:
        entry_size = bytes_of(entry)
        if part and (len(part) == most or size + entry_size > MOST_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += entry_size
    if part:
        yield part


def _bytes_of_point(point: Point) -> int:
    return ENTRY_BYTES + len(json.dumps(point.name))


def _bytes_of_text(entry: tuple[str, str]) -> int:
    return ENTRY_BYTES + sum(len(json.dumps(text)) for text in entry)
