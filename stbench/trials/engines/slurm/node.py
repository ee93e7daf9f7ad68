"""The worker's side on a node: it says how it left, and may ask Slurm to be run again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ....errors import DamagedFileError, Interrupted, PlaceError, UserError, said
from ....system.files import read_object, write_json
from ....system.interrupt import StopRequest
from .progress import progress_of

log = logging.getLogger("stbench")

CALL_S = 60.0  # for scontrol
FRUITLESS = 2  # runs of a worker without progress, after which it does not ask for another


class Left(BaseModel):
    """``left/N.json``: why a worker left."""

    model_config = ConfigDict(frozen=True)

    why: Literal["done", "time", "asked", "place", "error"]
    said: str = ""
    node: str = ""
    requeued: bool = False
    fruitless: int = 0  # runs in a row in which it got no further

    @classmethod
    def read(cls, path: Path) -> Left | None:
        """``None`` where it has not left, or where what it wrote cannot be read yet."""
        with contextlib.suppress(DamagedFileError, ValidationError, OSError):
            if path.exists():
                return cls.model_validate(read_object(path))
        return None


class Leaving:
    """A context within which a worker runs its list: at its end ``path`` says how it left.

    Parameters
    ----------
    path : Path, optional
        Where to say it.
    results : Path
        The results directory.
    keys : list of str
        The worker's trials.
    stop : StopRequest
        Which signal came.
    requeue : bool
        Ask Slurm to run this job again where the time was up, and the run was not in vain.
    """

    def __init__(self, path: Path | None, results: Path, keys: list[str], stop: StopRequest, requeue: bool) -> None:
        self.path, self.results, self.keys, self.stop, self.requeue = path, results, keys, stop, requeue

    def __enter__(self) -> None:
        if self.path is None:
            return
        before = Left.read(self.path)
        self.fruitless = before.fruitless if before is not None and before.requeued else 0
        self.path.unlink(missing_ok=True)  # it is at work again
        self.before = progress_of(self.results, self.keys) if self.requeue else None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.path is None:
            return
        why = self._why(error)
        again = self.requeue and why == "time"
        if again:
            advanced = progress_of(self.results, self.keys) != self.before
            self.fruitless = 0 if advanced else self.fruitless + 1
            if self.fruitless >= FRUITLESS:
                again = False
                log.warning("no trial got further in %d runs: this worker is not run again", FRUITLESS)
        left = Left(
            why=why,
            said="" if error is None else str(error) if isinstance(error, Interrupted) else said(error),
            node=os.environ.get("SLURMD_NODENAME", ""),
            requeued=again,
            fruitless=self.fruitless,
        )
        try:
            self._say(left)
            if again and not _requeued():
                self._say(left.model_copy(update={"requeued": False}))
        except PlaceError as full:
            log.error("how this worker left cannot be written: %s", full)

    def _why(self, error: BaseException | None) -> Literal["done", "time", "asked", "place", "error"]:
        if error is None:
            return "done"
        if isinstance(error, (Interrupted, KeyboardInterrupt)):
            return "time" if self.stop.signal in (None, signal.SIGUSR2) else "asked"
        return "place" if isinstance(error, (UserError, OSError)) else "error"

    def _say(self, left: Left) -> None:
        assert self.path is not None
        write_json(self.path, left.model_dump(mode="json"))


def _requeued() -> bool:
    """Ask Slurm to run this task of the array again, and no other."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")
    try:
        asked = subprocess.run(
            ["scontrol", "requeue", job], capture_output=True, encoding="utf-8", errors="replace", timeout=CALL_S
        )
        words = "" if asked.returncode == 0 else asked.stderr
    except (OSError, subprocess.TimeoutExpired) as error:
        words = str(error)
        asked = None
    if asked is not None and asked.returncode == 0:
        return True
    log.warning(
        "Slurm does not run job %s again (%s): give the same 'stbench run' once more for what is left",
        job,
        " ".join(words.split()),
    )
    return False
