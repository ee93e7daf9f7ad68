"""How a worker of an array left, judged from what it said itself, from the directory, and from Slurm, in this order.

Nothing is concluded from silence alone: a worker is lost only after ``squeue`` answered properly, several times and for
longer than answers and directories are cached, without naming it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .node import Left
from .queue import QueuedJob

How = Literal["left", "killed", "oom", "timeout", "cancelled", "site", "lost", "never"]
# what slurmstepd writes into a job's log, where its state alone does not tell
OOM = re.compile(r"slurmstepd.*(?:oom[-_]kill|exceeded (?:job )?memory limit)", re.IGNORECASE)
STUCK = 5  # times as long as is waited elsewhere, for a job that ends and ends
LOG_TAIL = 4096  # bytes of a log that are looked at
OF_STATES: dict[str, How] = {
    "OUT_OF_MEMORY": "oom",
    "TIMEOUT": "timeout",
    "DEADLINE": "timeout",
    "CANCELLED": "cancelled",
    "PREEMPTED": "site",
    "NODE_FAIL": "site",
    "BOOT_FAIL": "site",
}


@dataclass(frozen=True)
class Pace:
    """How often one looks, and how long one waits."""

    look_s: float = 2.0  # between two looks at the directory
    poll_s: float = 20.0  # between two questions to squeue
    cache_s: float = 65.0  # longer than file systems and answers of squeue are cached
    answers: int = 3  # proper ones without a worker
    call_s: float = 30.0  # for every call of a command
    submit_s: float = 90.0  # for sbatch
    retry_s: float = 60.0  # until more is submitted, after Slurm took no more
    stop_s: float = 60.0  # for workers to save what they have


@dataclass
class Sight:
    """What is known of a worker from outside. Times are of this process's monotonic clock."""

    job: QueuedJob | None = None  # as squeue named it last
    ended_since: float | None = None  # when squeue said first that it has ended
    absent_since: float | None = None
    absences: int = 0
    left_since: float | None = None
    heard: float | None = None  # when squeue answered properly last
    seen: bool = field(default=False)

    def saw(self, job: QueuedJob | None, now: float) -> None:
        """Squeue answered properly; ``job``: what it says of this worker, if anything."""
        self.heard = now
        if job is None:
            self.absences += 1
            self.absent_since = now if self.absent_since is None else self.absent_since
            return
        self.job, self.seen, self.absences, self.absent_since = job, True, 0, None
        if not job.has_ended:
            self.ended_since = None
        elif self.ended_since is None:
            self.ended_since = now

    @property
    def is_waiting(self) -> bool:
        return self.job is not None and self.job.is_waiting

    def left_for(self, seconds: float, now: float) -> bool:
        """Whether it said that long ago how it left."""
        return self.left_since is not None and now - self.left_since > seconds

    def how_it_left(self, left: Left | None, is_working: bool, now: float, pace: Pace) -> How | None:
        """``None`` where it is, or may be, still to come, at work, or run again.

        ``left``: what it said at its end; ``is_working``: by the directory, it is at work on a trial.
        """
        asked = left is not None and left.why == "asked"  # then Slurm itself may run it again, as after preemption
        if left is None or left.requeued or (asked and self.is_waiting):
            self.left_since = None
        elif self.left_since is None:
            self.left_since = now
        absent = (
            self.absent_since is not None and self.absences >= pace.answers and now - self.absent_since > pace.cache_s
        )
        if left is not None and not left.requeued:
            if absent or self.ended_since is not None or not asked:
                return "left"
            silent = self.heard is None or now - self.heard > pace.cache_s
            # as long as squeue answers, its job ends: it may hang in the site's epilog, or begin again
            return "left" if self.left_for(pace.cache_s if silent else STUCK * pace.cache_s, now) else None
        if self.ended_since is not None and self.job is not None and now - self.ended_since > pace.cache_s:
            return OF_STATES.get(self.job.state, "killed")
        if absent and not is_working:
            return "lost" if self.seen or left is not None else "never"
        return None


def was_out_of_memory(log: Path) -> bool:
    """Whether Slurm wrote at the end of a worker's log that it took too much memory."""
    return OOM.search(tail(log)) is not None


def last_line(log: Path) -> str:
    """The last thing that a worker printed."""
    lines = tail(log).strip().splitlines()
    return lines[-1] if lines else ""


def tail(log: Path) -> str:
    try:
        with open(log, "rb") as handle:
            handle.seek(max(0, log.stat().st_size - LOG_TAIL))
            return handle.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
