"""Recording in MLflow after a run; when it cannot be done, that is said once, and the results are safe."""

from __future__ import annotations

import shlex
from pathlib import Path

from .console import err

MARK = ".mlflow"  # in a results directory that is recorded, so that a later report or score is recorded too


def is_recorded(results: Path) -> bool:
    """Whether an earlier command recorded this results directory."""
    return (results / MARK).is_file()


def record_in_mlflow(results: Path, page: Path | None = None) -> None:
    """Record what is not recorded yet, and the report in ``page``."""
    from ..tracking import TrackingError, track, tracking_uri

    if not is_recorded(results):
        (results / MARK).touch()
    try:
        track(results, page)
    except TrackingError as error:
        err.print(
            f"warning: {error}; the results are safe, 'stbench track {shlex.quote(str(results))}' catches up",
            style="yellow",
            soft_wrap=True,
        )
    else:
        err.print(f"recorded in MLflow: {tracking_uri(results)}", soft_wrap=True)
