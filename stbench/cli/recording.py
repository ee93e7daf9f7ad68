"""Recording in MLflow. Where that fails, one warning is printed, and the results are safe."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from .console import err

MARK = ".mlflow"  # in a results directory that is recorded, so that a later report or score is recorded too


def is_recorded(results: Path) -> bool:
    """Whether an earlier command recorded this results directory."""
    return (results / MARK).is_file()


def mark(results: Path) -> None:
    """Remember that this results directory is recorded."""
    if not is_recorded(results):
        (results / MARK).touch()


def record_in_mlflow(results: Path, page: Path | None = None) -> None:
    """Record what is not recorded yet, and the report in the folder ``page``."""
    from ..results.tracking.feed import TrackingError, track

    mark(results)
    again = f"'stbench track {shlex.quote(str(results))}'"
    try:
        fed = track(results, page)
    except TrackingError as error:
        way_out = f"{again} catches up when it is back" if error.passes else _lasting(again)
        _warn(f"{error}; the results are safe; {way_out}")
    else:
        say_recorded(results)
        say_cut(fed.cut)
        say_refused(fed.refused)


def say_recorded(results: Path) -> None:
    """Say where the trials are recorded."""
    from ..results.tracking.store import tracking_uri

    err.print(f"recorded in MLflow: {tracking_uri(results)}", soft_wrap=True)


class Announcements:
    """Says, of feeds that follow each other, once that MLflow is away and once that it is back.

    ``again``: the command that catches up, in quotes.
    """

    def __init__(self, again: str) -> None:
        self.again = again
        self.is_away = False
        self._cut: set[str] = set()

    def hear(self, error: str = "", passes: bool = True, cut: Sequence[str] = ()) -> None:
        """How a feed went, see :class:`stbench.results.tracking.follow.Report`."""
        if error and not self.is_away:
            way_out = "what it misses is recorded when it is back" if passes else _lasting(self.again)
            _warn(f"{error}; the trials go on; {way_out}")
        if self.is_away and not error:
            err.print("MLflow is back, and has what it missed", soft_wrap=True)
        self.is_away = bool(error)
        say_cut([name for name in cut if name not in self._cut])
        self._cut.update(cut)


def say_refused(reason: str) -> None:
    """Warn if MLflow did not take the report; ``reason`` is empty if it did."""
    if reason:
        _warn(f"MLflow did not take the report: {reason}")


def say_cut(names: Sequence[str]) -> None:
    """Note what was too long for MLflow, if anything was."""
    if names:
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        err.print(f"note: too long for MLflow, and cut there: {listed}", style="yellow", soft_wrap=True)


def _lasting(again: str) -> str:
    return (
        f"this will not pass by itself: set MLFLOW_TRACKING_URI to a place that takes them and run {again}, or run "
        "with --no-mlflow"
    )


def _warn(text: str) -> None:
    err.print(f"warning: {text}", style="yellow", soft_wrap=True)
