"""The files of a trial that ended: which there must be, what makes each valid, and the way out where one is not.

``state.json`` says how the trial ended and, under ``files``, which files it wrote, their sizes and digests. Sizes are
compared whenever the state is read, a digest whenever its file is; so a file that is missing, cut or changed never
counts as a result. Trials of a version that kept no such list are checked by what their tables must hold.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..errors import DamagedFileError, first_problem
from ..system.beats import Observer
from ..system.compressed import existing
from ..system.files import file_digest, read_object
from .attempts import at_work, attempts_of
from .state import EndedState, FileRecord, TrialState

if TYPE_CHECKING:
    import pandas as pd

UNLISTED = ("state.json", "log.txt")  # the list itself, and what may still be written when it is made
NO_NUMBER = re.compile(rb"\b(NaN|Infinity)\b")  # that JSON does not know
MAY_GO = ("model",)  # large, and no number depends on it: may be removed, as a whole, by whoever needs the room
TEXT = ("slice", "patient", "target", "of", "label", "spot", "gene")
COLUMNS = {  # that a table must have to be used at all; whether each slice must be in it
    "metrics.csv": (("slice", "n_spots", "n_genes", "pcc_acg", "pcc_heg", "mse", "mae"), True),
    "genes.parquet": (("slice", "gene", "r"), True),
    "targets.csv": (("slice", "target", "pcc_acg", "pcc_heg"), True),
    "domains.csv": (("slice", "of", "kmeans_seed", "ari", "nmi"), False),  # of labelled slices alone
    "domains.parquet": (("slice", "x", "y", "label", "cluster_prediction", "cluster_truth"), False),
    "history.csv": (("epoch",), False),
}


def list_files(trial: Path) -> dict[str, FileRecord]:
    """The record ``files`` of a trial that is about to end: every file below ``trial``, by relative path."""
    return {
        name: FileRecord(size=path.stat().st_size, digest=file_digest(path))
        for path in sorted(trial.rglob("*"))
        if path.is_file() and (name := path.relative_to(trial).as_posix()) not in UNLISTED
    }


def read_ended(trial: Path) -> EndedState | None:
    """The state of the trial that ended in ``trial``; ``None`` where none did: there is no ``state.json``.

    Raises ``DamagedFileError`` where the state says nothing, and where a file that the trial wrote is missing or has
    another size.
    """
    sound = _sound(trial)
    if sound is not None:
        return sound
    path = trial / "state.json"
    if not path.exists():
        return None
    try:
        state = EndedState.model_validate(read_object(path, way_out(trial)))
    except ValidationError as error:
        raise damaged(trial, "state.json", f"does not say how the trial ended ({first_problem(error)})") from error
    for name, record in (state.files or {}).items():
        folder = name.partition("/")[0]
        if folder in MAY_GO and not (trial / folder).exists():
            continue
        _require_size(trial, name, record)
    if state.state == "finished" and not (trial / "metrics.csv").is_file():
        raise damaged(trial, "metrics.csv", "is missing")
    return state


def _sound(trial: Path) -> EndedState | None:
    """The state of a trial that ended and whose files are as they should be; ``None`` where anything is unusual.

    It makes no path of every name, which costs more than to look at the files.
    """
    try:
        with open(os.path.join(trial, "state.json"), "rb") as file:
            content = file.read()
        if NO_NUMBER.search(content):
            return None
        state = EndedState.model_validate_json(content)
        files = state.files or {}
        for name, record in files.items():
            found = os.stat(os.path.join(trial, name))
            if found.st_size != record.size or not stat.S_ISREG(found.st_mode):
                return None
    except (OSError, ValidationError):
        return None
    return state if "metrics.csv" in files or state.state != "finished" else None


def state_of(results: Path, key: str, observer: Observer | None = None) -> TrialState:
    """The state of a trial: of its finished directory, else of the attempt at work, else ``pending``.

    ``observer`` judges who is at work; one that is asked for the first time believes those that it cannot judge.
    Raises ``DamagedFileError`` where an ended trial's files are not what it wrote.
    """
    ended = read_ended(results / "trials" / key)
    if ended is not None:
        return ended
    attempts = attempts_of(results, key)
    if not attempts:
        return TrialState(state="pending")
    worked_on = at_work(results, key, observer or Observer())
    if worked_on is not None:
        return worked_on[1]
    last = attempts[-1][1]
    if last.state in ("running", "finished", "skipped"):  # the last two: before it became the trial
        reason = "the process that worked on it was ended from outside"
        return last.model_copy(update={"state": "interrupted", "reason": reason})
    if last.state == "failed":  # and is to be run again
        return TrialState(state="pending", attempts=last.attempts)
    return last


def find(trial: Path, name: str) -> Path | None:
    """The path of a file of an ended trial, whose content is what the trial wrote; ``None`` where it wrote none."""
    path = trial / name
    record = _listed(trial).get(name)
    if record is None:
        return path if path.is_file() else None
    _require_size(trial, name, record)
    if file_digest(path) != record.digest:
        raise damaged(trial, name, "is not what the trial wrote: its content has changed")
    return path


def read_table(trial: Path, name: str, slices: Collection[str]) -> pd.DataFrame | None:
    """A table (.csv or .parquet) of an ended trial; ``None`` where it wrote none.

    ``slices`` are the trial's test slices: a table must have rows for all of them, or may have rows for none but them.
    Columns of :data:`TEXT` hold text as it stands (a slice may be called NA or 007), all others numbers, NaN where
    nothing stands. Raises ``DamagedFileError``.
    """
    path = find(trial, name)
    if path is None:
        return None
    import pandas as pd

    from ..system.tables import as_numbers

    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path)
        else:
            if not path.read_bytes().endswith(b"\n"):
                raise ValueError("it ends within a line")
            table = pd.read_csv(path, dtype=str, keep_default_na=False)
            table = table.apply(lambda column: column if column.name in TEXT else as_numbers(column))
    except (OSError, ValueError) as error:  # pyarrow's and pandas' errors are subclasses of these
        raise damaged(trial, name, f"is not a readable table ({error})") from error
    columns, of_all = COLUMNS[name]
    absent = [column for column in columns if column not in table.columns]
    if absent:
        raise damaged(trial, name, f"has no column {', '.join(absent)}")
    if "slice" in columns:
        table = table.astype({"slice": str})
        found = set(table["slice"])
        lacking = [slide for slide in slices if slide not in found] if of_all else []
        if lacking:
            raise damaged(trial, name, f"has no row for slice {', '.join(lacking)}")
        strange = sorted(found.difference(slices))
        if strange:
            raise damaged(trial, name, f"has rows for {', '.join(strange)}, which the trial did not test")
    return table


def damaged(trial: Path, name: str, what: str) -> DamagedFileError:
    """The error for one file of a trial, with the way out."""
    return DamagedFileError(f"{trial / name} {' '.join(what.split())} - {way_out(trial)}")


def way_out(trial: Path) -> str:
    return f"delete {trial}, and the command that made it makes it again"


def _listed(trial: Path) -> Mapping[str, FileRecord]:
    state = read_ended(trial)
    return {} if state is None else EndedState.model_validate(state).files or {}


def _require_size(trial: Path, name: str, record: FileRecord) -> None:
    path = trial / name
    if not path.is_file():
        raise damaged(trial, name, "is missing")
    size = path.stat().st_size
    if size != record.size:
        if size:
            existing(path)  # a pointer of Git LFS, where results are kept in a repository, has a way out of its own
        raise damaged(trial, name, f"has {size:,} bytes, the trial wrote {record.size:,}: it was cut or changed")
