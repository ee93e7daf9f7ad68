"""One attempt at a trial: where it works, what it is told, and its log."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .attempts import HISTORY
from .history import History
from .spec import TrialSpec

log = logging.getLogger("stbench")


@dataclass
class Attempt:
    """What an attempt works with. ``directory`` is ``RESULTS/attempts/KEY/TOKEN``."""

    spec: TrialSpec
    directory: Path
    on_progress: Callable[[int, int, str], None] | None
    asks_to_stop: Callable[[], bool]
    notes: list[str] = field(default_factory=list)  # what a reader of the numbers must know, as it comes
    was_asked_to_stop: bool = False

    def __post_init__(self) -> None:
        self.history = History(self.directory / HISTORY)

    @property
    def results(self) -> Path:
        return self.directory.parents[2]

    def should_stop(self) -> bool:
        self.was_asked_to_stop = self.asks_to_stop() or self.was_asked_to_stop
        return self.was_asked_to_stop

    def distinct_notes(self) -> list[str]:
        """Each note once, on one line."""
        return list(dict.fromkeys(" ".join(str(note).split()) for note in self.notes))


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Write what stbench logs to a file, too; the logger, which the whole process shares, is as it was afterwards."""
    handler = _WholeLog(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()


@contextmanager
def warnings_noted(note: Callable[[str], object]) -> Iterator[None]:
    """Make a note of what is logged as a warning while a method works: a log is read by nobody."""
    handler = _Notes(note)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class _WholeLog(logging.FileHandler):
    """A log whose errors are raised: a disk that takes no line of it takes nothing else either."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise  # the error that logging is handling


class _Notes(logging.Handler):
    def __init__(self, note: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.note = note

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.getMessage())
