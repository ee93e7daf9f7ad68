"""Reports: tables, figures and one self-contained page from the results directories that ``stbench run`` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def report(
    results: Sequence[Path],
    out: Path,
    compare_paper: bool = False,
    genes: Sequence[str] = (),
    summaries: Mapping[Path, str] | None = None,
) -> ReportFiles:
    """Write ``out/report.html``, ``out/tables/`` and ``out/figures/`` from one or several results directories.

    One section for each (dataset, split, target): nothing is ranked across them. ``compare_paper`` adds the published
    numbers and claims beside ours; ``genes`` are drawn over the tissue, else the best predicted ones; ``summaries``:
    see :func:`stbench.reports.load.load`. Raises ``UserError`` for input that is not a results directory, is
    unreadable, or holds two outcomes under one name.
    """
    from .write import write_report  # brings matplotlib and jinja2, which the command line does not need at its start

    return write_report(results, out, compare_paper, genes, summaries)


@dataclass(frozen=True)
class LeaderboardFiles:
    """What a leaderboard consists of. ``headlines``: for each section its name and its finding in one sentence."""

    directory: Path
    page: Path
    table: Path
    headlines: tuple[tuple[str, str], ...]


def leaderboard(results: Sequence[Path], out: Path, summaries: Mapping[Path, str] | None = None) -> LeaderboardFiles:
    """Write ``out/leaderboard.html`` and ``out/leaderboard.csv`` from results directories of any dates and machines.

    One section for each (dataset, split, target), ranked on the trials that every ranked entry finished; versions of a
    method are entries of their own. Raises ``UserError`` where two directories scored a slice differently.
    """
    from .leaderboard_page import write_leaderboard

    return write_leaderboard(results, out, summaries)


__all__ = ["LeaderboardFiles", "ReportFiles", "leaderboard", "report"]
