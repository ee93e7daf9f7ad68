"""``state.json``: what became of a trial, so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..system.files import write_json
from ..system.processes import Process
from ..training.compile_record import CompileRecord

FINAL_STATES = ("finished", "failed", "skipped")


class FileRecord(BaseModel):
    """What a file was when the trial ended."""

    size: int  # bytes
    digest: str  # of its content, see :func:`stbench.system.files.file_digest`


class AlarmRecord(BaseModel):
    """Something that speaks against a number: see :mod:`stbench.scores.alarms`."""

    kind: str
    text: str


class TrialState(BaseModel):
    """What became of a trial, so far. What is known only of one that finished is None before."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    state: Literal["pending", "running", "interrupted", "finished", "failed", "skipped"]
    reason: str = ""  # why it was interrupted, failed or was skipped
    cause: Literal["killed", "timeout", "oom"] | None = None  # of a failure that came from outside the method
    notes: list[str] | None = None  # what a reader of its numbers must know
    started: float | None = None  # seconds since the epoch, of the last attempt
    ended: float | None = None
    attempts: int | None = None  # how often it was begun, by whichever command or engine
    token: str | None = None  # of the last attempt, as its folder was called
    process: Process | None = None  # that made it
    cpu: str | None = None  # the processor's model: numbers differ in their last digits between generations
    threads: int | None = None  # that it computed with
    device: str | None = None
    precision: str | None = None
    tf32: list[str] | None = None  # the operations that were computed in it
    execution: dict[str, Any] | None = None  # how it was computed, where that changes no number
    fit_s: float | None = None
    predict_s: float | None = None
    peak_mem_mb: float | None = None
    compiled: CompileRecord | None = None  # what came of compiling its training; None: that was not asked for
    n_parameters: int | None = None
    alarms: list[AlarmRecord] | None = None
    versions: dict[str, Any] | None = None
    trained_by: str = ""  # key of the trial whose model it predicted with
    files: dict[str, FileRecord] | None = None  # what it wrote

    def write(self, directory: Path) -> None:
        """Write ``directory/state.json``, in one step."""
        write_json(directory / "state.json", self.model_dump(mode="json", exclude_unset=True))


class EndedState(TrialState):
    """What ``trials/KEY/state.json`` must say; it may say more."""

    state: Literal["finished", "failed", "skipped"]
    reason: str
    started: float
    ended: float
