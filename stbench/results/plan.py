"""Planning: methods, folds and seeds become the specs of trials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import registry
from ..data.prepared import PreparedDataset
from ..data.splits import Fold
from ..errors import DamagedFileError, UserError
from ..method import Method, MethodConfig, Needs
from ..system.calls import Calls
from ..system.files import writing_to
from ..system.locks import locked
from ..training.precision import resolve_precision
from ..trials.declarations import declared
from ..trials.outcome import state_of
from ..trials.spec import EXTERNAL, DataSpec, TrialSpec, in_words
from .record import read_run, record_plan, spec_at
from .run_record import AblationRecord
from .summary import UNKNOWN_WEIGHTS


@dataclass(frozen=True)
class MethodChoice:
    """One row of the table to be: a method with its configuration."""

    reference: str  # what the registry finds it by: a registered name, or path.py:Class
    method: type[Method]
    preset: str
    changes: Mapping[str, Any]  # against the preset, as the table names them: what has a column of its own is left out
    config: MethodConfig
    trained_by: MethodChoice | None = None  # it predicts with that one's model: they differ in inference alone
    keep_model: bool = False  # of every trial, for others to reuse

    @property
    def variant(self) -> str:
        """``changes`` in words; empty for the preset itself."""
        return in_words(self.changes)

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


@dataclass(frozen=True)
class Experiment:
    """What is planned: every method on every fold of one split of a dataset, once with each seed."""

    data: PreparedDataset
    data_spec: DataSpec
    methods: Sequence[MethodChoice]
    split: str
    folds: Sequence[Fold]
    seeds: Sequence[int]
    ablation: AblationRecord | None = None  # the record of the study that the methods are the variants of

    @property
    def n_trials(self) -> int:
        return len(self.methods) * len(self.folds) * len(self.seeds)


@dataclass(frozen=True)
class Execution:
    """Where an experiment's trials are kept, and how they are run."""

    results: Path
    command: str  # the command line, for the record
    device: str = "auto"
    precision: str = "auto"  # as it was asked for: a control computes in float32 all the same
    save_models: bool = False


def plan(experiment: Experiment, execution: Execution) -> list[str]:
    """Write the specs of the experiment's trials into the results directory and return their keys.

    The directory may be new, or that of a run to be resumed: its earlier trials stay, and one with the same identity
    (say, of an older version of a method) is replaced in the table by the new one. Trials are in the order of the
    folds, so that those on the same data follow each other.
    """
    results, data, methods = execution.results, experiment.data, experiment.methods
    lent = [choice.trained_by for choice in methods if choice.trained_by is not None]
    distinct = {id(choice): choice for choice in (*methods, *lent)}
    described = {place: described_once(choice) for place, choice in distinct.items()}  # once, and not for every trial

    def spec_of(choice: MethodChoice, fold: Fold, seed: int) -> TrialSpec:
        return TrialSpec(
            **described[id(choice)],
            data=experiment.data_spec,
            split=experiment.split,
            fold=fold.name,
            train=fold.train,
            test=fold.test,
            patients={name: data.patients[name] for name in (*fold.train, *fold.test)},
            seed=seed,
            device=execution.device,
            precision=resolve_precision(execution.precision, choice.method),
            save_model=execution.save_models or choice.keep_model or choice in lent,
            trained_by="" if choice.trained_by is None else spec_of(choice.trained_by, fold, seed).key,
        )

    for choice in methods:
        _refuse_namesake(results, choice)
    # who trains comes before who reuses
    ordered = sorted(methods, key=lambda choice: choice.trained_by is not None)
    specs = [
        spec_of(choice, fold, seed) for seed in experiment.seeds for fold in experiment.folds for choice in ordered
    ]
    for spec in specs:
        trained = results / "trials" / spec.trained_by
        if not spec.trained_by or (trained / "model").is_dir():
            continue
        if state_of(results, spec.trained_by).state == "finished":
            raise UserError(
                f"{trained} kept no model, which {spec.variant} would reuse - delete it and run the same command "
                "again, or give another --out"
            )
    with writing_to(results):
        (results / "specs").mkdir(parents=True, exist_ok=True)
        (results / "trials").mkdir(exist_ok=True)
        for spec in specs:
            spec.write(results)
        with locked(results / ".run.lock"):
            record_plan(
                results, data, specs, experiment.folds, experiment.split, execution.command, experiment.ablation
            )
    return [spec.key for spec in specs]


def described_once(choice: MethodChoice) -> dict[str, Any]:
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
        "changes": dict(choice.changes),
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
    for key in read_run(results).trials:
        try:
            spec = spec_at(results, key)
        except DamagedFileError:  # planned again now, or told by whoever reads the trials
            continue
        if spec.name != choice.method.name or spec.method.startswith(EXTERNAL):
            continue
        origin = spec.origin or spec.method  # of an older version: as it was typed
        same_class = origin.rpartition(":")[2] == here.rpartition(":")[2]  # one file may hold several
        same_code = same_class and spec.method_source == registry.source_digest(choice.method)
        if origin in (here, choice.reference) or same_code:
            continue
        raise UserError(
            f"{results} has trials of '{spec.name}' from {origin}, and {here} calls itself '{spec.name}' too - rename "
            "one, or give another --out: results are told apart by the name"
        )


def record_finished(
    results: Path, data: PreparedDataset, specs: Sequence[TrialSpec], folds: Sequence[Fold], split: str, command: str
) -> None:
    """Enter trials whose ``trials/KEY`` is complete already into ``results``, all in one step, as :func:`plan` does."""
    with writing_to(results):
        for spec in specs:
            spec.write(results)
        with locked(results / ".run.lock"):
            record_plan(results, data, specs, folds, split, command, ablation=None)
