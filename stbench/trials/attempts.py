"""The attempts at a trial: ``RESULTS/attempts/KEY/TOKEN``, a folder for each.

An attempt works in its own folder alone, so that one that was thought dead and comes back disturbs nobody. It goes on
from the newest checkpoint that an earlier one left, and becomes the trial by a rename that only one can win. Of the
others their log and their state stay.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from ..errors import DamagedFileError, said
from ..system.beats import Observer, Sight
from ..system.files import read_object
from ..system.processes import Process
from .history import History
from .state import TrialState

KEPT = ("state.json", "log.txt")  # of an attempt that is over
BEAT, CHECKPOINT, HISTORY = "beat", "checkpoint", "history.jsonl"


def attempts_of(results: Path, key: str) -> list[tuple[Path, TrialState]]:
    """The attempts at a trial that did not become it, first to last."""
    found = []
    folder = results / "attempts" / key
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        found = [(Path(entry.path), read_state(Path(entry.path))) for entry in os.scandir(folder) if entry.is_dir()]
    return sorted(found, key=lambda attempt: (attempt[1].attempts or 0, attempt[0].name))


def read_state(attempt: Path) -> TrialState:
    """What an attempt wrote of itself; ``pending`` where it wrote nothing yet."""
    path = attempt / "state.json"
    if not path.is_file():
        return TrialState(state="pending")
    try:
        return TrialState.model_validate(read_object(path))
    except (DamagedFileError, ValidationError) as error:
        # nothing is lost: the next attempt goes on from its checkpoint, which is checked apart
        return TrialState(state="interrupted", reason=f"its state cannot be read: {said(error)}")


def begin(results: Path, key: str) -> tuple[Path, int]:
    """The folder of a new attempt, and its number, counted over all commands."""
    number = 1 + max((state.attempts or 0 for _, state in attempts_of(results, key)), default=0)
    folder = results / "attempts" / key / secrets.token_hex(4)
    while True:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
            return folder, number
        except FileNotFoundError:  # who ends another attempt removes a folder that is empty, and may do so just now
            continue


def go_on_from_earlier(results: Path, key: str, folder: Path, observer: Observer) -> None:
    """Give the attempt in ``folder`` the newest checkpoint of earlier ones, and the history that belongs to it."""
    for attempt, state in reversed(attempts_of(results, key)):
        if attempt == folder or not (attempt / CHECKPOINT).is_dir():
            continue
        try:
            if (attempt / HISTORY).is_file():
                shutil.copyfile(attempt / HISTORY, folder / HISTORY)
            if _is_over(attempt, state, observer):
                os.rename(attempt / CHECKPOINT, folder / CHECKPOINT)
            else:  # it may come back, and go on with its own
                shutil.copytree(attempt / CHECKPOINT, folder / CHECKPOINT)
            return
        except FileNotFoundError:  # a third attempt, on another machine, has taken it
            continue


def _is_over(attempt: Path, state: TrialState, observer: Observer) -> bool:
    return state.state != "running" or observer.sees(state.process, attempt / BEAT) == "dead"


def at_work(results: Path, key: str, observer: Observer) -> tuple[Sight, TrialState] | None:
    """An attempt that is at work, or may be: as far as ``observer`` sees. ``None``: nobody works on the trial."""
    doubtful = None
    for attempt, state in attempts_of(results, key):
        if state.state != "running":
            continue
        sight = observer.sees(state.process, attempt / BEAT)
        if sight == "alive":
            return sight, state
        if sight == "unknown":
            doubtful = sight, state
    return doubtful


def first_at_work(results: Path, key: str, observer: Observer) -> str:
    """The token of the attempt that stays where several began at once: of those that live, the one that sorts first."""
    return min(
        (
            attempt.name
            for attempt, state in attempts_of(results, key)
            if state.state == "running" and observer.sees(state.process, attempt / BEAT) == "alive"
        ),
        default="",
    )


def lost_in_a_row(results: Path, key: str) -> int:
    """How many attempts ended without a word, one after the other, and got no further than those before them.

    Interrupted ones do not count, and a failure that was retried begins the count anew. Ask when nobody works on it.
    """
    furthest = lost = 0
    for attempt, state in attempts_of(results, key):
        if state.state == "failed":
            furthest = lost = 0
            continue
        epochs = len(History(attempt / HISTORY).rows)
        if state.state == "running":
            lost = 1 if epochs > furthest else lost + 1
        furthest = max(furthest, epochs)
    return lost


def interrupt_own(results: Path, reason: str) -> None:
    """Say of the attempts of this process, which is about to end, that no method is to blame for it."""
    here = Process.here()
    for folder in (results / "attempts").glob("*/*"):
        state = read_state(folder)
        if state.state == "running" and state.process == here:
            state.model_copy(update={"state": "interrupted", "reason": reason}).write(folder)


def tidy(results: Path, key: str, observer: Observer) -> None:
    """Leave of the attempts at a trial that ended their states and logs alone; those that may live are left alone."""
    for attempt, state in attempts_of(results, key):
        if _is_over(attempt, state, observer):
            strip(attempt)
    with contextlib.suppress(OSError):  # not empty
        (results / "attempts" / key).rmdir()


def strip(attempt: Path) -> None:
    """Leave of an attempt that is over what says how it went."""
    for path in list(_inside(attempt)):
        if path.name in KEPT:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _inside(folder: Path) -> Iterator[Path]:
    with contextlib.suppress(FileNotFoundError):
        yield from folder.iterdir()


def put_back(results: Path, key: str) -> None:
    """Make a trial that ended an earlier attempt at it, so that it is run again; its state and log stay."""
    trial = results / "trials" / key
    token = read_state(trial).token or secrets.token_hex(4)
    folder = results / "attempts" / key / token
    folder.parent.mkdir(parents=True, exist_ok=True)
    os.rename(trial, folder)
    strip(folder)
