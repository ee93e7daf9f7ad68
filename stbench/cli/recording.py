"""Recording in MLflow after a run. Where that fails, one warning is printed, and the results are safe."""

from __future__ import annotations

import shlex
from pathlib import Path

from .console import err

MARK = ".mlflow"  # in a results directory that is recorded, so that a later report or score is recorded too


def is_recorded(results: Path) -> bool:
    """Whether an earlier command recorded this results directory."""
    return (results / MARK).is_file()


def record_in_mlflow(results: Path, page: Path | None = None) -> None:
    """Record what is not recorded yet, and the report in the folder ``page``."""
    from ..results.tracking import TrackingError, track, tracking_uri

    if not is_recorded(results):
        (results / MARK).touch()
    again = f"'stbench track {shlex.quote(str(results))}'"
    try:
        fed = track(results, page)
    except TrackingError as error:
        way_out = (
            f"{again} catches up when it is back"
            if error.passes
            else f"this will not pass by itself: set MLFLOW_TRACKING_URI to a place that takes them and run {again}, "
            "or run with --no-mlflow"
        )
        err.print(f"warning: {error}; the results are safe; {way_out}", style="yellow", soft_wrap=True)
    else:
        err.print(f"recorded in MLflow: {tracking_uri(results)}", soft_wrap=True)
        say_refused(fed.refused)


def say_refused(reason: str) -> None:
    """Warn if MLflow did not take the report; ``reason`` is empty if it did."""
    if reason:
        err.print(f"warning: MLflow did not take the report: {reason}", style="yellow", soft_wrap=True)
