"""The arrays of workers that were sent: sending them, finding them again, hearing of them, asking them to leave."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ....errors import UserError
from . import commands
from .arrays import Arrays
from .commands import Answer, Call, ClusterLimits
from .lists import ResourceClass
from .node import Left
from .queue import QueuedJob, parse_queue, squeue, why_waiting
from .sight import Pace, Sight
from .submission import Closed, Submission, Tried, submissions

AGAIN_S = 10.0  # between two requests to leave


@dataclass
class Worker:
    """Worker ``number`` of an array: the trials of its list, and what is known of it."""

    token: str
    number: int
    keys: list[str]
    n_open: int  # of its trials, when it was sent
    sight: Sight = field(default_factory=Sight)


class Fleet:
    """All workers of a results directory that have not left.

    Parameters
    ----------
    arrays : Arrays
        Writes the files.
    pace : Pace
        How often Slurm is asked.
    note : callable
        Takes a line for whoever waits.
    should_stop : callable
        Whether to give up waiting for an answer.
    """

    def __init__(
        self, arrays: Arrays, pace: Pace, note: Callable[[str], None], should_stop: Callable[[], bool]
    ) -> None:
        self.arrays, self.pace, self.note, self.should_stop = arrays, pace, note, should_stop
        self.clusters = arrays.layout.options.typed.get("clusters") or ""
        self.submissions: dict[str, Submission] = {}
        self.workers: dict[tuple[str, int], Worker] = {}
        self._not_needed: list[str] = []
        self._limits: ClusterLimits | None = None
        self._asked: Call | None = None
        self._next_poll = 0.0
        self._complained = False
        self._reasons: set[str] = set()  # that were told

    # What there is ---------------------------------------------------------------------------------------------------

    def adopt(self, open_keys: Iterable[str]) -> None:
        """Find workers of earlier commands again: those that were sent, and what a person sent by hand."""
        wanted = set(open_keys)
        known = [each for each in submissions(self.arrays.results) if each.n_open]
        if not known:
            return
        queued = parse_queue(Call(squeue(self.clusters), self.pace.call_s).wait(self.should_stop))
        named = {job.name for job in queued or () if not job.has_ended}
        for submission in known:
            if submission.record.sent or submission.record.name in named:
                self._register(submission, wanted)
        if queued is not None:
            self._hear(queued)

    def _register(self, submission: Submission, open_keys: set[str]) -> None:
        record = submission.record
        found = False
        for number in range(record.n_workers):
            if number in record.closed:
                continue
            keys = [key for key in submission.keys(number) if key in open_keys]
            if keys:
                self.workers[record.token, number] = Worker(record.token, number, keys, len(keys))
                found = True
        if found:
            self.submissions[record.token] = submission

    def n_used(self) -> int:
        """Workers that may be at work at a time, by the arrays that were sent."""
        n_live = Counter(token for token, _ in self.workers)
        throttles = {token: submission.record.throttle for token, submission in self.submissions.items()}
        return sum(
            number if (most := throttles[token]) is None else min(most, number) for token, number in n_live.items()
        )

    def left(self, worker: Worker) -> Left | None:
        return Left.read(self.submissions[worker.token].left(worker.number))

    def close(self, worker: Worker, how: str) -> None:
        """Write down how a worker left, and forget it; one that waits, and has nothing to do, is not needed."""
        if worker.sight.is_waiting and worker.sight.job is not None:
            self._not_needed.append(f"{worker.sight.job.job}_{worker.number}")
        submission = self.submissions[worker.token]
        ended = dict(submission.record.closed) | {worker.number: Closed(how=how)}
        self.submissions[worker.token] = submission.changed(closed=ended)
        del self.workers[worker.token, worker.number]
        if all(of != worker.token for of, _ in self.workers):
            del self.submissions[worker.token]

    # Sending ---------------------------------------------------------------------------------------------------------

    def send(
        self,
        wanted: ResourceClass,
        lists: Sequence[Sequence[str]],
        throttle: int | None,
        tried: Mapping[str, Tried],
    ) -> int:
        """Submit an array of as many of ``lists`` as Slurm takes; how many it took. Raises ``UserError``.

        An array whose ``sbatch`` did not answer counts as sent: its workers are looked for by name, and are sent anew
        only after they were not seen for a while.
        """
        if self._limits is None:
            self._limits = ClusterLimits.ask(self.pace.call_s, self.should_stop)
        n_lists = min(len(lists), self._limits.array_size, max(1, self._limits.jobs - len(self.workers)))
        while n_lists:
            chosen = [list(keys) for keys in lists[:n_lists]]
            submission = self.arrays.write(wanted, chosen, throttle, tried).changed(sent=True)
            self._register(submission, {key for keys in chosen for key in keys})
            self._next_poll = 0.0
            answer = commands.submit(submission.script, submission.options, self.pace.submit_s, self.should_stop)
            job = commands.job_number(answer) if answer.code == 0 else None
            turned_away = commands.was_turned_away(answer)
            if job is None and (turned_away or not commands.is_doubtful(answer)):
                job, is_certain = self._look_for(submission)
                if job is None and is_certain:
                    self._forget(submission)
                    if not turned_away:
                        raise UserError(f"sbatch refuses the jobs ({answer.words}) - change them with --slurm")
                    n_lists //= 2
                    continue
            if job is None:
                self.note(f"sbatch did not say whether it took the jobs ({answer.words}); they are looked for by name")
            else:
                self.submissions[submission.record.token] = submission.changed(job=job)
            return n_lists
        return 0

    def _look_for(self, submission: Submission) -> tuple[str | None, bool]:
        """The number of an array by its name, and whether squeue's word can be relied on."""
        for _ in range(2):
            queued = parse_queue(Call(squeue(self.clusters), self.pace.call_s).wait(self.should_stop))
            if queued is None:
                return None, False
            for job in queued:
                if job.name == submission.record.name:
                    return job.job, True
            time.sleep(0.5)
        return None, True

    def _forget(self, submission: Submission) -> None:
        token = submission.record.token
        self.submissions.pop(token, None)
        self.workers = {place: worker for place, worker in self.workers.items() if worker.token != token}
        submission.remove()

    # Hearing ---------------------------------------------------------------------------------------------------------

    def poll(self, now: float) -> None:
        """Ask squeue when it is time, without waiting for it, and take in what it answers."""
        if self._asked is None:
            if self.workers and now >= self._next_poll:
                self._asked = Call(squeue(self.clusters), self.pace.call_s)
                self._next_poll = now + self.pace.poll_s
            return
        answer = self._asked.answer()
        if answer is None:
            return
        self._asked = None
        queued = parse_queue(answer)
        if queued is None:
            self._complain(answer)
            return
        if self._complained:
            self.note("squeue answers again")
        self._complained = False
        self._hear(queued)

    def _complain(self, answer: Answer) -> None:
        if not self._complained:
            words = answer.words if answer.code != 0 else "it said nothing that can be read"
            self.note(f"squeue gives no answer ({words}); what becomes of trials is seen in the results directory")
        self._complained = True

    def _hear(self, queued: Iterable[QueuedJob]) -> None:
        by_name = {(job.name, job.task): job for job in queued}
        now = time.monotonic()
        for worker in self.workers.values():
            submission = self.submissions[worker.token]
            job = by_name.get((submission.record.name, worker.number))
            worker.sight.saw(job, now)
            if job is not None and submission.record.job is None:
                self.submissions[worker.token] = submission.changed(job=job.job)
        reasons = why_waiting(worker.sight.job for worker in self.workers.values() if worker.sight.job is not None)
        for line in reasons:
            reason = line.partition("queue: ")[2]
            if reason not in self._reasons:
                self._reasons.add(reason)
                self.note(line)

    # Stopping --------------------------------------------------------------------------------------------------------

    def ask_to_leave(self) -> None:
        """Take back what waits in the queue, and ask workers to save what they have."""
        unknown = [each for each in self.submissions.values() if each.record.job is None]
        if unknown:
            queued = parse_queue(Call(squeue(self.clusters), self.pace.call_s).wait())
            if queued is not None:
                self._hear(queued)
        numbers = [(each.record.job, each.record.requeues) for each in self.submissions.values() if each.record.job]
        jobs = [job for job, _ in numbers if job]
        # at SIGUSR2 a worker that was detached asks to be run again
        calm = [job for job, requeues in numbers if job and not requeues]
        detached = [job for job, requeues in numbers if job and requeues]
        calls = [commands.cancel_waiting(jobs, self.clusters)] if jobs else []
        calls += [commands.warn(calm, self.clusters, "USR2")] if calm else []
        calls += [commands.warn(detached, self.clusters, "TERM")] if detached else []
        for words in calls:
            answer = Call(words, self.pace.call_s).wait()
            if answer.code != 0:
                self.note(f"scancel: {answer.words}")

    def wait_until_left(self, is_working: Callable[[Worker], bool]) -> bool:
        """Wait for workers to save what they have; whether all did."""
        self.ask_to_leave()
        now = time.monotonic()
        until, again = now + self.pace.stop_s, now + AGAIN_S
        self._next_poll = 0.0
        waited = set(self.workers)
        while waited and now < until:
            self.poll(now)
            for place in list(waited):
                worker = self.workers[place]
                sight = worker.sight
                if self.left(worker) is not None or sight.ended_since is not None or sight.is_waiting:
                    waited.discard(place)
            if now > again:
                self.ask_to_leave()  # those that had just begun
                again = now + AGAIN_S
            time.sleep(0.2)
            now = time.monotonic()
        return not any(is_working(self.workers[place]) for place in waited)

    def take_back(self) -> None:
        """Cancel jobs that wait although their trials have ended."""
        if self._not_needed:
            Call(commands.cancel_waiting(self._not_needed, self.clusters), self.pace.call_s).wait(self.should_stop)
        self._not_needed = []

    def end_calls(self) -> None:
        """Wait for no answer any more."""
        if self._asked is not None:
            self._asked.end()
            self._asked = None
