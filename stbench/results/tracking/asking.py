"""Asking a store that may be slow, away, or lose its answers: again where that may help, and not for ever."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from .store import passes_by

Answer = TypeVar("Answer")

LONGEST_PAUSE_S = 10.0


class Asking:
    """Calls what asks the store; after an answer that was lost, a few times more.

    Whatever is called must be fit to be called again: it looks for what it is to create before it creates it.

    ``limit_s``: the time for everything that is asked. ``before_each`` is called before each request, which may hang.
    """

    def __init__(self, limit_s: float, before_each: Callable[[], object] = lambda: None) -> None:
        self.limit_s, self.before_each = limit_s, before_each
        self.again, self.backoff_s = 0, 0.0
        self.lost = 0  # answers
        self.begin()

    def begin(self, again: int = 0, backoff_s: float = 0.0) -> None:
        """Let the limit of time begin now; what failed is asked ``again`` times, first after ``backoff_s``."""
        self.again, self.backoff_s = again, backoff_s
        self._until = time.monotonic() + self.limit_s

    def __call__(self, call: Callable[[], Answer]) -> Answer:
        for attempt in range(self.again + 1):
            if time.monotonic() > self._until:
                raise TimeoutError(f"{self.limit_s:.0f} s were not enough for everything")
            self.before_each()
            try:
                return call()
            except Exception as error:
                if not passes_by(error):
                    raise
                self.lost += 1
                if attempt == self.again:
                    raise
            time.sleep(min(LONGEST_PAUSE_S, self.backoff_s * 2**attempt))
        raise AssertionError("the last attempt returns or raises")
