"""``run.json``: which trials count, and under which protocol they were planned."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import DamagedFileError, UserError
from ..system.environment import machine, versions
from ..system.files import write_text
from ..system.many_files import laid_out
from ..trials.spec import TrialSpec
from . import run_record
from .run_record import LAYOUT, AblationRecord, RunRecord, SectionRecord, TrialIdentity, TrialRecord

DEEP = 20  # levels of run.json that are laid out, beside those of its trials: all of them


def record_plan(
    results: Path,
    section: SectionRecord,
    planned: Mapping[str, TrialRecord],
    command: str,
    ablation: AblationRecord | None = None,
) -> None:
    """Enter a plan into ``run.json``; earlier trials stay, but for those whose question ``planned`` answer anew."""
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    record = read_run(results) if (results / "run.json").is_file() else _new_run(now)
    answered = {trial.identity for trial in planned.values()}
    kept = {key: trial for key, trial in record.trials.items() if trial.identity not in answered}
    gone = record.superseded | {key: trial for key, trial in record.trials.items() if key not in kept}
    trials = kept | dict(planned)
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
    write_text(results / "run.json", _text(record.model_copy(update=changes)))


def _text(record: RunRecord) -> str:
    """JSON with a trial on a line, as there may be very many, and everything else with a value on a line."""
    content = record.model_dump(mode="json")
    fields = (
        f"{json.dumps(name)}: {laid_out(value, 1 if name in ('trials', 'superseded') else DEEP).rstrip()}"
        for name, value in content.items()
    )
    return "{\n" + ",\n".join(fields) + "\n}\n"


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
    joined = new.joined_with(by_protocol.get(new.protocol, new))
    return tuple((by_protocol | {new.protocol: joined}).values())


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


def examples(results: Path, apart_from: Collection[str]) -> Iterator[TrialSpec]:
    """Of the trials that count and differ in nothing but the fields ``apart_from`` of their identity, one each.

    What follows from a method and its configuration is the same for all of them, and they may be very many.
    """
    seen: set[TrialIdentity] = set()
    for key, trial in read_run(results).trials.items():
        kind = trial.identity.model_copy(update=dict.fromkeys(apart_from, ""))
        if kind in seen:
            continue
        with suppress(DamagedFileError):  # another stands for it; who reads all trials tells
            yield spec_at(results, key)
            seen.add(kind)


def spec_at(results: Path, key: str) -> TrialSpec:
    """What the planned trial ``key`` is."""
    return TrialSpec.read(results / "specs" / f"{key}.json")
