"""Reports: tables, figures and one self-contained page from the results directories that ``stbench run`` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from .page.files import LeaderboardFiles, ReportFiles


def report(
    results: Sequence[Path],
    out: Path,
    compare_paper: bool = False,
    genes: Sequence[str] = (),
    summaries: Mapping[Path, str] | None = None,
    processes: int | None = 1,
) -> ReportFiles:
    """Write ``out/report.html``, ``out/tables/`` and ``out/figures/`` from one or several results directories.

    There is one section for each (dataset, split, target): nothing is ranked across them.

    Parameters
    ----------
    results : sequence of Path
        Directories that ``stbench run`` wrote.
    out : Path
        Folder of the report; made where it is not there.
    compare_paper : bool, default=False
        Add the published numbers and claims beside ours.
    genes : sequence of str, default=()
        Genes that are drawn over the tissue; the best predicted ones if none is named.
    summaries : mapping of Path to str, optional
        See :func:`stbench.reports.sections.read.load`.
    processes : int or None, default=1
        Processes that draw; with 1 this one does. ``None``: as many as are worth their start and have a core and
        memory, four at most. The files are the same, byte for byte.

    Returns
    -------
    ReportFiles
        What was written.

    Raises
    ------
    UserError
        If an input is not a results directory, is unreadable, or holds two outcomes under one name.
    """
    from .page.report import write_report

    return write_report(results, out, compare_paper, genes, summaries, processes)


def leaderboard(results: Sequence[Path], out: Path, summaries: Mapping[Path, str] | None = None) -> LeaderboardFiles:
    """Write ``out/leaderboard.html`` and ``out/leaderboard.csv`` from results directories of any dates and machines.

    There is one section for each (dataset, split, target), ranked on the trials that every ranked entry finished.
    Versions of a method are entries of their own.

    Parameters
    ----------
    results : sequence of Path
        Directories that ``stbench run`` wrote.
    out : Path
        Folder of the leaderboard; made where it is not there.
    summaries : mapping of Path to str, optional
        See :func:`stbench.reports.sections.read.load`.

    Returns
    -------
    LeaderboardFiles
        What was written.

    Raises
    ------
    UserError
        If two directories scored a slice differently.
    """
    from .page.leaderboard import write_leaderboard

    return write_leaderboard(results, out, summaries)


__all__ = ["LeaderboardFiles", "ReportFiles", "leaderboard", "report"]
