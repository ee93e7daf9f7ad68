"""An array of workers as files: ``RESULTS/batch/TOKEN/``.

``worker.sbatch``, which a person or the engine sends; ``lists/N.txt``, the trials of worker N; ``logs/N.log``, what it
printed; ``left/N.json``, how it left; ``submission.json``, what the engine knows of all of them. The last has one
writer, the owner of the results directory, and the others one each.
"""

from __future__ import annotations

import re
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from ....errors import DamagedFileError, first_problem
from ....system.files import read_object, write_json, write_text

FOLDER = "batch"


class Tried(BaseModel):
    """How far a trial was when it was sent."""

    model_config = ConfigDict(frozen=True)

    attempts: int = 0
    epochs: int = 0
    strikes: int = 0  # workers in a row under which it got no further


class Closed(BaseModel):
    """How a worker of the array left, as the engine judged it."""

    model_config = ConfigDict(frozen=True)

    how: str  # see stbench.trials.engines.slurm.sight


class Record(BaseModel):
    """``submission.json``"""

    model_config = ConfigDict(frozen=True)

    token: str
    name: str  # of the jobs, by which they are found again
    n_workers: int
    created: float  # seconds since the epoch
    throttle: int | None = None  # workers at a time
    seconds: int | None = None  # time limit of a job
    requeues: bool = False  # workers ask Slurm to be run again by themselves
    clusters: str = ""
    sent: bool = False  # the engine gave it to sbatch; a person may have, too
    job: str | None = None  # Slurm's number of the array; None: nobody knows it
    tried: dict[str, Tried] = {}  # trials that had been begun before
    closed: dict[int, Closed] = {}


@dataclass(frozen=True)
class Submission:
    """An array whose files are written."""

    folder: Path
    record: Record

    @property
    def script(self) -> Path:
        return self.folder / "worker.sbatch"

    @property
    def options(self) -> list[str]:
        """Names of the options that the script gives."""
        return re.findall(r"^#SBATCH --([a-z0-9-]+)", self.script.read_text(encoding="utf-8"), re.MULTILINE)

    def keys(self, worker: int) -> list[str]:
        """The trials of a worker, in its order."""
        return (self.folder / "lists" / f"{worker}.txt").read_text(encoding="utf-8").split()

    def log(self, worker: int) -> Path:
        return self.folder / "logs" / f"{worker}.log"

    def left(self, worker: int) -> Path:
        return self.folder / "left" / f"{worker}.json"

    @property
    def n_open(self) -> int:
        """Workers of which the engine does not know yet how they left."""
        return self.record.n_workers - len(self.record.closed)

    def changed(self, **changes: object) -> Submission:
        """The same with another record, which is written."""
        record = self.record.model_copy(update=changes)
        write_json(self.folder / "submission.json", record.model_dump(mode="json", exclude_defaults=True))
        return Submission(self.folder, record)

    def remove(self) -> None:
        """Take its files away: it was not sent."""
        shutil.rmtree(self.folder)


def job_name(run_id: str, token: str, prefix: str = "stbench") -> str:
    """``stbench-RUN-TOKEN``"""
    return f"{prefix}-{run_id[:8]}-{token}"


def write_submission(
    results: Path,
    run_id: str,
    prefix: str,
    lists: Sequence[Sequence[str]],
    facts: Mapping[str, object],
) -> Submission:
    """Write the lists and the record of a new array; its script is still to be written.

    Parameters
    ----------
    results : Path
        The results directory.
    run_id : str
        Of ``run.json``.
    prefix : str
        What the name of the jobs begins with.
    lists : sequence of sequence of str
        Keys of trials, for each worker.
    facts : mapping
        Further fields of :class:`Record`.
    """
    token = secrets.token_hex(4)
    folder = results / FOLDER / token
    for name in ("lists", "logs", "left"):
        (folder / name).mkdir(parents=True)
    for number, keys in enumerate(lists):
        write_text(folder / "lists" / f"{number}.txt", "\n".join(keys) + "\n")
    name = job_name(run_id, token, prefix)
    record = Record(token=token, name=name, n_workers=len(lists), created=time.time())
    return Submission(folder, record).changed(**facts)


def submissions(results: Path) -> Iterator[Submission]:
    """All that were written in a results directory, in the order of their names. Raises ``DamagedFileError``."""
    folder = results / FOLDER
    for path in sorted(folder.glob("*/submission.json")) if folder.is_dir() else []:
        try:
            yield Submission(path.parent, Record.model_validate(read_object(path)))
        except ValidationError as error:
            raise DamagedFileError(
                f"{path} is no record of jobs ({first_problem(error)}) - delete its folder, if its jobs have ended"
            ) from error
