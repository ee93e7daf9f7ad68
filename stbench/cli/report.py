"""``stbench report``: tables, figures and a page from one or several results directories."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError, unknown
from .console import out
from .lists import words
from .options import ResultsArgument
from .recording import is_recorded, record_in_mlflow


def report(
    results: ResultsArgument,
    directory: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write (RESULTS/report).")
    ] = None,
    compare: Annotated[
        str | None, typer.Option(metavar="paper", help="Show the published numbers and claims beside the results.")
    ] = None,
    genes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Genes to draw over the tissue (the best predicted ones).")
    ] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Processes that draw (one a core, at most 4).")
    ] = None,
) -> None:
    """Write tables, figures and one self-contained HTML page."""
    from stbench.reports import report as make_report

    from ..results.record import read_run
    from ..results.summary import summary_text

    for results_directory in results:
        read_run(results_directory)
    summaries = {results_directory: summary_text(results_directory) for results_directory in results}
    if directory is None and len(results) > 1:
        raise UserError("a report over several results directories needs a place: give --out DIR")
    place = directory or results[0] / "report"
    if compare not in (None, "paper"):
        raise unknown("value of --compare", compare, ["paper"])
    chosen = words(genes, "--genes") if genes else ()
    files = make_report(results, place, compare == "paper", chosen, summaries, processes)
    for results_directory in results:
        if is_recorded(results_directory):
            record_in_mlflow(results_directory, place)
    for title, headline in files.headlines:
        out.print(f"{title}: {headline}", soft_wrap=True)
    out.print(f"page:    {files.page}", soft_wrap=True)
    out.print(f"tables:  {place / 'tables'}   figures: {place / 'figures'}", soft_wrap=True)
