"""Feeding MLflow while trials run, from a process that no trial waits for.

MLflow's client may hang, in a socket or in the native code of a database, and importing it takes seconds. So whoever
runs trials starts a process for it (:func:`serve`), which reads the results directory, lowers its own priority, and is
ended by the system's alarm clock where a request takes too long: that needs no help of Python's.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from ...errors import UserError
from .feed import Feed, TrackingError

INTERVAL_S = 15.0  # between two feeds
LONGEST_INTERVAL_S = 45.0  # so that a trial is recorded within a minute of its end
SHARE = 4  # a slow feed is followed by a rest of so many times its length
REQUEST_S = 300  # after which a request is taken to hang
LEAVE_S = 10  # for the last feed, after whoever runs the trials has gone
LOOK_S = 2.0  # between two looks at whether the owner is still there
NICE = 10


@dataclass(frozen=True)
class Report:
    """How one feed went.

    ``error``: why it failed; empty: it did not. ``passes``: whether waiting helps. ``cut``: what was too long for
    MLflow. ``is_last``: it began after whoever ran the trials had done with them.
    """

    error: str = ""
    passes: bool = True
    cut: tuple[str, ...] = ()
    is_last: bool = False


def follow(
    feed: Feed, report: Callable[[Report], object], rest: Callable[[float], bool], is_owned: bool = False
) -> None:
    """Feed again and again, with rests between, and report on each feed.

    ``rest(seconds)`` waits, and says whether nobody runs the trials any more; a last feed follows. Without an owner
    (``is_owned``), whose trials these are, it ends when all planned trials have ended.
    """
    is_last = False
    while True:
        began = time.monotonic()
        try:
            fed = feed.bring_up_to_date(goes_on=is_owned and not is_last)
        except TrackingError as error:
            report(Report(str(error), error.passes))
        except UserError as error:  # of the results, which whoever runs the trials stumbles over, too
            report(Report(str(error), passes=False))
        else:
            report(Report(cut=fed.cut, is_last=is_last))
            if not fed.open and not is_owned:
                return
        if is_last:
            return
        took = time.monotonic() - began
        is_last = rest(min(LONGEST_INTERVAL_S, max(INTERVAL_S, SHARE * took)))


def serve(results: Path, replies: int) -> None:
    """Follow ``results`` for the process that started this one, until its end of standard input is closed.

    Each report is a line of JSON on the descriptor ``replies``.
    """
    os.nice(NICE)
    owner, is_leaving = os.getppid(), threading.Event()

    def leave() -> None:
        is_leaving.set()
        signal.alarm(LEAVE_S)

    def heed_owner() -> None:
        while sys.stdin.buffer.read(1):
            pass
        leave()

    def before_each() -> None:
        if not is_leaving.is_set():
            signal.alarm(REQUEST_S)
            if is_leaving.is_set():  # just now: the shorter time counts
                signal.alarm(LEAVE_S)

    def rest(seconds: float) -> bool:
        if not is_leaving.is_set():
            signal.alarm(0)
        until = time.monotonic() + seconds
        while time.monotonic() < until and not is_leaving.wait(min(LOOK_S, seconds)):
            if os.getppid() != owner:  # a process that it forked may hold the other end
                leave()
        if is_leaving.is_set():
            signal.alarm(LEAVE_S)
        return is_leaving.is_set()

    def reply(report: Report) -> None:
        with contextlib.suppress(BrokenPipeError):  # the owner is gone: noticed in a moment
            os.write(replies, json.dumps(asdict(report)).encode() + b"\n")

    threading.Thread(target=heed_owner, daemon=True).start()
    with contextlib.closing(Feed(results, float("inf"), before_each)) as feed:
        follow(feed, reply, rest, is_owned=True)
