"""The results directory: which trials a run plans, and the one tidy table of what became of them.

The directory is the truth: ``run.json`` names the trials that count, ``specs/`` says what each is, ``trials/`` holds
what each gave. ``summary.csv`` and everything in MLflow is derived from it and can be made again.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from . import exchange, registry, run_record
from .calls import Calls, declared
from .environment import machine, versions
from .errors import DamagedFileError, PlaceError, UserError
from .files import write_json, write_text, writing_to
from .locks import locked
from .method import Method, MethodConfig, Needs
from .precision import resolve_precision
from .prepare import PADDING_RULE, PreparedDataset
from .splits import Fold, same_patient
from .trial import EXTERNAL, DataSpec, TrialSpec, state_of
from .trial_files import read_table

UNKNOWN_WEIGHTS = "unknown"  # the label of what cannot say where its weights come from

log = logging.getLogger("stbench")

METRICS = ("pcc_acg", "pcc_heg", "mse", "mae", "strict_pcc_acg", "strict_pcc_heg")

SUMMARY_COLUMNS = (
    *("key", "dataset", "split", "fold", "target", "method", "title", "kind", "oracle", "preset", "variant", "weights"),
    *("seed", "slice", "patient", "n_spots", "n_genes"),
    *METRICS,
    *exchange.COLUMNS,  # empty where the method could not be asked: predictions made elsewhere, older versions
    *("n_constant_truth", "n_constant_prediction", "same_patient_training_slices"),
    *("fit_s", "predict_s", "peak_mem_mb", "n_parameters", "device", "precision", "tf32", "state", "reason"),
    "leak",  # what the method does with the test slide's own expression; empty: nothing, as it should be
    "trained_by",  # key of the trial whose model was reused; empty where the trial trained its own
    *("alarms", "notes"),  # what speaks against the number, and what its reader must know, each text once; "; " between
)


@dataclass(frozen=True)
class MethodChoice:
    """One row of the table to be: a method with its configuration."""

    reference: str  # what the registry finds it by: a registered name, or path.py:Class
    method: type[Method]
    preset: str
    variant: str
    config: MethodConfig
    trained_by: MethodChoice | None = None  # it predicts with that one's model: they differ in inference alone
    keep_model: bool = False  # of every trial, for others to reuse

    @cached_property
    def declared(self) -> tuple[Needs, str]:
        """What it needs, and its weights label; of one that cannot be constructed nothing is known.

        Its trials will fail with what the constructor raises, and the other methods' run. Bad input (``UserError``)
        comes out, before anything runs.
        """
        try:
            return declared(Calls(self.method.name), self.method, self.config)
        except UserError:
            raise
        except Exception:  # noqa: BLE001 - each of its trials constructs it again, and fails with this very error
            return Needs(), UNKNOWN_WEIGHTS


def plan(
    results: Path,
    data: PreparedDataset,
    data_spec: DataSpec,
    methods: Sequence[MethodChoice],
    folds: Sequence[Fold],
    split: str,
    seeds: Sequence[int],
    command: str,
    device: str = "auto",
    precision: str = "auto",
    save_models: bool = False,
    ablation: Mapping[str, Any] | None = None,
) -> list[str]:
    """Write the specs of a run into ``results`` (new, or one that is to go on) and return its trials' keys.

    Fold by fold, so that trials on the same data follow each other. Earlier trials of ``results`` stay; one with the
    same identity (say, of an older version of a method) is replaced in the table by the new one. ``ablation`` is the
    record of the study that the methods are the variants of.
    """
    lent = [choice.trained_by for choice in methods if choice.trained_by is not None]
    distinct = {id(choice): choice for choice in (*methods, *lent)}
    described = {place: _described(choice) for place, choice in distinct.items()}  # once, and not for every trial

    def spec_of(choice: MethodChoice, fold: Fold, seed: int) -> TrialSpec:
        return TrialSpec(
            **described[id(choice)],
            data=data_spec,
            split=split,
            fold=fold.name,
            train=fold.train,
            test=fold.test,
            patients={name: data.patients[name] for name in (*fold.train, *fold.test)},
            seed=seed,
            device=device,
            precision=resolve_precision(precision, choice.method),
            save_model=save_models or choice.keep_model or choice in lent,
            trained_by="" if choice.trained_by is None else spec_of(choice.trained_by, fold, seed).key,
        )

    for choice in methods:
        _refuse_namesake(results, choice)
    # who trains comes before who reuses
    ordered = sorted(methods, key=lambda choice: choice.trained_by is not None)
    specs = [spec_of(choice, fold, seed) for seed in seeds for fold in folds for choice in ordered]
    for spec in specs:
        trained = results / "trials" / spec.trained_by
        if not spec.trained_by or (trained / "model").is_dir():
            continue
        if state_of(results, spec.trained_by)["state"] == "finished":
            raise UserError(
                f"{trained} kept no model, which {spec.variant} would reuse - delete it and run the same command "
                "again, or give another --out"
            )
    with writing_to(results):
        (results / "specs").mkdir(parents=True, exist_ok=True)
        (results / "trials").mkdir(exist_ok=True)
        (results / "running").mkdir(exist_ok=True)
        for spec in specs:
            spec.write(results)
        with locked(results / ".run.lock"):
            _record(results, data, specs, folds, split, command, ablation)
    return [spec.key for spec in specs]


def _described(choice: MethodChoice) -> dict[str, Any]:
    """The fields of a :class:`TrialSpec` that follow from the method and its configuration."""
    needs, weights = choice.declared
    return {
        "method": choice.reference,
        "origin": registry.origin(choice.reference),
        "name": choice.method.name,
        "method_source": registry.source_digest(choice.method),
        "title": choice.method.title,
        "kind": choice.method.kind,
        "oracle": needs.oracle,
        "leak": needs.leak,
        "preset": choice.preset,
        "variant": choice.variant,
        "config": choice.config.model_dump(mode="json"),
        "weights": weights,
    }


def _refuse_namesake(results: Path, choice: MethodChoice) -> None:
    """``UserError`` where ``results`` has trials of another method of the same name: one would replace the other.

    The same method is what the registry finds at the same place, whatever became of its code since, or the same code
    elsewhere.
    """
    if not (results / "run.json").is_file():
        return
    here = registry.origin(choice.reference)
    for key in read_run(results)["trials"]:
        try:
            spec = _spec(results, key)
        except DamagedFileError:  # planned again now, or told by whoever reads the trials
            continue
        if spec.name != choice.method.name or spec.method.startswith(EXTERNAL):
            continue
        there = spec.origin or spec.method  # of an older version: as it was typed
        same_class = there.rpartition(":")[2] == here.rpartition(":")[2]  # one file may hold several
        same_code = same_class and spec.method_source == registry.source_digest(choice.method)
        if there in (here, choice.reference) or same_code:
            continue
        raise UserError(
            f"{results} has trials of '{spec.name}' from {there}, and {here} calls itself '{spec.name}' too - rename "
            "one, or give another --out: results are told apart by the name"
        )


def record_finished(
    results: Path, data: PreparedDataset, specs: Sequence[TrialSpec], folds: Sequence[Fold], split: str, command: str
) -> None:
    """Enter trials whose ``trials/KEY`` is complete already into ``results``, all in one step, as :func:`plan` does."""
    with writing_to(results):
        for spec in specs:
            spec.write(results)
        (results / "running").mkdir(exist_ok=True)
        with locked(results / ".run.lock"):
            _record(results, data, specs, folds, split, command, ablation=None)


def _record(
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


def superseded(results: Path) -> dict[str, str]:
    """The trials of a results directory that ended and no longer count, key to label.

    A later command asked the same question with other code, data or precision. They stay in ``trials/``.
    """
    if not (results / "run.json").is_file():
        return {}
    found = read_run(results).get("superseded", {})
    return {key: trial["label"] for key, trial in found.items() if (results / "trials" / key).is_dir()}


def trial_specs(results: Path) -> dict[str, TrialSpec]:
    """The trials that count in a results directory, key to spec, in the order in which they were planned."""
    return {key: _spec(results, key) for key in read_run(results)["trials"]}


def _spec(results: Path, key: str) -> TrialSpec:
    path = results / "specs" / f"{key}.json"
    return _read_spec(path, _written(path))


@cache
def _read_spec(path: Path, written: int) -> TrialSpec:
    return TrialSpec.read(path)


def _written(path: Path) -> int:
    """When a file was written last; 0 where it is not there, which whoever reads it will say."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def collect(results: Path) -> pd.DataFrame:
    """One row a trial and test slice, whatever the trial's state (columns: ``SUMMARY_COLUMNS``).

    A trial without metrics (failed, skipped, pending, interrupted) has its rows too, with the reason and no metrics.
    """
    rows: list[dict[str, Any]] = []
    for key, spec in trial_specs(results).items():
        trial = results / "trials" / key
        ended = (_written(trial / "state.json"), _written(trial / "metrics.csv"))
        rows += _ended_rows(results, key, ended) if ended[0] else _rows(results, key, spec)
    return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))


@cache
def _ended_rows(results: Path, key: str, written: tuple[int, int]) -> tuple[dict[str, Any], ...]:
    """The rows of a trial that ended: read once, as nothing changes them but another attempt, written later."""
    return tuple(_rows(results, key, _spec(results, key)))


def _rows(results: Path, key: str, spec: TrialSpec) -> list[dict[str, Any]]:
    state = state_of(results, key)
    common = {
        "key": key,
        "dataset": spec.data.name,
        "split": spec.split,
        "fold": spec.fold,
        "target": spec.data.target,
        "method": spec.name,
        "title": spec.title,
        "kind": spec.kind,
        "oracle": spec.oracle,
        "preset": spec.preset,
        "variant": spec.variant,
        "weights": spec.weights,
        "seed": spec.seed,
        **{name: state.get(name) for name in ("fit_s", "predict_s", "peak_mem_mb", "n_parameters")},
        "device": state.get("device"),
        "precision": spec.precision,
        "tf32": " ".join(state.get("tf32", [])),  # what was computed in it, as far as the device has it
        **{name: state.get(name) for name in ("state", "reason")},
        "leak": spec.leak,
        "trained_by": spec.trained_by,
        "alarms": _joined(alarm["kind"] for alarm in state.get("alarms") or []),
        "notes": _joined(state.get("notes") or []),
    }
    scores: dict[str, dict[Hashable, Any]] = {}
    if state["state"] == "finished":
        table = read_table(results / "trials" / key, "metrics.csv", spec.test)
        assert table is not None  # a finished trial without it has no state
        scores = {str(row["slice"]): row for row in table.to_dict("records")}
    rows = []
    for name in spec.test:
        replicates = same_patient([name], spec.train, spec.patients)
        rows.append(
            common
            | {"slice": name, "patient": spec.patients[name], "same_patient_training_slices": len(replicates)}
            | {str(column): value for column, value in scores.get(name, {}).items()}
        )
    return rows


def _joined(texts: Iterable[object]) -> str:
    return "; ".join(dict.fromkeys(map(str, texts)))


def write_summary(results: Path) -> pd.DataFrame:
    """Derive ``summary.csv`` from the trials and return it."""
    summary = collect(results)
    write_text(results / "summary.csv", summary.to_csv(index=False))
    return summary


def summary_text(results: Path) -> str:
    """``summary.csv`` as the trials give it now; the file is brought up to date where the place can be written.

    What only reads results (a report of a colleague's, of an archive) needs no right to write there.
    """
    text = collect(results).to_csv(index=False)
    path = results / "summary.csv"
    if not path.is_file() or path.read_bytes() != text.encode():
        try:
            write_text(path, text)
        except PlaceError as error:
            log.warning("note: %s; what is read are the trials themselves", str(error).partition(" - ")[0])
    return text
