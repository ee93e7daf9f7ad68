"""``stbench track``: record in MLflow what is missing there."""

from __future__ import annotations

from ..errors import UserError
from .console import out
from .options import ResultsArgument
from .recording import say_refused


def track(results: ResultsArgument) -> None:
    """Record in MLflow what is not recorded yet, e.g. after the server was unreachable."""
    from ..results.tracking import TrackingError, tracking_uri
    from ..results.tracking import track as feed

    for place in results:
        try:
            page = place / "report"
            fed = feed(place, page if page.is_dir() else None)
        except TrackingError as error:
            remedy = "run this again when it is back" if error.passes else "set MLFLOW_TRACKING_URI to a place that can"
            raise UserError(f"{error} - {remedy}") from error
        say_refused(fed.refused)
        out.print(f"{place}: {fed.trials} trials recorded in {tracking_uri(place)}", soft_wrap=True)
