"""``run.json``: which trials count, and under which protocol they were planned."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from ..data.prepared import PreparedDataset
from ..data.splits import Fold
from ..errors import UserError
from ..system.environment import machine, versions
from ..system.files import write_json
from ..trials.spec import TrialSpec
from . import run_record
from .run_record import LAYOUT, AblationRecord, RunRecord, SectionRecord, TrialIdentity, TrialRecord


def record_plan(
    results: Path,
    data: PreparedDataset,
    specs: Sequence[TrialSpec],
    folds: Sequence[Fold],
    split: str,
    command: str,
    ablation: AblationRecord | None,
) -> None:
    """Enter a plan into ``run.json``; earlier trials stay, but for those whose question ``specs`` answer anew."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    section = SectionRecord.of(data, tuple(folds), split)
    planned = {spec.key: TrialRecord(identity=TrialIdentity.of(spec), label=spec.label) for spec in specs}
    record = read_run(results) if (results / "run.json").is_file() else _new_run(now)
    answered = {trial.identity for trial in planned.values()}
    kept = {key: trial for key, trial in record.trials.items() if trial.identity not in answered}
    gone = record.superseded | {key: trial for key, trial in record.trials.items() if key not in kept}
    trials = kept | planned
    changes = {
        "updated": now,
        "commands": tuple(dict.fromkeys([*record.commands, command])),
        "versions": versions(),
        "machine": machine(),
        "trials": trials,
        "superseded": {key: trial for key, trial in gone.items() if key not in trials},
        "sections": _with_section(record.sections, section),
        "ablation": _joined_ablation(results, record.ablation, ablation),
    }
    write_json(results / "run.json", record.model_copy(update=changes).model_dump(mode="json"))


def _new_run(now: str) -> RunRecord:
    return RunRecord(
        layout=LAYOUT,
        id=uuid.uuid4().hex,
        created=now,
        updated=now,
        commands=(),
        versions={},
        machine={},
        trials={},
        superseded={},
        sections=(),
        ablation=None,
    )


def _with_section(sections: Sequence[SectionRecord], new: SectionRecord) -> tuple[SectionRecord, ...]:
    """``sections`` with ``new`` in the place of the one of its protocol, else at the end."""
    by_protocol = {section.protocol: section for section in sections}
    return tuple((by_protocol | {new.protocol: new}).values())


def _joined_ablation(
    results: Path, earlier: AblationRecord | None, new: AblationRecord | None
) -> AblationRecord | None:
    """Switches of an earlier command stay beside those of the new one; both must be of the same base."""
    if earlier is None or new is None:
        return new if earlier is None else earlier
    if earlier.base != new.base:
        raise UserError(f"{results} holds an ablation study of another base - give another --out")
    return new.joined_with(earlier)


def read_run(results: Path) -> RunRecord:
    """``run.json`` of a results directory; a ``UserError`` where there is none, or it is of another layout."""
    path = results / "run.json"
    if not path.is_file():
        raise UserError(
            f"{results} is not a results directory (it has no run.json) - name one that 'stbench run' wrote"
        )
    return run_record.read(path)


def trial_specs(results: Path) -> dict[str, TrialSpec]:
    """The trials that count in a results directory, key to spec, in the order in which they were planned."""
    return {key: spec_at(results, key) for key in read_run(results).trials}


def spec_at(results: Path, key: str) -> TrialSpec:
    """What the planned trial ``key`` is."""
    return TrialSpec.read(results / "specs" / f"{key}.json")
