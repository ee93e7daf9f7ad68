"""Runs of several dates and machines as one: refused where they answer different questions, versions kept apart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from stbench.errors import UserError

from .read import read, sections
from .section import Run, Section, records
from .specs import specs_of_rows

PROTOCOL = ["dataset", "split", "target"]
IDENTITY = [*PROTOCOL, "method", "preset", "variant", "weights", "lowered"]


def load_merged(results: Sequence[Path], summaries: Mapping[Path, str] | None = None) -> list[Section]:
    """Results directories as sections, without per-gene tables; two versions of a method are two entries.

    Raises ``UserError``, with both directories, where a slice of one section has other spots, genes, content or
    training slices in one than in another.
    """
    rows, runs = read(results, summaries)
    _require_one_protocol(rows, runs)
    return sections(rows.assign(version=_versions(rows, runs)), runs, with_genes=False)


def _require_one_protocol(rows: pd.DataFrame, runs: Mapping[Path, Run]) -> None:
    """Compare whatever the directories say of the same thing; what one does not say is not compared."""
    said: dict[tuple[str, ...], tuple[Any, str]] = {}
    for *about, value, directory in [*_of_rows(rows), *_of_runs(runs)]:
        first, place = said.setdefault(tuple(about), (value, directory))
        if value != first:
            *protocol, name, what = about
            raise UserError(
                f"{name} of {', '.join(protocol)} has {what} {_short(first)} in {place} and {_short(value)} in "
                f"{directory}: these are different questions - rank them apart"
            )


def _of_rows(rows: pd.DataFrame) -> Iterator[tuple[Any, ...]]:
    sizes = rows.dropna(subset=["n_spots", "n_genes"]).drop_duplicates([*PROTOCOL, "slice", "directory"])
    for row in records(sizes):
        for what, value in (("spots", row.n_spots), ("genes", row.n_genes)):
            yield (row.dataset, row.split, row.target, f"slice {row.slice}", what, int(value), row.directory)


def _of_runs(runs: Mapping[Path, Run]) -> Iterator[tuple[Any, ...]]:
    for directory, run in runs.items():
        for section in run.record.sections:
            yield (*section.protocol, "the target", "the formula", section.target.formula, str(directory))
            for name, slide in section.slides.items():
                yield (*section.protocol, f"slice {name}", "the content", slide.key, str(directory))
            for fold in section.folds:
                trained = tuple(sorted(fold.train))
                # of a transfer several models, of several folds, are tested on one slice
                which = "the training slices" if section.transfer is None else f"the training slices of {fold.name}"
                for name in fold.test:
                    yield (*section.protocol, f"slice {name}", which, trained, str(directory))


def _short(value: Any) -> str:
    if not isinstance(value, tuple):
        return str(value)[:80]
    return f"{', '.join(value[:6])}{', ...' if len(value) > 6 else ''} ({len(value)})"


def _versions(rows: pd.DataFrame, runs: Mapping[Path, Run]) -> pd.Series:
    """``version 1 of 2``, the older run first, where a method has several versions in a section; else empty.

    Versions differ in the method's code. Where that does not tell two outcomes of one trial apart (another version of
    the package, predictions made elsewhere), the runs do.
    """
    code = pd.Series([spec.method_source for spec in specs_of_rows(rows)], index=rows.index)
    created = rows["directory"].map({str(at): run.record.created for at, run in runs.items()})
    label = pd.Series("", index=rows.index)
    for _, same in rows.groupby(IDENTITY, sort=False):
        for _, part in same.groupby(code[same.index]):
            if part.groupby(["seed", "slice"])["key"].nunique().gt(1).any():
                code[part.index] += " " + part["directory"]
        names = code[same.index]
        if len(set(names)) > 1:
            oldest_first = list(created[same.index].groupby(names, sort=False).min().sort_values(kind="stable").index)
            label[same.index] = names.map(
                {name: f"version {place} of {len(oldest_first)}" for place, name in enumerate(oldest_first, start=1)}
            )
    return label
