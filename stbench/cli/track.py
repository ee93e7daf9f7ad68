"""``stbench track``: record in MLflow what is missing there."""

from __future__ import annotations

import contextlib
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from ..errors import UserError
from .console import out
from .options import ResultsArgument
from .recording import Announcements, say_cut, say_refused


def track(
    results: ResultsArgument,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on while trials run (elsewhere), until all of them have ended.")
    ] = False,
    replies: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Record in MLflow what is not recorded yet, e.g. after the server was unreachable."""
    from ..results.tracking.feed import TrackingError
    from ..results.tracking.feed import track as feed
    from ..results.tracking.store import tracking_uri

    if follow:
        _follow(results, replies)
        return
    for place in results:
        try:
            page = place / "report"
            fed = feed(place, page if page.is_dir() else None)
        except TrackingError as error:
            remedy = "run this again when it is back" if error.passes else "set MLFLOW_TRACKING_URI to a place that can"
            raise UserError(f"{error} - {remedy}") from error
        say_cut(fed.cut)
        say_refused(fed.refused)
        out.print(f"{place}: {fed.trials} trials recorded in {tracking_uri(place)}", soft_wrap=True)


def _follow(results: list[Path], replies: int) -> None:
    from ..results.record import read_run
    from ..results.tracking.feed import FEED_LIMIT_S, Feed
    from ..results.tracking.follow import Report, follow, serve
    from ..results.tracking.store import tracking_uri

    if len(results) > 1:
        raise UserError("--follow takes one results directory - start one command for each")
    (place,) = results
    read_run(place)
    if replies >= 0:
        serve(place, replies)
        return
    announcements = Announcements(f"'stbench track {shlex.quote(str(place))}'")

    def hear(report: Report) -> None:
        announcements.hear(report.error, report.passes, report.cut)

    def rest(seconds: float) -> bool:
        time.sleep(seconds)
        return False

    with contextlib.closing(Feed(place, FEED_LIMIT_S)) as feed:
        follow(feed, hear, rest)
    out.print(f"{place}: all trials are recorded in {tracking_uri(place)}", soft_wrap=True)
