"""Signals as a wish to stop soon: the trial at work saves its state, and the same command goes on later.

SIGINT is Ctrl-C, SIGTERM a scheduler or an administrator, SIGUSR2 a scheduler's warning before the end of a job, SIGHUP
a terminal that was closed or a connection that broke.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Turns true once a signal came; a second SIGINT stops at once, without saving."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]

    def __call__(self) -> bool:
        return self.signal is not None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        for stream in self._terminals:
            if not os.isatty(stream):  # it was closed: what is printed from now on would be an error
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def receives_sigint() -> bool:
    """Whether SIGINT is a request just now, so that nobody typed a ``KeyboardInterrupt`` that no request precedes."""
    handler = signal.getsignal(signal.SIGINT)
    return isinstance(getattr(handler, "__self__", None), StopRequest)


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Within this context SIGINT, SIGTERM, SIGUSR2 and SIGHUP are requests.

    Outside the main thread signals are left as they are, and SIGHUP is where it is ignored already, as under ``nohup``.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, request._receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
