"""A process that makes parts of a report: it reads calls from its standard input and answers on its standard output."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import traceback
import warnings
from collections.abc import Sequence
from contextlib import suppress
from logging.handlers import QueueHandler
from typing import TYPE_CHECKING, BinaryIO

from stbench.errors import UserError

from .processes import Make, Reply

if TYPE_CHECKING:
    from ..parts.part import Context
    from ..sections.section import Section


class Noted(QueueHandler):
    """Keeps what is logged, in a form that another process can read."""

    def __init__(self) -> None:
        super().__init__(None)  # type: ignore[arg-type]
        self.records: list[logging.LogRecord] = []

    def enqueue(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def answer(make: Make, section: Section, context: Context) -> bytes:
    """A :class:`Reply`, pickled."""
    noted = Noted()
    logging.getLogger().addHandler(noted)
    value, error = None, None
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")  # whoever is told of them has filters of its own
            value = make(section, context)
    except Exception as raised:  # noqa: BLE001 - whatever it is, it is raised where it was asked for
        error = _portable(raised)
    finally:
        logging.getLogger().removeHandler(noted)
    warned = [(each.message, each.category, each.filename, each.lineno) for each in caught]
    return pickle.dumps(Reply(value, error, warned, noted.records), pickle.HIGHEST_PROTOCOL)


def _portable(error: Exception) -> Exception:
    """The error, with its traceback as a note unless a line says all; where it cannot be pickled, one that says the
    same."""
    if isinstance(error, UserError):
        return error
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a stranger's exception may fail in any way
        other = RuntimeError(f"{type(error).__name__}: {error}")
        other.add_note(error.__notes__[-1])
        return other
    return error


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Until ``requests`` end: first the sections and what parts may look at beside them, then calls."""
    sections: Sequence[Section]
    sections, context = pickle.load(requests)
    while True:
        make, place = pickle.load(requests)
        replies.write(answer(make, sections[place], context))
        replies.flush()


if __name__ == "__main__":
    # what a library prints must not stand among the replies
    channel = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with suppress(EOFError, BrokenPipeError):  # nobody asks any more, or waits for the answer
        serve(sys.stdin.buffer, channel)
    os._exit(0)
