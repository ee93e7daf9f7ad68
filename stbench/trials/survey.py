"""The states of many trials at once: most are pending, and a listing tells which are not."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..system.beats import Observer
from .outcome import state_of
from .state import TrialState

PENDING = TrialState(state="pending")


def ended_keys(results: Path) -> set[str]:
    """The trials of a results directory that have a folder as an ended trial has."""
    return _listed(results / "trials")


def states_of(results: Path, keys: Iterable[str]) -> Iterator[tuple[str, TrialState]]:
    """The state of each trial, as :func:`stbench.trials.outcome.state_of` tells it.

    Only what has a folder is looked at: 100,000 pending trials cost two listings. Raises ``DamagedFileError``.
    """
    begun, observer = ended_keys(results) | _listed(results / "attempts"), Observer()
    for key in keys:
        yield key, state_of(results, key, observer) if key in begun else PENDING


def _listed(folder: Path) -> set[str]:
    try:
        return set(os.listdir(folder))
    except FileNotFoundError:
        return set()
