"""A trial: one method, one dataset, one fold, one seed. The unit of work, of failure, of resume and of caching.

A trial is planned as ``RESULTS/specs/<key>.json``, works in ``RESULTS/running/<key>/`` (where checkpoints let it go on
after a crash) and ends as ``RESULTS/trials/<key>/``, which appears complete or not at all. Nothing but RESULTS and the
key is needed to run it, so any engine can: this process, another, another machine.
"""

from __future__ import annotations

import json
import logging
import numbers
import os
import shutil
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from pydantic import ConfigDict, TypeAdapter, ValidationError

from . import __version__, alarms, registry, trial_files
from .calls import Calls, declared
from .domains import domains
from .environment import versions
from .errors import (
    DamagedFileError,
    Interrupted,
    MethodFailed,
    NotApplicable,
    PlaceError,
    UserError,
    first_problem,
    said,
)
from .exchange import NOT_MEASURED, predict_exchanged, scores_of_exchange
from .files import OF_THE_PLACE, flush, read_object, refused_errno, value_digest, write_json, writing_to
from .locks import Timeout, is_locked, locked
from .memory import PeakMemory
from .method import Method, Needs, Run, TestSlide
from .metrics import gene_table, score_slide
from .out_of_memory import out_of_memory
from .precision import require_capable, resolve_precision, safe_precisions, tf32_allowed, tf32_flags, tf32_used
from .predictions import as_prediction, require_finite
from .prepare import PreparedDataset, PreparedSlide, prepare
from .rescoring import rescore, training_means
from .sharpness import sharpness
from .splits import same_patient
from .targets import target
from .trial_files import FINAL_STATES

log = logging.getLogger("stbench")

EXTERNAL = "predictions:"  # in front of the name of a method whose predictions were made elsewhere
UNSAFE = "computed in {precision}, which the method does not declare safe: insisted on, and not to be compared"
WAIT_S = 1.0  # between two looks at the trial whose model is waited for


@dataclass(frozen=True)
class DataSpec:
    """Where a trial's data are and which content they must have."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    dataset: str  # what the registry finds it by: a registered name, or the absolute path of a manifest
    name: str
    root: str | None  # the folder that the dataset was found under
    cache: str
    target: str
    keys: Mapping[str, str]  # slice to the key of its prepared content, in fold order


@dataclass(frozen=True)
class TrialSpec:
    """Everything that determines a trial's outcome, and the labels that it is reported under."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    method: str  # what the registry finds it by: a registered name, or path.py:Class
    name: str
    method_source: str  # digest of the method's code
    title: str
    kind: str  # method or control
    oracle: bool  # it sees what no method may
    preset: str
    variant: str  # what was changed against the preset, in words; empty for the preset itself
    config: Mapping[str, Any]
    weights: str  # label of the pretrained weights, with a digest where they come from a file
    data: DataSpec
    split: str
    fold: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    patients: Mapping[str, str]  # of every slice of the fold
    seed: int
    device: str = "auto"
    precision: str = "fp32"  # resolved; empty where predictions were made elsewhere
    save_model: bool = False
    leak: str = ""  # what it does with the test slide's own expression (Needs.leak); empty: nothing
    trained_by: str = ""  # key of the trial whose trained model it predicts with; empty: it trains its own
    origin: str = ""  # which method of that name it is, wherever it was called from: see registry.origin

    @property
    def key(self) -> str:
        """Digest of what determines the outcome. Where data and results lie, and on which device, is not part of it."""
        reuse = {"trained_by": self.trained_by} if self.trained_by else {}
        return value_digest(
            reuse
            | {
                "stbench": __version__,
                "method": [self.method, self.method_source],
                "preset": self.preset,
                "config": dict(self.config),
                "weights": self.weights,
                "target": target(self.data.target).formula,
                "train": [[name, self.data.keys[name]] for name in self.train],
                "test": [[name, self.data.keys[name]] for name in self.test],
                "split": self.split,  # it and the fold's name enter the seed
                "fold": self.fold,
                "seed": self.seed,
                "precision": [self.precision, *tf32_allowed(self.precision)],
            }
        )[:16]

    @property
    def identity(self) -> tuple[str, ...]:
        """What the trial is called by people: two trials with the same identity answer the same question."""
        return (
            self.data.name,
            self.data.target,
            self.split,
            self.fold,
            self.name,
            self.preset,
            self.variant,
            self.weights,
            str(self.seed),
            self.precision,
        )

    @property
    def label(self) -> str:
        """``stnet B4 seed 0``, ``stnet epochs=10 bf16 B4 seed 0``"""
        precision = "" if self.precision == "fp32" else self.precision
        return f"{' '.join(filter(None, (self.name, self.variant, precision)))} {self.fold} seed {self.seed}"

    def write(self, results: Path) -> None:
        write_json(results / "specs" / f"{self.key}.json", asdict(self))

    @classmethod
    def read(cls, path: Path) -> TrialSpec:
        """The spec in a file of :meth:`write`, its types checked. Raises ``DamagedFileError``."""
        again = f"delete {path} and run the command again that planned it"
        fields = read_object(path, again)
        try:
            return _spec_adapter().validate_python(fields)
        except ValidationError as error:
            raise DamagedFileError(
                f"{path} was written by another version of stbench, or changed ({first_problem(error)}) - {again}, "
                "or give another --out"
            ) from error


@lru_cache(maxsize=1)
def _spec_adapter() -> TypeAdapter[TrialSpec]:
    return TypeAdapter(TrialSpec)


def state_of(results: Path, key: str) -> dict[str, Any]:
    """The recorded state of a trial: of its finished directory, else of the attempt at work, else ``pending``.

    Raises ``DamagedFileError`` where an ended trial's files are not what it wrote.
    """
    ended = trial_files.read_ended(results / "trials" / key)
    if ended is not None:
        return ended
    attempt = results / "running" / key / "state.json"
    if not attempt.is_file():
        return {"state": "pending", "reason": ""}
    try:
        state = read_object(attempt)
    except (
        DamagedFileError
    ) as error:  # nothing is lost: the attempt goes on from its checkpoint, which is checked apart
        state = {"state": "running", "reason": f"its state cannot be read: {error}"}
    if is_locked(results / "running" / f".{key}.lock"):
        return state | {"state": "running", "reason": ""}
    said = str(state.get("reason") or "the process that worked on it ended without a word")
    return state | {"state": "interrupted", "reason": said}


def run_trial(
    results: Path,
    key: str,
    on_progress: Callable[[int, int, str], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Run one planned trial and return its state; a trial that is done already is not run again.

    Whatever goes wrong inside the method is recorded as the state ``failed`` with its reason; only an interruption
    (state ``interrupted``, to be continued) and errors of the place itself (no such spec, full disk) come out.
    """
    results = Path(results).absolute()  # a method may change the working folder
    spec_path = results / "specs" / f"{key}.json"
    if not spec_path.is_file():
        raise UserError(f"no trial {key} is planned in {results} - see {results / 'run.json'} for the keys")
    spec = TrialSpec.read(spec_path)
    done = results / "trials" / key
    ended = trial_files.read_ended(done)
    if ended is not None:
        return ended
    if spec.method.startswith(EXTERNAL):
        raise UserError(
            f"trial {key} was scored from predictions made elsewhere and cannot be run - score the files again with "
            "'stbench score'"
        )
    if spec.trained_by:
        _await_training(results, spec, on_progress, should_stop)
    work = results / "running" / key
    with writing_to(results):
        work.mkdir(parents=True, exist_ok=True)
        try:
            with locked(results / "running" / f".{key}.lock", timeout=0):
                ended = trial_files.read_ended(done)
                if ended is not None:  # another process ended it while we waited for nothing
                    return ended
                return _attempt(spec, work, done, on_progress, should_stop)
        except Timeout:
            return {"state": "running", "reason": "another process is working on it"}


def _await_training(
    results: Path,
    spec: TrialSpec,
    on_progress: Callable[[int, int, str], None] | None,
    should_stop: Callable[[], bool],
) -> None:
    """See to it that the trial whose model ``spec`` reuses has ended: run it, or wait for the process that does."""
    while run_trial(results, spec.trained_by, on_progress, should_stop)["state"] not in FINAL_STATES:
        if should_stop():
            raise Interrupted(f"stopped while waiting for trial {spec.trained_by}")
        time.sleep(WAIT_S)


def _attempt(
    spec: TrialSpec,
    work: Path,
    done: Path,
    on_progress: Callable[[int, int, str], None] | None,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    shutil.copyfile(done.parent.parent / "specs" / f"{spec.key}.json", work / "spec.json")
    handler = TrialLog(work / "log.txt", encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    history = History(work / "history.jsonl")
    notes: list[str] = []
    state: dict[str, Any] = {
        "state": "running",
        "reason": "",
        "notes": notes,
        "started": time.time(),
        "pid": os.getpid(),
    }
    write_json(work / "state.json", state)
    log.info("trial %s: %s", spec.key, spec.label)
    try:
        with tf32_flags(spec.precision):
            state |= _work(spec, work, history, notes, on_progress, should_stop)
    except PlaceError:
        raise
    except Interrupted as pause:
        state |= {"state": "interrupted", "reason": str(pause)}
        log.info("interrupted: %s", pause)
        write_json(work / "state.json", state)
        raise
    except NotApplicable as refusal:
        state |= {"state": "skipped", "reason": str(refusal)}
        log.info("skipped: %s", refusal)
    except Exception as error:  # a method may fail in any way; it is recorded, and the others go on
        if refused_errno(error, work) in OF_THE_PLACE:
            raise  # as it comes: whoever called makes it the place's error, and the trial stays open
        reason = said(error)
        memory = out_of_memory(error)
        if memory is not None:
            smaller = f"lower --set {spec.name}.batch_size, " if "batch_size" in spec.config else ""
            reason = f"{memory} - {smaller}free some or use another device, then run again with --retry-failed"
        state |= {"state": "failed", "reason": reason}
        log.error("failed: %s\n%s", reason, _traceback())
    finally:
        log.removeHandler(handler)
        handler.close()
    state["notes"] = list(dict.fromkeys(" ".join(str(note).split()) for note in notes))
    history.write_csv(work / "history.csv")
    shutil.rmtree(work / "checkpoint", ignore_errors=True)
    (work / "history.jsonl").unlink(missing_ok=True)
    flush(work)  # before the name that says that all is there
    state |= {"ended": time.time(), "files": trial_files.list_files(work)}
    write_json(work / "state.json", state)
    done.parent.mkdir(parents=True, exist_ok=True)
    if done.exists():  # what is left of a trial whose state.json was deleted
        shutil.rmtree(done)
    os.replace(work, done)
    return state


def _traceback() -> str:
    """Of the exception at work; an exception of a stranger's may refuse to be printed."""
    try:
        return traceback.format_exc()
    except Exception as error:  # noqa: BLE001 - whatever its __str__ raises
        return f"(the traceback cannot be printed: {type(error).__name__})"


class WarningsNoted(logging.Handler):
    """What is logged as a warning while a method works is a note of its trial: a log is read by nobody."""

    def __init__(self, note: Callable[[str], object]) -> None:
        super().__init__(logging.WARNING)
        self.note = note

    def emit(self, record: logging.LogRecord) -> None:
        self.note(record.getMessage())


@contextmanager
def _warnings_noted(note: Callable[[str], object]) -> Iterator[None]:
    handler = WarningsNoted(note)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


class Asked:
    """``should_stop`` that remembers that it said so once."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self.should_stop = should_stop
        self.said_so = False

    def __call__(self) -> bool:
        self.said_so = self.should_stop() or self.said_so
        return self.said_so


def _work(
    spec: TrialSpec,
    work: Path,
    history: History,
    notes: list[str],
    on_progress: Callable[[int, int, str], None] | None,
    should_stop: Callable[[], bool],
) -> dict[str, Any]:
    from .training import resolve_device

    data = open_data(spec.data)
    method_class = registry.method(spec.method)
    if registry.source_digest(method_class) != spec.method_source:
        raise UserError(f"the code of {spec.method} changed since this trial was planned - run the same command again")
    device = resolve_device(spec.device)
    precision = resolve_precision(spec.precision)
    require_capable(precision, device)
    if precision not in safe_precisions(method_class):
        notes.append(UNSAFE.format(precision=precision))
    asked = Asked(should_stop)
    run = Run(
        # the method and the fold enter the seed, so no two trials share a stream by accident
        seed=_seed(spec),
        device=device,
        precision=precision,
        checkpoint_directory=work / "checkpoint",
        on_progress=on_progress,
        on_log=history.add,
        should_stop=asked,
        notes=notes,
    )
    calls = Calls(spec.name, run.note, lambda what: run.derive_seed("global", what), lambda: asked.said_so)
    for text in registry.changes_at_import(method_class):
        run.note(text)
    config = calls("its Config", method_class.Config, **spec.config)
    needs, weights = declared(calls, method_class, config)
    if (needs.oracle, needs.leak, weights) != (spec.oracle, spec.leak, spec.weights):
        raise MethodFailed(
            f"it declares oracle = {needs.oracle}, leak = {needs.leak!r} and the weights {weights!r} now, and "
            f"{spec.oracle}, {spec.leak!r} and {spec.weights!r} when it was planned - run the same command again"
        )

    def read(value: Any, slide: TestSlide) -> np.ndarray:
        return as_prediction(value, slide, data.genes, spec.name)

    method = calls.guard(calls("its constructor", method_class, config), read)
    if needs.same_patient and not same_patient(spec.test, spec.train, spec.patients):
        raise NotApplicable("no training slice is of the test slice's patient")
    training = [data.slides[name] for name in spec.train]
    with PeakMemory(device) as memory, _warnings_noted(run.note):
        if spec.trained_by:
            method, fit_s = calls.guard(_trained_elsewhere(spec, method, work.parent.parent, run, calls), read), 0.0
        else:
            started = time.perf_counter()
            method.fit([slide.for_training() for slide in training], replace(run))  # a copy: ours stays as it is
            fit_s = time.perf_counter() - started + history.seconds_of_earlier_attempts
        started = time.perf_counter()
        seen = {name: _seen(needs, name, data, spec) for name in spec.test}
        predictions = {name: require_finite(method.predict(seen[name]), data.slides[name]) for name in spec.test}
        predict_s = time.perf_counter() - started
        exchanged = {name: predict_exchanged(method, slide, data.name, spec.seed) for name, slide in seen.items()}
        rung = [*alarms.after_training(method, history.rows)]
        for name, prediction in predictions.items():
            rung += alarms.on_another_scale(name, prediction, data.slides[name].target)
        if spec.kind == "method":  # controls are blind or flat on purpose
            for name, prediction in predictions.items():
                rng = run.numpy_generator("alarms", name)
                rung += alarms.after_prediction(method, seen[name], prediction, data.slides[name].target, rng)
                moved = exchanged[name]
                if moved is not None:
                    rung += alarms.after_exchange(seen[name], prediction, moved)
    for alarm in rung:
        log.warning("alarm: %s", alarm.text)
    with writing_to(work):
        if spec.save_model:
            model = work / "model"
            shutil.rmtree(model, ignore_errors=True)
            model.mkdir()
            method.save(model)
        for note in score_predictions(spec, data, training, predictions, work, exchanged):
            run.note(note)
    return {
        "state": "finished",
        "device": _device_name(device),
        "precision": precision,
        "tf32": list(tf32_used(precision, device)),
        "fit_s": round(fit_s, 3),
        "predict_s": round(predict_s, 3),
        "peak_mem_mb": round(memory.peak_mb, 1),
        "n_parameters": _n_parameters(method),
        "alarms": [asdict(alarm) for alarm in rung],
        "versions": versions(),
        "trained_by": spec.trained_by,
    }


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
    state = state_of(results, spec.trained_by)
    if state["state"] == "skipped":
        raise NotApplicable(state["reason"])
    if state["state"] != "finished":
        raise UserError(f"trial {spec.trained_by}, whose model it reuses, {state['state']}: {state['reason']}")
    loaded = calls("load", read_method, results / "trials" / spec.trained_by, run.device)
    trained = calls.guard(loaded)
    if hasattr(trained, "reconfigure"):
        trained.reconfigure(method.config, run)
    else:
        trained.config = method.config
    return loaded


def _n_parameters(method: Method) -> int | None:
    """What the method says of its size, if it says anything; a report counts with it."""
    number = getattr(method, "n_parameters", None)
    if number is None:
        return None
    if isinstance(number, bool) or not isinstance(number, numbers.Integral) or number < 0:
        raise MethodFailed(f"its n_parameters are {number!r}, not a number")
    return int(number)


def _seed(spec: TrialSpec) -> int:
    return Run(seed=spec.seed).derive_seed(spec.name, spec.data.name, spec.data.target, spec.split, spec.fold)


def mean_target(training: Sequence[PreparedSlide]) -> np.ndarray:
    """(n_genes,) float64: each gene's mean target over all spots of the training slices."""
    return np.concatenate([slide.target for slide in training]).mean(axis=0, dtype=np.float64)


def score_predictions(
    spec: TrialSpec,
    data: PreparedDataset,
    training: Sequence[PreparedSlide],
    predictions: Mapping[str, np.ndarray],
    work: Path,
    exchanged: Mapping[str, np.ndarray | None] | None = None,
) -> list[str]:
    """Write predictions, metrics and per-gene tables; returns what a reader of the numbers must know.

    ``exchanged``: the predictions with exchanged patches (:func:`stbench.exchange.predict_exchanged`); None for those
    made elsewhere, whose method cannot be asked.
    """
    train_mean = mean_target(training)
    means_of_targets = training_means(training)
    rows: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    on_targets: list[pd.DataFrame] = []
    regions: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    notes: list[str] = []
    (work / "predictions").mkdir(exist_ok=True)
    for name, prediction in predictions.items():
        slide = data.slides[name]
        score = score_slide(slide.target, prediction, data.genes, train_mean=train_mean)
        of_image = NOT_MEASURED
        if exchanged is not None:
            of_image, why = scores_of_exchange(name, slide.target, prediction, exchanged[name], data.genes)
            notes += why
        rows.append(
            {
                "slice": name,
                "patient": slide.patient,
                "n_spots": slide.n_spots,
                "n_genes": len(data.genes),
                "pcc_acg": score.pcc_acg,
                "pcc_heg": score.pcc_heg,
                "mse": score.mse,
                "mae": score.mae,
                "strict_pcc_acg": score.strict_pcc_acg,
                "strict_pcc_heg": score.strict_pcc_heg,
                **of_image,
                "n_constant_truth": score.n_constant_truth,
                "n_constant_prediction": score.n_constant_prediction,
            }
        )
        tables.append(gene_table(name, score).join(sharpness(slide.target, prediction, slide.pixel_xy)))
        on_targets.append(rescore(slide, prediction, means_of_targets))
        notes += score.notes
        if slide.labels is not None:
            found = domains(slide, prediction)
            if found is None:
                notes.append(
                    f"fewer than two regions are labelled on slice {name}, so that domains are not scored there"
                )
            else:
                regions.append(found)
        write_prediction(work / "predictions" / f"{name}.h5ad", spec, data, slide, prediction)
    pd.DataFrame(rows).to_csv(work / "metrics.csv", index=False)
    pd.concat(tables, ignore_index=True).to_parquet(work / "genes.parquet", index=False)
    pd.concat(on_targets, ignore_index=True).to_csv(work / "targets.csv", index=False)
    if regions:
        agreement, spots = zip(*regions, strict=True)
        pd.concat(agreement, ignore_index=True).to_csv(work / "domains.csv", index=False)
        pd.concat(spots, ignore_index=True).to_parquet(work / "domains.parquet", index=False)
    return notes


def write_prediction(
    path: Path, spec: TrialSpec, data: PreparedDataset, slide: PreparedSlide, prediction: np.ndarray
) -> None:
    """One predicted slice as AnnData: ``X`` the prediction, ``layers["truth"]`` the target, positions of the slide."""
    import anndata
    import h5py
    from anndata.io import write_elem

    obs = pd.DataFrame(
        {"array_row": slide.array_xy[:, 1], "array_col": slide.array_xy[:, 0], "total_counts": slide.total_counts},
        index=pd.Index(slide.spot_ids, name="spot"),
    )
    if slide.labels is not None:
        obs["label"] = pd.Categorical([label or "" for label in slide.labels])
    table = anndata.AnnData(X=prediction, obs=obs, var=pd.DataFrame(index=pd.Index(data.genes, name="gene")))
    table.layers["truth"] = slide.target
    table.obsm["spatial"] = slide.pixel_xy
    table.uns["stbench"] = {
        "key": spec.key,
        "dataset": data.name,
        "slice": slide.id,
        "patient": slide.patient,
        "method": spec.name,
        "preset": spec.preset,
        "variant": spec.variant,
        "seed": spec.seed,
        "split": spec.split,
        "fold": spec.fold,
        "target": data.target.name,
        "target_formula": data.target.formula,
    }
    # made in memory: on a disk that is full HDF5 goes on complaining long after its error was caught
    with h5py.File(path.name, "w", driver="core", backing_store=False) as file:
        write_elem(file, "/", table, dataset_kwargs={"compression": "gzip"})
        if "raw" in file:  # a null, which anndata before 0.12 does not read
            del file["raw"]
        file.flush()
        content = file.id.get_file_image()
    path.write_bytes(content)


def open_data(spec: DataSpec) -> PreparedDataset:
    """The prepared data of a trial; consecutive trials of one process on the same data share one opening."""
    return _open_data(spec.dataset, spec.root, spec.cache, spec.target, tuple(spec.keys.items()))


@lru_cache(maxsize=2)
def _open_data(
    dataset: str, root: str | None, cache: str, target_name: str, keys: tuple[tuple[str, str], ...]
) -> PreparedDataset:
    opened = registry.dataset(dataset, None if root is None else Path(root))
    return prepare(opened, target_name, Path(cache), slices=[name for name, _ in keys], keys=dict(keys))


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return device


class TrialLog(logging.FileHandler):
    """A log whose errors are raised: a disk that takes no line of it takes nothing else either."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        raise  # the error that logging is handling


class History:
    """The training history of one trial: a row an epoch, on disk as it comes, so that a crash loses nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[int, dict[str, float]] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except json.JSONDecodeError:
                    continue  # the line that a crash cut short; its epoch runs again
                self.rows[int(row.pop("epoch"))] = row
        self._earlier = dict(self.rows)

    def add(self, epoch: int, values: Mapping[str, float]) -> None:
        if self._earlier.get(epoch) == dict(values):
            return  # a training that goes on tells again what its checkpoint knew
        self._earlier.pop(epoch, None)  # an epoch after the last checkpoint ran again
        self.rows[epoch] = {**self.rows.get(epoch, {}), **values}
        with open(self.path, "a", encoding="utf-8") as handle:
            handle.write(json.dumps({"epoch": epoch, **values}) + "\n")

    @property
    def seconds_of_earlier_attempts(self) -> float:
        """Training time of the epochs that an earlier attempt completed and this one did not repeat."""
        return float(sum(row.get("seconds", 0.0) for row in self._earlier.values()))

    def write_csv(self, path: Path) -> None:
        table = pd.DataFrame.from_dict(self.rows, orient="index").sort_index()
        table.index.name = "epoch"
        table.to_csv(path)


def read_method(directory: Path, device: str = "cpu") -> Method:
    """The trained method of a finished trial that was run with ``--save-models``."""
    spec = TrialSpec.read(trial_files.find(directory, "spec.json") or directory / "spec.json")
    model = directory / "model"
    if not model.is_dir():
        raise DamagedFileError(
            f"{directory} holds no trained model - delete it and run the command again with --save-models"
        )
    for path in sorted(model.rglob("*")):
        trial_files.find(directory, path.relative_to(directory).as_posix())
    try:
        return registry.method(spec.method).load(model, device=device)
    except Exception as error:
        reason = str(error) if isinstance(error, UserError) else f"{model} cannot be loaded ({error!r})"
        raise DamagedFileError(f"{' '.join(reason.split())} - {trial_files.way_out(directory)}") from error
