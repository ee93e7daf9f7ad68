"""``stbench track``: what MLflow does not know yet."""

from __future__ import annotations

from ..errors import UserError
from .console import out
from .options import ResultsArgument


def track(results: ResultsArgument) -> None:
    """Record in MLflow what is not recorded yet, e.g. after the server was away."""
    from ..tracking import TrackingError, tracking_uri
    from ..tracking import track as feed

    for place in results:
        try:
            page = place / "report"
            new = feed(place, page if page.is_dir() else None)
        except TrackingError as error:
            raise UserError(f"{error} - check MLFLOW_TRACKING_URI and run this again") from error
        out.print(f"{place}: {new} trials recorded in {tracking_uri(place)}", soft_wrap=True)
