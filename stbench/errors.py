"""The one kind of error that a user can cause, and near-match suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError

LISTED = 40  # choices that one line of a message may hold
LONGEST_MESSAGE = 400  # characters of a stranger's exception


class UserError(Exception):
    """Bad input. The message is one line: what is wrong, where, and what to do. The command line exits with code 2."""


class PlaceError(UserError):
    """The place itself does not take what is written: a full disk, no permission. It stops a run, not only a trial."""


class DeviceFailed(PlaceError):  # noqa: N818 - as Interrupted: no trial has failed
    """The GPU failed in a way that this process cannot get past."""


class DeviceFull(PlaceError):  # noqa: N818 - as Interrupted: no trial has failed
    """A GPU ran out of memory of which other processes hold what was wanted."""


class DamagedFileError(PlaceError):
    """A file that an earlier command wrote is missing or is not what was written. It stops a run, not only a trial."""


class NotApplicable(Exception):  # noqa: N818 - not an error: the trial is recorded as skipped, with this reason
    """Raised by a method's ``fit`` when the fold gives it nothing to work with; the message says why."""


class Interrupted(Exception):  # noqa: N818 - not an error: the state was saved and the same command goes on
    """Raised inside a trial after SIGINT, SIGTERM or SIGHUP, once its state is on disk."""


class LeftToOthers(Exception):  # noqa: N818 - not an error: the trials are in other hands
    """Raised by an engine that does not wait for its trials. The message says, in a few lines, how to go on."""


def first_problem(error: ValidationError) -> str:
    """The first thing that a model refused, as ``where: what``."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


@contextmanager
def about_slice(name: str) -> Iterator[None]:
    """Name the slice in every ``UserError`` raised inside: of forty sections a file's name may not say which it is.

    Examples
    --------
    >>> with about_slice("B1"):
    ...     raise UserError("the count table is empty - give one with spots")
    Traceback (most recent call last):
        ...
    stbench.errors.UserError: slice B1: the count table is empty - give one with spots
    """
    try:
        yield
    except PlaceError:
        raise
    except UserError as error:
        if str(error).startswith(f"slice {name}: "):
            raise
        raise UserError(f"slice {name}: {error}") from error


class MethodFailed(Exception):  # noqa: N818 - what a method did, in words, without the name of a Python class in front
    """A method did what no method may; the message says what."""


def said(error: BaseException) -> str:
    r"""What was raised, on one line, as a user reads it.

    Examples
    --------
    >>> said(SystemExit(0)), said(ValueError("no\nspot"))
    ('it called sys.exit(0)', 'ValueError: no spot')
    """
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return _one_line(f"it called sys.exit({code})")
    try:
        text = _one_line(str(error))
    except Exception as broken:  # noqa: BLE001 - a stranger's exception may fail at being printed, too
        text = f"(its message cannot be read: {type(broken).__name__})"
    if isinstance(error, (UserError, MethodFailed)):
        return text
    kind = type(error).__name__
    shown = f"{kind}: {text}" if text else kind
    return shown if isinstance(error, Exception) else f"it raised {shown}"


def text_of(error: BaseException) -> str:
    """``str(error)``; empty where a stranger's exception fails at being printed."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - it may fail in any way, and :func:`said` says that it did
        return ""


def reason_of(error: BaseException, longest: int = 240) -> str:
    r"""The message of an exception on one line.

    Parameters
    ----------
    error : BaseException
        Whatever was raised.
    longest : int, default=240
        Characters after which the message is cut.

    Returns
    -------
    str
        The name of the exception's type if it says nothing.

    Examples
    --------
    >>> reason_of(OSError()), reason_of(ValueError("one\ntwo"))
    ('OSError', 'one two')
    """
    return " ".join(text_of(error).split())[:longest] or type(error).__name__


def _one_line(text: str) -> str:
    words = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return words if len(words) <= LONGEST_MESSAGE else f"{words[:LONGEST_MESSAGE]} ..."


def unknown(kind: str, name: str, choices: Iterable[str], hint: str = "") -> UserError:
    """A ``UserError`` for a name that is not among ``choices``, with the nearest match suggested.

    Parameters
    ----------
    kind : str
        What is named: ``method``.
    name : str
        The name that was given.
    choices : iterable of str
        Names that exist. More than ``LISTED`` (genes, say) are counted, as no line holds them.
    hint : str, default=""
        What else can be said.

    Returns
    -------
    UserError
        To be raised.

    Examples
    --------
    >>> str(unknown("method", "stnett", ["stnet", "bleep"]))
    "unknown method 'stnett' - did you mean 'stnet'? (choose from: bleep, stnet)"
    """
    options = sorted(choices)
    near = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    guess = f" - did you mean '{near[0]}'?" if near else ""
    known = f"choose from: {', '.join(options)}" if len(options) <= LISTED else f"{len(options)} are known"
    listed = f" ({known})" if options else ""
    return UserError(f"unknown {kind} '{name}'{guess}{listed}{'; ' + hint if hint else ''}")
