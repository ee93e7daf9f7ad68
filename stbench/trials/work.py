"""The work of one attempt: train or reuse, predict, look for alarms, score."""

from __future__ import annotations

import numbers
import shutil
import time
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import registry
from ..data.panel import WithPanel, read_panel_of
from ..data.physical import with_patch_um
from ..data.prepare import prepare
from ..data.prepared import PreparedDataset
from ..data.splits import same_patient
from ..errors import DamagedFileError, MethodFailed, NotApplicable, PlaceError, UserError
from ..method import Method, Needs, Run, TestSlide
from ..models.folder import write_model
from ..scores import alarms
from ..system.calls import Calls
from ..system.environment import versions
from ..system.files import value_digest, writing_to
from ..system.memory import PeakMemory
from ..system.precision import Precision, require_capable, tf32_used
from ..training.compile_record import CompileRecord
from ..training.precision import resolve_precision, safe_precisions
from . import outcome
from .asking import predict_again, predict_all
from .attempt import Attempt, log, warnings_noted
from .declarations import declared
from .predictions import as_prediction, require_finite
from .scoring import score_predictions
from .spec import DataSpec, TestedSpec, TrialSpec, trial_seed
from .state import AlarmRecord
from .trained import model_facts
from .transferred import needs_of, on_genes, open_joined, open_model
from .whole_slide import too_large

UNSAFE = "computed in {precision}, which the method does not declare safe: insisted on, and not to be compared"


def work_on(attempt: Attempt) -> dict[str, Any]:
    """Do it, and return what the trial's :class:`TrialState` says of it, its ``state`` among them."""
    spec = attempt.spec
    data, method_class, device, precision = _opened(spec, attempt.results)
    if precision not in safe_precisions(method_class):
        attempt.notes.append(UNSAFE.format(precision=precision))
    run = Run(
        # the method and the fold enter the seed, so no two trials share a stream by accident
        seed=trial_seed(spec),
        device=device,
        precision=precision,
        checkpoint_directory=attempt.directory / "checkpoint",
        on_progress=attempt.on_progress,
        on_log=attempt.history.add,
        should_stop=attempt.should_stop,
        notes=attempt.notes,
    )
    calls = Calls(spec.name, run.note, lambda what: run.derive_seed("global", what), lambda: attempt.was_asked_to_stop)
    for text in registry.changes_at_import(method_class):
        run.note(text)
    config = calls("its Config", method_class.Config, **spec.config, **spec.execution)
    trained = open_model(spec, device) if spec.model else None
    needs, weights = declared(calls, method_class, config) if trained is None else (needs_of(trained), spec.weights)
    if (needs.oracle, needs.leak, weights) != (spec.oracle, spec.leak, spec.weights):
        raise MethodFailed(
            f"it declares oracle = {needs.oracle}, leak = {needs.leak!r} and the weights {weights!r} now, and "
            f"{spec.oracle}, {spec.leak!r} and {spec.weights!r} when it was planned - run the same command again"
        )

    panel = data.genes if trained is None else trained.facts.genes

    def read(value: Any, slide: TestSlide) -> np.ndarray:
        return as_prediction(value, slide, panel, spec.name)

    if trained is None:
        method = calls.guard(calls("its constructor", method_class, config), read)
    else:
        method = on_genes(calls.guard(trained.method, read), panel, data.genes)
    if needs.same_patient and not same_patient(spec.test, spec.train, spec.patients):
        raise NotApplicable("no training slice is of the test slice's patient")
    training = [data.slides[name] for name in spec.train]
    trains = not spec.trained_by and trained is None
    if trains and (reason := too_large(method_class, config, training, device)) is not None:
        raise MethodFailed(reason)
    for notice in () if trained is None else trained.notices:
        run.note(notice)
    with PeakMemory(device) as memory, warnings_noted(run.note):
        if spec.trained_by:
            method, fit_s = calls.guard(_trained_elsewhere(spec, method, attempt.results, run, calls), read), 0.0
        elif trained is not None:
            fit_s = 0.0
        else:
            started = time.perf_counter()
            method.fit([slide.for_training() for slide in training], replace(run))  # a copy: ours stays as it is
            fit_s = time.perf_counter() - started + attempt.history.seconds_of_earlier_attempts
        started = time.perf_counter()
        seen = {name: _seen(needs, name, data, spec) for name in spec.test}
        predicted = zip(spec.test, predict_all(method, seen.values()), strict=True)
        predictions = {name: require_finite(values, data.slides[name]) for name, values in predicted}
        predict_s = time.perf_counter() - started
        is_method = spec.kind == "method"  # controls are blind or flat on purpose
        draws = partial(run.numpy_generator, "alarms") if is_method else None
        again = predict_again(method, seen, data.name, spec.seed, draws)
        raised = [*alarms.after_training(method, attempt.history.rows)]
        for name, prediction in predictions.items():
            raised += alarms.on_another_scale(name, prediction, data.slides[name].target)
        if is_method:
            for name, prediction in predictions.items():
                target, part = data.slides[name].target, again.parts.get(name)
                raised += alarms.after_prediction(seen[name], prediction, target, part)
                moved = again.exchanged[name]
                if moved is not None:
                    raised += alarms.after_exchange(seen[name], prediction, moved)
    for alarm in raised:
        log.warning("alarm: %s", alarm.text)
    with writing_to(attempt.directory):
        scored = score_predictions(spec, data, training, predictions, attempt.directory, again.exchanged)
        for note in scored.notes:
            run.note(note)
        if spec.save_model:
            model = attempt.directory / "model"
            shutil.rmtree(model, ignore_errors=True)
            model.mkdir()
            facts = model_facts(spec, data, training, needs, _device_name(device), precision, scored.scores)
            write_model(model, facts, method)
    return {
        "state": "finished",
        "device": _device_name(device),
        "precision": precision,
        "tf32": list(tf32_used(precision, device)),
        "fit_s": round(fit_s, 3),
        "predict_s": round(predict_s, 3),
        "peak_mem_mb": _peak_mb(method, memory.peak_mb),
        "compiled": _compiled(method),
        "n_parameters": _n_parameters(method),
        "threads": _n_threads(),
        "alarms": [AlarmRecord(kind=alarm.kind, text=alarm.text) for alarm in raised],
        "execution": dict(getattr(method, "execution", {})),
        "versions": versions() | dict(getattr(method, "versions", {})),
        "trained_by": spec.trained_by,
    }


def _opened(spec: TrialSpec, results: Path) -> tuple[PreparedDataset, type[Method], str, Precision]:
    """Data, method, device and precision of a trial, as they were planned.

    Raises ``PlaceError`` where this place lacks one of them, or has another: then no trial is to blame, and all of them
    stay to be run, here once it is mended, or elsewhere.
    """
    from ..training.device import resolve_device

    try:
        data, method_class = open_fold(spec, results), _method_of(spec)
        if registry.source_digest(method_class) != spec.method_source:
            raise UserError(
                f"the code of {spec.method} changed since this trial was planned - run the same command again"
            )
        device, precision = resolve_device(spec.device), resolve_precision(spec.precision)
        require_capable(precision, device)
    except PlaceError:
        raise
    except UserError as error:
        raise PlaceError(str(error)) from error
    return data, method_class, device, precision


def _method_of(spec: TrialSpec) -> type[Method]:
    """By the name that was typed; a file whose path was relative is found from any folder."""
    try:
        return registry.method(spec.method)
    except UserError:
        if spec.origin in ("", spec.method):
            raise
        return registry.method(spec.origin)


def _seen(needs: Needs, name: str, data: PreparedDataset, spec: TrialSpec) -> TestSlide:
    """A test slide as a method may see it: without expression, unless it declares a leak, which marks its numbers."""
    slide = data.slides[name]
    if needs.leak:
        order = list(data.slides)
        return slide.for_leak(sum(order.index(other) < order.index(name) for other in spec.train))
    return slide.for_test(needs.oracle)


def _trained_elsewhere(spec: TrialSpec, method: Method, results: Path, run: Run, calls: Calls) -> Method:
    """The model that ``spec.trained_by`` trained, predicting with the config of ``method``.

    A method with an attribute ``reconfigure(config, run)`` takes the config by it, else as its attribute ``config``.
    Where that trial failed or was skipped, this one is too, with its reason.
    """
    state = outcome.state_of(results, spec.trained_by)
    if state.state == "skipped":
        raise NotApplicable(state.reason)
    if state.state != "finished":
        raise UserError(f"trial {spec.trained_by}, whose model it reuses, {state.state}: {state.reason}")
    loaded = calls("load", read_method, results / "trials" / spec.trained_by, run.device)
    trained = calls.guard(loaded)
    if hasattr(trained, "reconfigure"):
        trained.reconfigure(method.config, run)
    else:
        trained.config = method.config
    return loaded


def _n_threads() -> int:
    """That torch computes with: with other ones sums are taken in another order, and last digits differ."""
    import torch

    return torch.get_num_threads()


def _peak_mb(method: Method, ours: float) -> float | None:
    """Of this process and of those in which a method computes, if it says so; None where it does not see them."""
    theirs = getattr(method, "peak_mem_mb", 0.0)
    if theirs is None:
        return None
    return round(ours + theirs, 1)


def _compiled(method: Method) -> CompileRecord | None:
    """What it says of compiling its training, if it says anything; methods of torch do."""
    record = getattr(method, "compiled", None)
    return record if isinstance(record, CompileRecord) else None


def _n_parameters(method: Method) -> int | None:
    """What the method says of its size, if it says anything; a report counts with it."""
    number = getattr(method, "n_parameters", None)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < 0:
        raise MethodFailed(f"its n_parameters are {number!r}, not a number")
    return int(number)


def open_fold(spec: TrialSpec, results: Path) -> PreparedDataset:
    """The prepared data of a trial, on the genes of its fold."""
    data = open_data(spec.data, results)
    if not spec.genes:
        return data
    genes = read_panel_of(results, spec.data.panel).of(spec.split, spec.fold)
    if value_digest(genes) != spec.genes:
        raise UserError(f"the genes of fold {spec.fold} changed since this trial was planned - run the command again")
    return data.on_genes(genes)


def open_data(spec: DataSpec, results: Path | None = None) -> PreparedDataset:
    """The prepared data of trials; consecutive ones of one process on the same data share one opening.

    ``results``: the directory that has the panel, where it is not the dataset's own.
    """
    panel = (str(results), spec.panel) if spec.panel else None
    keys = tuple(spec.keys.items())
    return _open_data(spec.dataset, spec.root, spec.cache, spec.target, keys, spec.patch_um, panel, spec.tested)


@lru_cache(maxsize=2)
def _open_data(
    dataset: str,
    root: str | None,
    cache: str,
    target_name: str,
    keys: tuple[tuple[str, str], ...],
    patch_um: float | None,
    panel: tuple[str, str] | None,
    tested: TestedSpec | None,
) -> PreparedDataset:
    if tested is not None and panel is not None:
        shared = read_panel_of(Path(panel[0]), panel[1])
        return open_joined((dataset, root, patch_um), tested, shared, target_name, Path(cache), dict(keys))
    opened = with_patch_um(registry.dataset(dataset, None if root is None else Path(root)), patch_um)
    if panel is not None:
        opened = WithPanel(opened, read_panel_of(Path(panel[0]), panel[1]))
    return prepare(opened, target_name, Path(cache), slices=[name for name, _ in keys], keys=dict(keys))


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return device


def read_method(directory: Path, device: str = "cpu") -> Method:
    """The trained method of a finished trial that was run with ``--save-models``."""
    spec = TrialSpec.read(outcome.find(directory, "spec.json") or directory / "spec.json")
    model = directory / "model"
    if not model.is_dir():
        raise DamagedFileError(
            f"{directory} holds no trained model - delete it and run the command again with --save-models"
        )
    for path in sorted(model.rglob("*")):
        outcome.find(directory, path.relative_to(directory).as_posix())
    try:
        return registry.method(spec.method).load(model, device=device)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{model} cannot be loaded ({error!r})"
        raise DamagedFileError(f"{' '.join(reason.split())} - {outcome.way_out(directory)}") from error
