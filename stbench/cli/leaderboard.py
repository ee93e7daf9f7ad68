"""``stbench leaderboard``: runs of several datasets, machines and dates on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .console import out
from .options import ResultsArgument


def leaderboard(
    results: ResultsArgument,
    directory: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write.")] = Path(
        "results/leaderboard"
    ),
) -> None:
    """Merge runs of several datasets, machines and dates; ranks are on the trials that all methods finished."""
    from stbench.reports import leaderboard as write

    from ..results.record import read_run
    from ..results.summary import summary_text

    for place in results:
        read_run(place)
    summaries = {place: summary_text(place) for place in results}
    files = write(results, directory, summaries)
    for title, sentence in files.headlines:
        out.print(f"{title}: {sentence}", soft_wrap=True)
    out.print(f"page:    {files.page}", soft_wrap=True)
    out.print(f"table:   {files.table}", soft_wrap=True)
