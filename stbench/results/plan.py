"""Planning: methods, folds and seeds become the specs of trials."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from .. import registry
from ..data.panel import Panel
from ..data.prepared import PreparedDataset
from ..data.splits import Fold
from ..errors import UserError
from ..method import Method, MethodConfig, Needs
from ..switches import execution_fields
from ..system.calls import Calls
from ..system.files import value_digest, writing_to
from ..system.locks import locked
from ..system.many_files import ManyFiles
from ..training.foundation.table import pathology_encoder
from ..training.precision import resolve_precision
from ..trials.declarations import declared
from ..trials.outcome import state_of
from ..trials.spec import DataSpec, TrialSpec, in_words
from ..trials.survey import ended_keys
from .namesakes import refuse_namesakes
from .record import record_plan
from .run_record import AblationRecord, SectionRecord, TrialIdentity, TrialRecord
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
    panel: Panel | None = None  # the genes that stand for the dataset's own
    models: Sequence[TrialSpec] = ()  # trials of models that were trained elsewhere, on some of the folds

    def genes_of(self, fold: Fold) -> str:
        """Digest of the fold's genes, where folds have panels of their own."""
        if self.panel is None or not self.panel.folds:
            return ""
        return value_digest(self.panel.of(self.split, fold.name))

    @property
    def n_trials(self) -> int:
        return len(self.methods) * len(self.folds) * len(self.seeds) + len(self.models)


@dataclass(frozen=True)
class Execution:
    """Where an experiment's trials are kept, and how they are run."""

    results: Path
    command: str  # the command line, for the record
    device: str = "auto"
    precision: str = "auto"  # as it was asked for: a control computes in float32 all the same
    save_models: bool = False


def specs_of(experiment: Experiment, execution: Execution) -> Iterator[TrialSpec]:
    """The trials of an experiment: by seed, then by fold, so that those on the same data follow each other.

    Who trains comes before who reuses its model. However many they are, they are made one after the other.
    """
    data, methods = experiment.data, experiment.methods
    lent = [choice.trained_by for choice in methods if choice.trained_by is not None]
    genes = {fold.name: experiment.genes_of(fold) for fold in experiment.folds}
    described = {id(choice): described_once(choice) for choice in (*methods, *lent)}  # once, and not for every trial

    def spec_of(choice: MethodChoice, fold: Fold, patients: Mapping[str, str], seed: int) -> TrialSpec:
        trained_by = "" if choice.trained_by is None else spec_of(choice.trained_by, fold, patients, seed).key
        return TrialSpec(
            **described[id(choice)],
            data=experiment.data_spec,
            split=experiment.split,
            fold=fold.name,
            train=fold.train,
            test=fold.test,
            patients=patients,
            seed=seed,
            device=execution.device,
            precision=resolve_precision(execution.precision, choice.method),
            save_model=execution.save_models or choice.keep_model or choice in lent,
            trained_by=trained_by,
            genes=genes[fold.name],
        )

    ordered = sorted(methods, key=lambda choice: choice.trained_by is not None)
    for seed in experiment.seeds:
        for fold in experiment.folds:
            patients = {name: data.patients[name] for name in (*fold.train, *fold.test)}
            for choice in ordered:
                yield spec_of(choice, fold, patients, seed)
    yield from experiment.models


def plan(
    experiment: Experiment, execution: Execution, see: Callable[[TrialSpec], object] = lambda spec: None
) -> list[str]:
    """Write the specs of the experiment's trials into the results directory and return their keys.

    The directory may be new, or that of a run to be resumed: its earlier trials stay, and one with the same identity
    (say, of an older version of a method) is replaced in the table by the new one. Trials are in the order of
    :func:`specs_of`; ``see`` is shown each.
    """
    results = execution.results
    named = [(choice.reference, choice.method) for choice in experiment.methods]
    named += [(spec.method, registry.method(spec.method)) for spec in experiment.models]
    refuse_namesakes(results, named)
    _require_models(experiment, execution)
    with writing_to(results):
        (results / "trials").mkdir(parents=True, exist_ok=True)
        if experiment.panel is not None:
            experiment.panel.write(results)
        planned = _write_specs(results, specs_of(experiment, execution), see)
        with locked(results / ".run.lock"):
            section = SectionRecord.of(experiment.data, tuple(experiment.folds), experiment.split)
            record_plan(results, section, planned, execution.command, experiment.ablation)
    return list(planned)


def _write_specs(
    results: Path, specs: Iterable[TrialSpec], see: Callable[[TrialSpec], object] = lambda spec: None
) -> dict[str, TrialRecord]:
    """Write what trials are; returns what ``run.json`` says of each, by its key."""
    planned: dict[str, TrialRecord] = {}
    with ManyFiles(results / "specs") as files:
        for spec in specs:
            name, text = f"{spec.key}.json", spec.as_json()
            earlier = files.read(name)
            if earlier is not None and earlier != text and not spec.save_model and _keeps_its_model(earlier):
                text = replace(spec, save_model=True).as_json()
            if earlier != text:
                files.write(name, text)
            planned[spec.key] = TrialRecord(identity=TrialIdentity.of(spec), label=spec.label)
            see(spec)
    return planned


def _keeps_its_model(text: str) -> bool:
    """Whether an earlier command, which may have planned others to reuse it, wants the model of a trial kept."""
    try:
        fields = json.loads(text)
    except ValueError:  # cut, by a command that died: it is written anew
        return False
    return isinstance(fields, dict) and fields.get("save_model") is True


def _require_models(experiment: Experiment, execution: Execution) -> None:
    """``UserError`` where a trial would reuse the model of one that ended and kept none."""
    results = execution.results
    reusing = [choice for choice in experiment.methods if choice.trained_by is not None]
    ended = ended_keys(results)
    if not reusing or not ended:
        return
    for spec in specs_of(replace(experiment, methods=reusing), execution):
        trained = results / "trials" / spec.trained_by
        if spec.trained_by not in ended or (trained / "model").is_dir():
            continue
        if state_of(results, spec.trained_by).state == "finished":
            raise UserError(
                f"{trained} kept no model, which {spec.variant} would reuse - delete it and run the same command "
                "again, or give another --out"
            )


def described_once(choice: MethodChoice) -> dict[str, Any]:
    """The fields of a :class:`TrialSpec` that follow from the method and its configuration."""
    needs, weights = choice.declared
    row = pathology_encoder(str(getattr(choice.config, "encoder", "")))
    config = choice.config.model_dump(mode="json")
    execution = {name: config.pop(name) for name in execution_fields(choice.method) if name in config}
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
        "config": config,
        "execution": {
            name: value for name, value in execution.items() if value != type(choice.config).model_fields[name].default
        },
        "weights": weights,
        "encoder": "" if row is None else row.digest,
    }


def record_finished(results: Path, section: SectionRecord, specs: Sequence[TrialSpec], command: str) -> None:
    """Enter trials whose ``trials/KEY`` is complete already into ``results``, all in one step, as :func:`plan` does."""
    with writing_to(results):
        planned = _write_specs(results, specs)
        with locked(results / ".run.lock"):
            record_plan(results, section, planned, command)
