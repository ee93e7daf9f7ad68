"""What ``squeue`` says of jobs, and what it means. The results directory is the truth: this explains it."""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ....errors import UserError
from ....system.files import read_object
from .commands import Answer, Call

FORMAT = "%F|%K|%T|%N|%j|%r"
HEADER = "ARRAY_JOB_ID|ARRAY_TASK_ID|STATE|NODELIST|NAME|REASON"
# every other state, known or not, may lead to a worker at work: CONFIGURING, SUSPENDED, REQUEUE_HOLD, COMPLETING, ...
ENDED = frozenset(
    {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT"}
)
STUCK = (  # reasons of waiting jobs that do not pass by themselves, and what helps
    (r"PartitionTimeLimit", "more time was asked for than the partition gives: another --slurm time or partition"),
    (r"PartitionNodeLimit", "more nodes were asked for than the partition gives"),
    (r"PartitionConfig", "the partition does not give what was asked for: another --slurm partition"),
    (r"PartitionDown|PartitionInactive", "the partition is closed: ask the site, or take another"),
    (r"launch failed requeued held", "its start failed: see the node, then scontrol release"),
    (r"JobHeldUser", "it is held: scontrol release"),
    (r"JobHeldAdmin|JobHoldMaxRequeue|ReservationDeleted|SystemFailure", "it is held by the site: ask there"),
    (r"BadConstraints|InvalidAccount|InvalidQOS|AccountNotAllowed|QOSNotAllowed|QOSJobLimit", "the site refuses it"),
    (r"DependencyNeverSatisfied", "what it depends on failed"),
    (r"(?:QOS|Assoc)Max\w*(?:PerUser|PerAccount|PerJob|PerNode)\w*|\w*MinGRES", "more was asked for than one may have"),
    (r"(?:QOS|Assoc)(?:Grp|Max)\w*(?:Minutes|Billing)\w*", "the budget of time is used up"),
    (r"ReqNodeNotAvail.*|.*DOWN, DRAINED.*", "the nodes are down or reserved: ask the site"),
)


@dataclass(frozen=True)
class QueuedJob:
    """A task of an array, or a job that is none (``task`` is None)."""

    job: str
    task: int | None
    state: str
    node: str
    name: str
    reason: str

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    @property
    def is_waiting(self) -> bool:
        """Pending, or held after it was to be run again; not yet ended, and not begun."""
        return self.state in ("PENDING", "REQUEUE_HOLD", "REQUEUED", "RESV_DEL_HOLD", "SPECIAL_EXIT", "REQUEUE_FED")


def squeue(clusters: str = "") -> list[str]:
    """The call that lists this user's jobs, those that ended a moment ago among them."""
    words = ["squeue", "--array", "--states=all", f"--user={os.getuid()}", f"--format={FORMAT}"]
    return [*words, f"--clusters={clusters}"] if clusters else words


def parse_queue(answer: Answer) -> list[QueuedJob] | None:
    """The jobs in what ``squeue`` printed; ``None`` where that is no proper answer.

    An answer begins with the header: one that is empty, or ends within a line, says nothing.
    """
    if answer.code != 0 or not answer.out.endswith("\n"):
        return None
    lines = [line for line in answer.out.splitlines() if line and not line.startswith("CLUSTER: ")]
    if not lines or lines[0].strip() != HEADER:
        return None
    found = []
    for line in lines[1:]:
        if line.strip() == HEADER:  # of another cluster
            continue
        parts = line.split("|", 4)
        if len(parts) < 5 or "|" not in parts[4]:
            return None
        job, task, state, node, rest = parts
        name, _, reason = rest.partition("|")
        number = int(task) if task.isdigit() else None
        found.append(QueuedJob(job, number, state.strip(), node, name, reason.strip().strip("()")))
    return found


def hint(reason: str) -> str:
    """What to do about a reason that does not pass by itself; empty for those that do.

    Examples
    --------
    >>> hint("Resources"), hint("JobHeldUser")
    ('', 'it is held: scontrol release')
    """
    return next((words for pattern, words in STUCK if re.fullmatch(pattern, reason)), "")


def why_waiting(jobs: Iterable[QueuedJob]) -> list[str]:
    """A line for every reason for which jobs wait: how many, and whether it passes by itself."""
    reasons = Counter(job.reason for job in jobs if job.is_waiting and job.reason not in ("", "None"))
    said = []
    for reason, number in reasons.most_common():
        helps = hint(reason)
        count = f"{number} worker{'s wait' if number > 1 else ' waits'} in Slurm's queue: {reason}"
        said.append(f"{count} - this does not pass by itself: {helps}" if helps else count)
    return said


def jobs_of_run(results: Path, limit_s: float = 10.0) -> list[QueuedJob] | None:
    """The jobs of a results directory, as Slurm knows them now; for those who look, and write nothing.

    ``None`` where there is no Slurm, or it does not answer. None is asked where nothing was submitted from here.
    """
    if not (results / "batch").is_dir() or shutil.which("squeue") is None:
        return None
    run_id = str(read_object(results / "run.json")["id"])
    try:
        found = parse_queue(Call(squeue(), limit_s).wait())
    except UserError:
        return None
    return None if found is None else [job for job in found if f"-{run_id[:8]}-" in job.name]
