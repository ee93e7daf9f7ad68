"""The trials that wait to be given out, and which of them may begin now."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from ...system.beats import Observer
from .. import attempts
from ..outcome import read_ended
from ..run import end_from_outside
from ..spec import TrialSpec
from .protocol import Listener

ATTEMPTS = 2  # that may be lost one after the other, getting no further, before the trial has failed
DOUBT_S = 2.0  # between two looks at an attempt that may be at work elsewhere


class Waiting:
    """Trials in the order in which they are to begin.

    One that reuses another's model waits for it; one that another process works on is left to it; one that may be
    worked on, by a process that cannot be seen from here, waits until that is clear. ``open``: those that neither ended
    nor were left to others.
    """

    def __init__(self, results: Path, keys: Sequence[str], listener: Listener) -> None:
        self.results, self.listener = results, listener
        self.open = set(keys)
        self.n_blocked = 0  # that wait for another's model
        self._ready = deque(keys)
        self._behind: dict[str, list[str]] = {}
        self._doubtful: deque[tuple[float, str]] = deque()
        self._observer = Observer()

    def __len__(self) -> int:
        """How many may begin now, as far as is known without looking closer."""
        return len(self._ready)

    def next(self) -> str | None:
        """The trial that is to begin now; ``None`` where there is none at the moment."""
        while self._doubtful and self._doubtful[0][0] <= time.monotonic():
            self._ready.appendleft(self._doubtful.popleft()[1])
        while self._ready:
            key = self._ready.popleft()
            teacher = TrialSpec.read(self.results / "specs" / f"{key}.json").trained_by
            if teacher in self.open:
                self._behind.setdefault(teacher, []).append(key)
                self.n_blocked += 1
            elif self._is_free(key):
                return key
        return None

    def again(self, key: str, at_once: bool = False) -> None:
        """Let a trial that was given out wait once more: at the end, or before all others."""
        if at_once:
            self._ready.appendleft(key)
        else:
            self._ready.append(key)

    def settle(self, key: str) -> None:
        """Forget a trial, and let those that waited for its model begin before all others."""
        self.open.discard(key)
        released = self._behind.pop(key, [])
        self.n_blocked -= len(released)
        self._ready.extendleft(reversed(released))

    def _is_free(self, key: str) -> bool:
        """Whether nobody else works on a trial, and it was not lost too often."""
        if not (self.results / "attempts" / key).is_dir():
            return True
        at_work = attempts.at_work(self.results, key, self._observer)
        if at_work is not None:
            sight, state = at_work
            if sight == "unknown":
                self._doubtful.append((time.monotonic() + DOUBT_S, key))
            else:
                self.settle(key)
                self.listener.ended(key, state)
            return False
        lost = attempts.lost_in_a_row(self.results, key)
        if lost < ATTEMPTS or read_ended(self.results / "trials" / key) is not None:
            return True
        reason = f"the process that worked on it was ended from outside, {lost} times in a row, without getting further"
        state = end_from_outside(self.results, key, "killed", reason)
        self.settle(key)
        self.listener.ended(key, state)
        return False
