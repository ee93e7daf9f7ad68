"""Slurm's commands, called with a time limit each, in an environment from which no other job's settings leak.

That a call came to nothing says nothing of what it did: an ``sbatch`` whose answer was lost may have submitted. What
callers make of it stands in :mod:`stbench.trials.engines.slurm.engine`.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ....errors import Interrupted, UserError

TICK_S = 0.05
# settings of the cluster, not of the job in which this process may run
KEPT = frozenset({"SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SBATCH_ACCOUNT", "SBATCH_CLUSTERS"})
SPELLED = {"array": "ARRAY_INX", "time": "TIMELIMIT", "mem": "MEM_PER_NODE", "gpus": "GPUS"}  # variables of sbatch
TURNED_AWAY = re.compile(  # there are as many jobs as may be: later there may be room
    r"temporarily unable to accept|Resource temporarily unavailable|MaxSubmit|Max\w*Job|submit limit|"
    r"QOSGrpSubmit|too many jobs",
    re.IGNORECASE,
)
DOUBTFUL = re.compile(  # the controller may have taken the job all the same
    r"timed out|Unable to contact|Connection refused|Connection reset|Zero Bytes|Transport endpoint|"
    r"Communication connection failure|Unexpected message|Socket|slurm_persist|try again",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Answer:
    """What a call printed. ``code`` is None where it was ended, at its time limit or since nobody waited for it."""

    code: int | None
    out: str
    err: str

    @property
    def words(self) -> str:
        """What it complained of, on one line."""
        said = " ".join((self.err or self.out).split())
        return said or ("no answer in time" if self.code is None else f"exit code {self.code}")


class Call:
    """One call of a command, in a session of its own: what the terminal sends does not reach it."""

    def __init__(self, words: Sequence[str], limit_s: float, environment: dict[str, str] | None = None) -> None:
        self.until = time.monotonic() + limit_s
        self._files = contextlib.ExitStack()
        self._out = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - closed with the answer
        self._err = self._files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=self._out,
                stderr=self._err,
                start_new_session=True,
                env=clean_environment() if environment is None else environment,
            )
        except OSError as error:
            self._files.close()
            raise UserError(
                f"{words[0]} cannot be run ({error.strerror}) - is Slurm installed on this machine, and on PATH?"
            ) from error

    def answer(self) -> Answer | None:
        """What came of it; ``None`` while it is at work and may be."""
        code = self._process.poll()
        if code is None:
            if time.monotonic() < self.until:
                return None
            return self.end()
        answer = Answer(code, _text(self._out), _text(self._err))
        self._files.close()
        return answer

    def complains(self) -> str:
        """What it printed on standard error so far."""
        return _text(self._err)

    def end(self) -> Answer:
        """Kill it, with whatever it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        answer = Answer(None, _text(self._out), _text(self._err))
        self._files.close()
        return answer

    def wait(
        self,
        should_stop: Callable[[], bool] = lambda: False,
        is_enough: Callable[[str], bool] = lambda complaint: False,
    ) -> Answer:
        """Wait for its answer; raises ``Interrupted`` if ``should_stop()``. ``is_enough``: of what it complained."""
        while True:
            found = self.answer()
            if found is not None:
                return found
            if is_enough(self.complains()):
                return self.end()
            if should_stop():
                self.end()
                raise Interrupted("stopped while Slurm was asked")
            time.sleep(TICK_S)


def _text(file: IO[bytes]) -> str:
    """What a file holds; the place in it, which it shares with the process that writes, stays where it is."""
    return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode("utf-8", errors="replace")


def require_slurm() -> None:
    """Raise ``UserError`` where there is no ``sbatch``."""
    if shutil.which("sbatch") is None:
        raise UserError(
            "--engine slurm needs Slurm's commands, and there is no sbatch on PATH - run it on a login node of the "
            "cluster, or write the files with --engine script"
        )


def clean_environment(options: Iterable[str] = ()) -> dict[str, str]:
    """This process's environment as Slurm's commands should see it.

    Within an allocation all that Slurm set for it is left out, as it would limit new jobs too. Outside of one a user's
    own defaults (``SBATCH_ACCOUNT``) stay, but for those of ``options``: there they would win over what a file says.
    """
    inside = "SLURM_JOB_ID" in os.environ or "SLURM_JOBID" in os.environ
    replaced = {f"SBATCH_{SPELLED.get(name, name.upper().replace('-', '_'))}" for name in options}
    replaced |= {"SBATCH_NO_REQUEUE"} if "requeue" in options else set()

    def is_kept(name: str) -> bool:
        if name in replaced or name.startswith(("SQUEUE_", "SCANCEL_", "SCONTROL_")):
            return False
        return not inside or name in KEPT or not name.startswith(("SLURM_", "SBATCH_", "SLURMD_", "SRUN_"))

    return {name: value for name, value in os.environ.items() if is_kept(name)}


def submit(script: Path, options: Iterable[str], limit_s: float, should_stop: Callable[[], bool]) -> Answer:
    """``sbatch``; where it would try again by itself for minutes, its complaint is the answer."""
    call = Call(["sbatch", "--parsable", str(script)], limit_s, clean_environment(options))
    return call.wait(should_stop, lambda complaint: "temporarily unable to accept" in complaint)


def job_number(answer: Answer) -> str | None:
    """The number in what ``sbatch --parsable`` printed; ``None`` where there is none.

    Examples
    --------
    >>> job_number(Answer(0, "1234;cluster\\n", "")), job_number(Answer(0, "", ""))
    ('1234', None)
    """
    for line in reversed(answer.out.splitlines()):
        found = re.fullmatch(r"(\d+)(?:;\S+)?", line.strip())
        if found is not None:
            return found[1]
    return None


def was_turned_away(answer: Answer) -> bool:
    """Whether there were too many jobs."""
    return answer.code != 0 and TURNED_AWAY.search(answer.err) is not None


def is_doubtful(answer: Answer) -> bool:
    """Whether ``sbatch`` may have submitted, although it does not say so."""
    if answer.code is None:
        return True
    return job_number(answer) is None and (answer.code == 0 or DOUBTFUL.search(answer.err) is not None)


def cancel_waiting(jobs: Iterable[str], clusters: str) -> list[str]:
    """The call that cancels what has not begun of arrays."""
    return ["scancel", *_on(clusters), "--state=PENDING", *jobs]


def warn(jobs: Iterable[str], clusters: str, name: str) -> list[str]:
    """The call that sends a signal to the workers of arrays, and to none of their children."""
    return ["scancel", *_on(clusters), "--state=RUNNING", "--batch", f"--signal={name}", *jobs]


def _on(clusters: str) -> list[str]:
    return [f"--clusters={clusters}"] if clusters else []


@dataclass(frozen=True)
class ClusterLimits:
    """Of ``scontrol show config``; Slurm's defaults where it does not answer."""

    array_size: int = 1001  # indices of an array are smaller than this
    jobs: int = 10000  # of all users, each task of an array counting as one

    @classmethod
    def parse(cls, text: str) -> ClusterLimits:
        """Read what ``scontrol show config`` prints."""
        found = dict(re.findall(r"^(MaxArraySize|MaxJobCount)\s*=\s*(\d+)", text, re.MULTILINE))
        return cls(int(found.get("MaxArraySize", cls.array_size)), int(found.get("MaxJobCount", cls.jobs)))

    @classmethod
    def ask(cls, limit_s: float, should_stop: Callable[[], bool]) -> ClusterLimits:
        """What the cluster says."""
        answer = Call(["scontrol", "show", "config"], limit_s).wait(should_stop)
        return cls.parse(answer.out) if answer.code == 0 else cls()
