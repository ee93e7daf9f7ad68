"""The states of many trials at once: most are pending, and a listing tells which are not."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import ValidationError

from ..system.beats import Observer
from .outcome import state_of
from .state import EndedState, TrialState

NO_NUMBER = re.compile(rb"\b(NaN|Infinity)\b")  # that JSON does not know
PENDING = TrialState(state="pending")


def ended_keys(results: Path) -> set[str]:
    """The trials of a results directory that have a folder as an ended trial has."""
    return _listed(results / "trials")


def states_of(results: Path, keys: Iterable[str]) -> Iterator[tuple[str, TrialState]]:
    """The state of each trial, as :func:`stbench.trials.outcome.state_of` tells it.

    Only what has a folder is looked at: 100,000 pending trials cost two listings. Raises ``DamagedFileError``.
    """
    ended, attempted, observer = ended_keys(results), _listed(results / "attempts"), Observer()
    for key in keys:
        found: TrialState | None = _ended(os.path.join(results, "trials", key)) if key in ended else None
        if found is None and (key in ended or key in attempted):
            found = state_of(results, key, observer)
        yield key, found or PENDING


def _ended(trial: str) -> EndedState | None:
    """What :func:`stbench.trials.outcome.read_ended` tells of a trial whose files are as they should be.

    ``None`` where anything is unusual: that function says what. This one makes no path of every name, which costs more
    than to look at the files.
    """
    try:
        with open(os.path.join(trial, "state.json"), "rb") as file:
            content = file.read()
        if NO_NUMBER.search(content):
            return None
        state = EndedState.model_validate_json(content)
        files = state.files or {}
        for name, record in files.items():
            found = os.stat(os.path.join(trial, name))
            if found.st_size != record.size or not stat.S_ISREG(found.st_mode):
                return None
    except (OSError, ValidationError):
        return None
    return state if "metrics.csv" in files or state.state != "finished" else None


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
