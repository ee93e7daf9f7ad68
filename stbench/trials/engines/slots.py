"""Several trials at a time on this machine, each in a worker process of its own.

What a trial does to its worker, crashing it, hanging in it or taking all memory, costs that trial alone: the worker is
replaced. A trial whose worker was killed is tried once more, as the reason may have lain outside; one that broke a
limit is not.
"""

from __future__ import annotations

import contextlib
import selectors
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...errors import Interrupted, PlaceError, UserError
from ...system.cores import killed_for_memory
from ...system.files import writing_to
from ..attempts import attempts_of, lost_in_a_row
from ..outcome import state_of
from ..run import end_from_outside
from ..state import FINAL_STATES, TrialState
from .limits import Limits
from .process import Slot, WorkerProcess
from .protocol import Listener
from .waiting import ATTEMPTS, Waiting

TICK_S = 0.1
WATCH_S = 1.0  # between two looks at the memory of workers
STARTS = 5  # of workers that are killed one after the other before they are ready
STOP_S = 30.0  # for a trial to save what it has when all is to stop
TERM_S = 5.0  # for a trial that ran out of its time to save what it has


class SlotsEngine:
    """A worker for each of ``slots``."""

    def __init__(self, slots: Sequence[Slot], limits: Limits) -> None:
        self.slots, self.limits = list(slots), limits

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        with writing_to(results):
            _Run(self, Path(results).absolute(), keys, listener).until_done(should_stop)


class _Run:
    def __init__(self, engine: SlotsEngine, results: Path, keys: Sequence[str], listener: Listener) -> None:
        self.limits, self.results, self.listener = engine.limits, results, listener
        self.waiting = Waiting(results, keys, listener)
        self.free_slots = list(engine.slots)
        self.workers: list[WorkerProcess] = []
        self.selector = selectors.DefaultSelector()
        self.watched = 0.0
        self.lost_starts = 0
        self.oom_kills = killed_for_memory()

    def until_done(self, should_stop: Callable[[], bool]) -> None:
        try:
            while self.waiting.open:
                if should_stop():
                    self._stop()
                    raise Interrupted("the trials at work were asked to save what they have")
                self._give_out()
                self.selector.select(TICK_S)
                for worker in list(self.workers):
                    self._hear(worker)
                    if worker.has_ended():
                        self._bury(worker)
                self._enforce_limits()
        except UserError:
            self._stop()  # what one worker's place lacks is no reason to lose what the others have
            raise
        except KeyboardInterrupt:  # a second Ctrl-C: who presses it waits for nobody
            for worker in self.workers:
                worker.end()
            raise
        finally:
            for worker in self.workers:
                worker.leave()
            patience = time.monotonic() + 2.0
            while time.monotonic() < patience and not all(worker.has_ended() for worker in self.workers):
                time.sleep(0.02)
            for worker in self.workers:
                worker.end()
            self.selector.close()
            with contextlib.suppress(OSError):  # what workers printed stays
                (self.results / "workers").rmdir()

    def _give_out(self) -> None:
        """Give every free worker a trial; start workers while more trials wait than workers are about to be ready."""
        for worker in self.workers:
            if worker.is_free:
                key = self.waiting.next()
                if key is None:
                    return
                worker.give(key)
        n_starting = sum(not worker.ready for worker in self.workers)
        while self.free_slots and n_starting < len(self.waiting):
            worker = WorkerProcess(self.results, self.free_slots.pop(0))
            self.workers.append(worker)
            self.selector.register(worker.replies, selectors.EVENT_READ)
            n_starting += 1

    def _hear(self, worker: WorkerProcess) -> None:
        for words in worker.hear():
            if "ready" in words:
                worker.ready = True
                self.lost_starts = 0
            elif "started" in words:
                worker.since = time.monotonic()
                self.listener.started(words["started"])
            elif "progress" in words:
                self.listener.progress(words["progress"], words["done"], words["total"], words["text"])
            elif "ended" in words:
                self._settle(worker, words["ended"])
            elif "interrupted" in words and not worker.stopping:  # somebody else asked this worker to stop
                self._give_back(worker, words["interrupted"], "its process was asked to stop from outside")
            elif "full" in words:  # two trials may not fit where one does: this slot is not used again
                worker.full = words["reason"]
                self._give_back(worker, words["full"], worker.full)
            elif "place" in words:
                raise PlaceError(words["place"])

    def _give_back(self, worker: WorkerProcess, key: str, reason: str) -> None:
        """A worker leaves a trial as it is, and itself: others go on with it."""
        worker.key, worker.stopping = None, True
        self.waiting.again(key, at_once=True)
        self.listener.again(key, reason)

    def _settle(self, worker: WorkerProcess, key: str) -> None:
        """A worker says that a trial ended: what the directory says of it counts."""
        worker.key = None
        self.waiting.settle(key)
        self.listener.ended(key, state_of(self.results, key))  # or is "running": in a process of another command

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker is gone: what it worked on is tried again, or has failed."""
        self._hear(worker)
        key, words = worker.key, worker.last_words()
        code = self._dismiss(worker)
        if key is None:
            self._note_start(worker, code, words)
            return
        state = state_of(self.results, key)
        if state.state in FINAL_STATES:  # it died after its work was done
            self._settle(worker, key)
            return
        if worker.stopping:
            self._fail(key, "timeout", self._too_long())
            return
        if self._out_of_memory(code):
            reason = f"its process was killed since the control group ran out of memory; it had {_gib(worker.resident)}"
            self._fail(key, "oom", reason)
            return
        reason = _told(attempts_of(self.results, key)) or f"its process was {_how(code)}"
        if lost_in_a_row(self.results, key) < ATTEMPTS:
            self.waiting.again(key)
            self.listener.again(key, reason)
            return
        last_seen = f", with {_gib(worker.resident)} of memory when last seen" if worker.resident else ""
        self._fail(key, "killed", f"{reason}, {ATTEMPTS} times{last_seen} - see {worker.log if words else 'its log'}")

    def _out_of_memory(self, code: int) -> bool:
        """Whether the kernel's count of processes that it killed for memory says so of one that ended with ``code``."""
        kills, before = killed_for_memory(), self.oom_kills
        self.oom_kills = kills
        return code == -signal.SIGKILL and before is not None and kills is not None and kills > before

    def _note_start(self, worker: WorkerProcess, code: int, words: str) -> None:
        """A worker without a trial is gone: a place where none can start is at fault, a signal may be chance."""
        if worker.ready:
            return
        self.lost_starts += 1
        if code >= 0 or self.lost_starts >= STARTS:
            why = ", since the control group ran out of memory" if self._out_of_memory(code) else ""
            what = f"exit code {code}: {words}" if code >= 0 else f"{_how(code)}, {STARTS} times in a row{why}"
            raise UserError(f"a worker cannot start on this machine ({what}) - see {worker.log}")

    def _dismiss(self, worker: WorkerProcess) -> int:
        self.selector.unregister(worker.replies)
        self.workers.remove(worker)
        code = worker.end()
        if not worker.full:
            self.free_slots.append(worker.slot)
        elif not self.workers and not self.free_slots:
            raise PlaceError(worker.full)
        else:
            left = len(self.workers) + len(self.free_slots)
            self.listener.note(f"a slot is given up, as its GPU is full: {left} left")
        return code

    def _fail(self, key: str, cause: Any, reason: str) -> None:
        state = end_from_outside(self.results, key, cause, reason)
        self.waiting.settle(key)
        self.listener.ended(key, state)

    def _enforce_limits(self) -> None:
        limits, now = self.limits, time.monotonic()
        look_at_memory = now - self.watched >= WATCH_S
        if look_at_memory:
            self.watched = now
        for worker in [worker for worker in self.workers if worker.key is not None]:
            key = worker.key
            assert key is not None
            resident = worker.resident_bytes() if look_at_memory else 0
            if limits.seconds is not None and now - worker.since > limits.seconds:
                if not worker.stopping:
                    worker.ask_to_stop()
                if now - worker.since > limits.seconds + TERM_S:
                    self._dismiss(worker)
                    self._fail(key, "timeout", self._too_long())
            elif limits.resident_bytes is not None and resident > limits.resident_bytes:
                self._dismiss(worker)
                allowed = _gib(limits.resident_bytes)
                self._fail(key, "oom", f"it took more than the {allowed} of memory that a trial may take")

    def _too_long(self) -> str:
        return f"it ran for more than the {self.limits.seconds:g} s that a trial may take"

    def _stop(self) -> None:
        """Let the trials at work save what they have; those that do not in time are ended, to be gone on with later."""
        for worker in self.workers:
            worker.ask_to_stop()
        until = time.monotonic() + STOP_S
        while time.monotonic() < until and not all(worker.has_ended() for worker in self.workers):
            for worker in self.workers:  # a full pipe would keep it from ending
                for words in worker.hear():
                    if "ended" in words:
                        self._settle(worker, words["ended"])
            time.sleep(TICK_S)


def _told(earlier: Sequence[tuple[Path, TrialState]]) -> str:
    """What the last attempt said before its process ended, where it said anything."""
    return earlier[-1][1].reason if earlier and earlier[-1][1].state == "running" else ""


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"


def _how(code: int) -> str:
    if code >= 0:
        return f"ended by the method, with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name})"
