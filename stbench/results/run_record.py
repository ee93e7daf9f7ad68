"""What ``run.json`` of a results directory must say to be used: its shape, checked where it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import DamagedFileError, first_problem
from ..system.files import read_json

RUN_LOST = "restore it, or delete it and run every command of it again (trials that ended are reused)"


class Record(BaseModel):
    """A part of ``run.json``; it may say more than what is listed, which is kept as it is."""

    model_config = ConfigDict(extra="allow")


class TrialRecord(Record):
    identity: list[str]
    label: str


class FoldRecord(Record):
    name: str
    test: list[str]
    train: list[str] = []


class DatasetRecord(Record):
    slices_present: list[str] = []
    slices_expected: list[str] = []
    missing: dict[str, str] = {}


class SectionRecord(Record):
    dataset: DatasetRecord = DatasetRecord()
    target: dict[str, Any] = {}
    folds: list[FoldRecord] = []
    slides: dict[str, dict[str, Any]] = {}


class RunRecord(Record):
    """What ``run.json`` must say to be used."""

    id: str
    commands: list[str]
    trials: dict[str, TrialRecord]
    versions: dict[str, Any] = {}
    sections: dict[str, SectionRecord] = {}
    ablation: dict[str, Any] | None = None


def read(path: Path) -> dict[str, Any]:
    """The record in ``path``, as it stands there. Raises ``DamagedFileError``."""
    record = read_json(path, RUN_LOST)
    try:
        RunRecord.model_validate(record)
    except ValidationError as error:
        raise DamagedFileError(f"{path} is not a run's record ({first_problem(error)}) - {RUN_LOST}") from error
    return dict(record)
