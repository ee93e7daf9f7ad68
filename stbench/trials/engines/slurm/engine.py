"""Trials as arrays of workers in Slurm.

What became of a trial is read in the results directory alone. Slurm's word only explains why a worker is gone, and
where it cannot be had, trials are collected all the same. A worker that left with trials of its list undone is followed
by another for what is left, as long as there is progress; other workers are never touched.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from ....errors import Interrupted, LeftToOthers, UserError
from ....system.beats import Observer
from ....system.files import writing_to
from ...attempts import lost_in_a_row
from ...outcome import state_of
from ...run import end_from_outside
from ...state import FINAL_STATES
from ..protocol import Listener
from ..waiting import ATTEMPTS
from .arrays import Arrays, Layout
from .fleet import Fleet, Worker
from .lists import shares
from .progress import epochs_of, n_attempts, was_lost
from .sight import How, Pace, last_line, was_out_of_memory
from .submission import Tried

TICK_S = 0.2
STRIKES = 2  # workers in a row without progress of a trial, after which it is left as it is
IN_WORDS: dict[How, str] = {
    "left": "left",
    "killed": "was ended from outside",
    "oom": "took too much memory",
    "timeout": "was ended at its time limit",
    "cancelled": "was cancelled",
    "site": "was ended by Slurm (preemption, or a node that failed)",
    "lost": "is gone from Slurm's queue",
    "never": "never came into Slurm's queue",
}


class SlurmEngine:
    """Sends workers, waits for them and sends others for what is left; with ``detach`` it sends them and leaves."""

    def __init__(self, layout: Layout, detach: bool = False, pace: Pace | None = None) -> None:
        self.layout = replace(layout, command=replace(layout.command, requeues=detach))
        self.detach = detach
        self.pace = Pace() if pace is None else pace

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        results = Path(results).absolute()
        with writing_to(results):
            run = _Run(self, results, keys, listener, should_stop)
            try:
                run.until_done()
            except Interrupted:
                run.stop()
                raise
            finally:
                run.fleet.end_calls()


class _Run:
    def __init__(
        self,
        engine: SlurmEngine,
        results: Path,
        keys: Sequence[str],
        listener: Listener,
        should_stop: Callable[[], bool],
    ) -> None:
        self.engine, self.results, self.listener, self.should_stop = engine, results, listener, should_stop
        self.pace = engine.pace
        self.arrays = Arrays(results, engine.layout)
        self.open = dict.fromkeys(keys)  # neither ended nor given up, in order
        self.strikes: dict[str, int] = {}
        self.lost: set[str] = set()  # trials whose worker was killed while it worked on them
        self.observer = Observer()
        self.begun: set[str] = set()  # of which the listener heard
        self.given_up: dict[str, str] = {}
        self.refusal: UserError | None = None
        self.not_before = 0.0  # when more may be sent
        self.next_look = 0.0
        self.said: set[str] = set()
        self.fleet = Fleet(self.arrays, self.pace, listener.note, should_stop)

    def until_done(self) -> None:
        if not self.open:
            return
        self.arrays.describe(self.open)
        self.fleet.adopt(self.open)
        while self.open:
            if self.should_stop():
                raise Interrupted("the workers were asked to save what they have")
            now = time.monotonic()
            self.fleet.poll(now)
            if now >= self.next_look:
                self._look(now)
                self._top_up()
                self.next_look = time.monotonic() + max(self.pace.look_s, 5 * (time.monotonic() - now))
                if self.engine.detach and self.open:
                    raise LeftToOthers(self._how_to_go_on())
            if self.refusal is not None and not self.fleet.workers:
                raise self.refusal
            time.sleep(TICK_S)
        self.fleet.take_back()
        if self.given_up:
            reason = next(iter(self.given_up.values()))
            raise UserError(
                f"{len(self.given_up)} trials stay to be run: they made no progress in {STRIKES} jobs in a row "
                f"({reason}) - mend that, or give them more with --slurm, and run the same command again"
            )

    # Looking ---------------------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        trials = self.results / "trials"
        there = set(os.listdir(trials)) if trials.is_dir() else set()  # listing a folder asks the file server
        for key in [key for key in self.open if key in there]:
            state = state_of(self.results, key)
            if state.state in FINAL_STATES:
                del self.open[key]
                self.listener.ended(key, state)
        for worker in list(self.fleet.workers.values()):
            self._look_at(worker, now)

    def _look_at(self, worker: Worker, now: float) -> None:
        undone = [key for key in worker.keys if key in self.open]
        if not undone:
            self.fleet.close(worker, "left")
            return
        if undone[0] not in self.begun and self._is_at_work(undone[0]):
            self.begun.add(undone[0])
            self.listener.started(undone[0])
        left = self.fleet.left(worker)
        how = worker.sight.how_it_left(left, self.is_working(worker), now, self.pace)
        if (
            how == "left"
            and left is not None
            and left.why == "done"
            and not worker.sight.left_for(self.pace.cache_s, now)
        ):
            return  # what it did is about to be seen
        if how is not None:
            self._close(worker, how, undone)

    def is_working(self, worker: Worker) -> bool:
        """Whether a worker is at work by the directory: on the first trial of its list that has not ended."""
        return any(self._is_at_work(key) for key in [key for key in worker.keys if key in self.open][:1])

    def _is_at_work(self, key: str) -> bool:
        return state_of(self.results, key, self.observer).state == "running"

    # Leaving ---------------------------------------------------------------------------------------------------------

    def _close(self, worker: Worker, how: How, undone: list[str]) -> None:
        submission, left = self.fleet.submissions[worker.token], self.fleet.left(worker)
        log = submission.log(worker.number)
        if how == "never" and submission.record.job is not None:
            how = "lost"  # sbatch gave its number
        if how in ("killed", "lost", "cancelled") and was_out_of_memory(log):
            how = "oom"
        before = {key: submission.record.tried.get(key, Tried()) for key in undone}
        after = {key: self._tried(key) for key in undone}
        begun = [key for key in undone if after[key].attempts > before[key].attempts]
        if how != "never":
            advanced = {key for key in undone if after[key].epochs > before[key].epochs}
            in_vain = not advanced and len(undone) == worker.n_open
            for key in undone:
                vain = key not in advanced and (in_vain or key in begun)
                self.strikes[key] = before[key].strikes + 1 if vain else 0 if key in advanced else before[key].strikes
        reason = f"its worker {IN_WORDS[how]}"
        if left is not None and left.said:
            reason += f" ({left.said})"
        elif how in ("killed", "lost") and (words := last_line(log)):
            reason += f" (it said last: {words})"
        self.fleet.close(worker, how)
        for key in begun:
            if how in ("killed", "lost", "oom") and was_lost(self.results, key):
                self._blame(key, how, reason, log)
        if left is not None and left.why in ("place", "error") and left.said not in self.said:
            self.said.add(left.said)
            self.listener.note(f"a worker on {left.node or 'its node'} left: {left.said}")
        for key in undone:
            if key in self.open and self.strikes.get(key, 0) >= STRIKES:
                self._give_up(key, f"{reason} - see {log}")
            elif key in self.open and key in begun:
                self.begun.discard(key)
                self.listener.again(key, reason)

    def _blame(self, key: str, how: How, reason: str, log: Path) -> None:
        """A worker was killed while it worked on a trial, which has failed if that is not to be tried again."""
        self.lost.add(key)
        n_lost = lost_in_a_row(self.results, key)
        if how == "oom":
            state = end_from_outside(self.results, key, "oom", f"{reason}, as Slurm says - see {log}")
        elif n_lost >= ATTEMPTS:
            state = end_from_outside(self.results, key, "killed", f"{reason}, {n_lost} times in a row - see {log}")
        else:
            return
        self.lost.discard(key)
        self.open.pop(key, None)
        self.listener.ended(key, state)

    def _give_up(self, key: str, reason: str) -> None:
        del self.open[key]
        self.given_up[key] = reason
        state = state_of(self.results, key)
        self.listener.ended(key, state.model_copy(update={"reason": f"no progress in {STRIKES} jobs: {reason}"}))

    def _tried(self, key: str) -> Tried:
        number = n_attempts(self.results, key)
        epochs = epochs_of(self.results, key) if number else 0
        return Tried(attempts=number, epochs=epochs, strikes=self.strikes.get(key, 0))

    # Sending ---------------------------------------------------------------------------------------------------------

    def _top_up(self) -> None:
        """Send workers for what no worker has."""
        if self.refusal is not None or time.monotonic() < self.not_before:
            return
        given = {key for worker in self.fleet.workers.values() for key in worker.keys if key in self.open}
        teacher = {key: self.arrays.jobs[key].teacher for key in self.open}
        waiting = [key for key in self.open if key not in given and teacher[key] not in given]
        if not waiting:
            return
        at_a_time = self.engine.layout.at_a_time
        room = None if at_a_time is None else at_a_time - self.fleet.n_used()
        if room is not None and room < 1:
            return
        planned = self.arrays.plan(waiting, self.lost, room)
        wanted = {each: len(lists) for each, lists in planned.items()}
        throttles = dict.fromkeys(wanted) if room is None else shares(room, wanted)
        tried = {key: state for key in waiting if (state := self._tried(key)) != Tried()}
        try:
            for each, throttle in throttles.items():
                lists = planned[each]
                while lists:
                    n_sent = self.fleet.send(each, lists, throttle, tried)
                    lists = lists[n_sent:]
                    if not n_sent:
                        self._say_once("Slurm takes no more jobs now; what is left is sent later")
                        self.not_before = time.monotonic() + self.pace.retry_s
                        return
        except UserError as refusal:
            if not self.fleet.workers:
                raise
            self.refusal = refusal
            self.listener.note(f"{refusal}; the workers that were sent before are waited for")

    def _say_once(self, text: str) -> None:
        if text not in self.said:
            self.said.add(text)
            self.listener.note(text)

    def _how_to_go_on(self) -> str:
        given = {key for worker in self.fleet.workers.values() for key in worker.keys}
        n_left = sum(key not in given for key in self.open)
        left = f"; {n_left} more trials wait, as Slurm takes no more jobs now" if n_left else ""
        return (
            f"{len(self.fleet.workers)} workers for {len(given & self.open.keys())} trials are with Slurm{left}\n"
            f"look: stbench status {shlex.quote(str(self.results))}\n"
            "collect: the same command again; without --detach it waits, and sends workers for what is left"
        )

    # Stopping --------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask all workers to save what they have, and wait until they did."""
        if self.fleet.workers and not self.fleet.wait_until_left(self.is_working):
            self.listener.note("some workers have not left yet; the results directory shows what they do")
