"""``run.json``: which trials count, and under which protocol they were planned."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from ..data.prepared import PADDING_RULE, PreparedDataset
from ..data.splits import Fold
from ..errors import UserError
from ..system.environment import machine, versions
from ..system.files import write_json
from ..trials.spec import TrialSpec
from . import run_record


def record_plan(
    results: Path,
    data: PreparedDataset,
    specs: Sequence[TrialSpec],
    folds: Sequence[Fold],
    split: str,
    command: str,
    ablation: Mapping[str, Any] | None,
) -> None:
    path = results / "run.json"
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    record: dict[str, Any] = {"id": uuid.uuid4().hex, "created": now, "commands": [], "trials": {}}
    if path.is_file():
        record = read_run(results)
    if ablation is not None:
        record["ablation"] = _joined_ablation(results, record.get("ablation"), ablation)
    new = {spec.identity for spec in specs}
    new |= {identity[:-1] for identity in new}  # as a record has it that was written before precision was part of it
    trials = {key: trial for key, trial in record["trials"].items() if tuple(trial["identity"]) not in new}
    superseded = record.get("superseded", {}) | {
        key: trial for key, trial in record["trials"].items() if key not in trials
    }
    trials |= {spec.key: {"identity": list(spec.identity), "label": spec.label} for spec in specs}
    record["superseded"] = {key: trial for key, trial in superseded.items() if key not in trials}
    if command not in record["commands"]:
        record["commands"].append(command)
    section = f"{data.name}|{split}|{data.target.name}"
    record.setdefault("sections", {})[section] = {
        "dataset": {
            "name": data.name,
            "title": data.title,
            "slices_present": list(data.slides),
            "slices_expected": list(data.expected),
            "missing": {gone.id: gone.reason for gone in data.missing},
        },
        "target": {"name": data.target.name, "formula": data.target.formula},
        "split": split,
        "folds": [asdict(fold) | {"statement": fold.statement()} for fold in folds],
        "n_genes": len(data.genes),
        "patch_px": data.patch_px,
        "padding": PADDING_RULE,
        "slides": {name: slide.facts() for name, slide in data.slides.items()},
        "notices": list(data.notices),
    }
    record |= {"updated": now, "trials": trials, "versions": versions(), "machine": machine()}
    write_json(path, record)


def _joined_ablation(results: Path, earlier: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """Switches of an earlier command stay beside those of the new one; both must be of the same base."""
    if earlier is None:
        return dict(new)
    if earlier["base"] != new["base"]:
        raise UserError(f"{results} holds an ablation study of another base - give another --out")
    named = {switch["name"]: switch for switch in (*earlier["switches"], *new["switches"])}
    return {**new, "switches": list(named.values())}


def read_run(results: Path) -> dict[str, Any]:
    """``run.json`` of a results directory; a ``UserError`` where there is none, or it is not a run's record."""
    path = results / "run.json"
    if not path.is_file():
        raise UserError(
            f"{results} is not a results directory (it has no run.json) - name one that 'stbench run' wrote"
        )
    return run_record.read(path)


def trial_specs(results: Path) -> dict[str, TrialSpec]:
    """The trials that count in a results directory, key to spec, in the order in which they were planned."""
    return {key: spec_at(results, key) for key in read_run(results)["trials"]}


def spec_at(results: Path, key: str) -> TrialSpec:
    path = results / "specs" / f"{key}.json"
    return _read_spec(path, written_at(path))


@cache
def _read_spec(path: Path, written: int) -> TrialSpec:
    return TrialSpec.read(path)


def written_at(path: Path) -> int:
    """When a file was written last; 0 where it is not there, which whoever reads it will say."""
    return path.stat().st_mtime_ns if path.is_file() else 0
