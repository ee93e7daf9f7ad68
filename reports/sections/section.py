"""A section of a report: everything that may stand in one table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from stbench.data.transfer import Transfer
from stbench.results.run_record import RunRecord, SectionRecord, SlideRecord
from stbench.trials.spec import TrialSpec

PRESET_OF_OTHERS = "external"  # predictions made elsewhere: their trials' notes say so


@dataclass(frozen=True)
class Run:
    """One results directory, and what its ``run.json`` says."""

    directory: Path
    record: RunRecord

    @property
    def name(self) -> str:
        return self.directory.name


@dataclass(frozen=True)
class Section:
    """Everything that may stand in one table: one dataset, one split, one target.

    ``rows``: one per trial and test slice, columns of ``summary.csv`` and ``entry``. ``entries``: one per row of the
    table to be (a method under one preset, variant, kind of weights and precision), indexed by ``entry``, in the order
    of the table: published methods as in the paper, other methods, controls, oracles. ``genes``: entry, seed and the
    columns of the trials' ``genes.parquet`` (slice, gene, r, p, strict_r, mean_truth, ...). ``derived``: what was
    computed of all this, by name, so that it is computed once.
    """

    dataset: str
    split: str
    target: str
    title: str
    formula: str
    rows: pd.DataFrame
    entries: pd.DataFrame
    specs: Mapping[str, TrialSpec]  # entry to the spec of one of its trials
    genes: pd.DataFrame
    slices: tuple[str, ...]  # test slices, in fold order
    patients: Mapping[str, str]
    expected: tuple[str, ...]  # all slices of the dataset, in fold order; empty: unknown
    missing: Mapping[str, str]  # slice to the reason why it is not there
    recorded: tuple[SectionRecord, ...]  # what each run says of this section
    runs: tuple[Run, ...]
    notes: pd.DataFrame  # entry, note, trials: what methods had to tell
    logs: Mapping[str, str]  # key of a failed trial to the last lines of its log
    without_genes: tuple[str, ...]  # keys of finished trials that have no per-gene table
    unrun_seeds: tuple[str, ...] = ()  # planned, and not run through by any entry yet: their rows are left out
    derived: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def name(self) -> str:
        return f"{self.dataset}-{self.split}-{self.target}"

    @property
    def coverage(self) -> str:
        """``6/32 slices``; ``6 slices`` where the dataset's full number is not known."""
        out_of = f"/{len(self.expected)}" if self.expected else ""
        return f"{len(self.slices)}{out_of} slice{'' if not out_of and len(self.slices) == 1 else 's'}"


def records(frame: pd.DataFrame) -> Iterator[Any]:
    """The rows as named tuples, whose fields have the columns' types."""
    yield from frame.itertuples()


def windows(section: Section) -> tuple[float | None, int | None]:
    """Side of the windows in micrometres (``None``: they have as many pixels as patches) and of patches in pixels."""
    for recorded in section.recorded:
        return recorded.patch_um, recorded.patch_px
    return None, None


def transfer(section: Section) -> Transfer | None:
    """Which dataset was trained on and which is tested; ``None`` where they are one."""
    found = (recorded.transfer for recorded in section.recorded)
    return next((Transfer(**dict(record)) for record in found if record is not None), None)


def slides(section: Section) -> dict[str, SlideRecord]:
    """Every prepared slide that any of the section's runs recorded, by slice."""
    return {name: slide for recorded in section.recorded for name, slide in recorded.slides.items()}
