"""Reports: tables, figures and one self-contained page from the results directories that ``stbench run`` writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ReportFiles:
    """What a report consists of. ``headlines``: for each section its name and what it says in plain words."""

    directory: Path
    page: Path
    tables: tuple[Path, ...]
    figures: tuple[Path, ...]
    headlines: tuple[tuple[str, str], ...]


def report(results: Sequence[Path], out: Path, compare_paper: bool = False) -> ReportFiles:
    """Write ``out/report.html``, ``out/tables/`` and ``out/figures/`` from one or several results directories.

    One section for each (dataset, split, target): nothing is ranked across them. ``compare_paper`` adds the published
    numbers and claims beside ours. Raises ``UserError`` for input that
    is not a results directory, is unreadable, or holds two outcomes under one name.
    """
    from .write import write_report  # brings matplotlib and jinja2, which the command line does not need at its start

    return write_report(results, out, compare_paper)


__all__ = ["ReportFiles", "report"]
