"""The battery of checks that every method must pass, the way scikit-learn's estimators pass theirs.

Run by ``stbench methods check NAME`` and by the test suite over every registered method, on slides of a few spots that
are made here. A check that does not pass says what to fix in the method.
"""

from __future__ import annotations

import hashlib
import pickle
import random
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .calls import Calls
from .errors import Interrupted, MethodFailed, NotApplicable, UserError, said
from .method import Method, MethodConfig, Needs, OracleSlide, Run, TestSlide, TrainingSlide, configure
from .registry import changes_at_import

N_GENES = 6
# Settings that are made small where a method has them and no config is given
SMALL: Mapping[str, Any] = {"epochs": 2, "batch_size": 8, "weights": "random"}
EXPRESSION = ("target", "counts", "genes", "total_counts")
PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib")
UNTYPED = object()  # a value that no typed setting accepts


@dataclass(frozen=True)
class CheckResult:
    name: str
    passed: bool
    message: str  # what to fix; empty where it passed, or why the check does not apply


def run_checks(method: type[Method], config: MethodConfig | None = None) -> list[CheckResult]:
    """Every check on ``method``, in the order of ``CHECKS``.

    Without a ``config`` the method's preset "quick" is taken, with few epochs, small batches and random weights.
    The process, its global random state included, is left as it was found.
    """
    try:
        subject = Subject(method, config or small_config(method))
    except Exception as error:  # noqa: BLE001 - a stranger's method may fail in any way
        return [CheckResult("declares_itself", False, f"no config can be made: {_reason(error)}")]
    return [_run_check(check, subject) for check in CHECKS]


def small_config(method: type[Method]) -> MethodConfig:
    """The config that a method is checked with: its preset "quick", cut down by ``SMALL``."""
    changes = {name: value for name, value in SMALL.items() if name in method.Config.model_fields}
    return configure(method, "quick" if "quick" in method.presets else "published", changes=changes)


def _run_check(check: Callable[[Subject], str | None], subject: Subject) -> CheckResult:
    try:
        with tempfile.TemporaryDirectory() as place:
            subject.place = Path(place)
            note = Calls(str(subject.method.name))(check.__name__, check, subject)
    except CheckFailed as failure:
        return CheckResult(check.__name__, False, str(failure))
    except Exception as error:  # noqa: BLE001 - a stranger's method may fail in any way
        return CheckResult(check.__name__, False, _reason(error))
    return CheckResult(check.__name__, True, note or "")


class CheckFailed(Exception):  # noqa: N818 - not an error: the outcome of a check
    """A method does not do what is asked; the message says what to fix."""


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def _reason(error: Exception) -> str:
    """An exception on one line, with the place outside this file where it arose."""
    raised = error.__cause__ if isinstance(error, MethodFailed) and error.__cause__ else error
    ours = (__file__, *(sys.modules[f"stbench.{name}"].__file__ for name in ("calls", "isolation")))
    frames = [frame for frame in traceback.extract_tb(raised.__traceback__) if frame.filename not in ours]
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{said(error)}{where}"


# Slides -------------------------------------------------------------------------------------------------------------


def _training_slide(name: str, patient: str, n_spots: int, window: int) -> TrainingSlide:
    """A slide whose first gene follows the redness of the patch; the same name gives the same slide."""
    rng = np.random.default_rng(list(name.encode()))
    redness = rng.uniform(0, 1, n_spots)
    patches = rng.integers(60, 120, (n_spots, window, window, 3))
    patches[..., 0] += (redness * 120).astype(int)[:, None, None]
    rates = rng.uniform(0.5, 3.0, (1, N_GENES)) * np.ones((n_spots, 1))
    rates[:, 0] = 0.5 + 8 * redness
    counts = rng.poisson(rates).astype(np.int32)
    columns = int(np.ceil(np.sqrt(n_spots)))
    array_xy = np.stack([np.arange(n_spots) % columns, np.arange(n_spots) // columns], axis=1).astype(np.int64) + 1
    panel_total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return TrainingSlide(
        id=name,
        patient=patient,
        patches=patches.astype(np.uint8),
        array_xy=array_xy,
        pixel_xy=array_xy * 100.0 + 0.25,
        um_per_px=0.7,
        genes=tuple(f"GENE{i}" for i in range(N_GENES)),
        target=np.log10(1 + 1e4 * counts / panel_total).astype(np.float32),
        counts=counts,
        total_counts=(counts.sum(axis=1) * 3 + 1).astype(np.int64),
    )


def _without_expression(slide: TrainingSlide, oracle: bool) -> TestSlide:
    """What the harness gives a method to predict."""
    visible: dict[str, Any] = {item.name: getattr(slide, item.name) for item in fields(TestSlide)}
    return OracleSlide(**visible, total_counts=slide.total_counts) if oracle else TestSlide(**visible)


def _take(slide: TestSlide, spots: Sequence[int]) -> TestSlide:
    """The slide with only these spots."""
    chosen: dict[str, Any] = {
        item.name: value[list(spots)] if isinstance(value := getattr(slide, item.name), np.ndarray) else value
        for item in fields(slide)
    }
    return type(slide)(**chosen)


def _remember(slide: WatchedSlide | WatchedOracleSlide, name: str) -> Any:
    """``__getattr__`` of a watched slide: called only where there is no such attribute."""
    if not name.startswith("__") and name != "asked":
        slide.asked.append(name)
    raise AttributeError(f"a test slide has no {name}")


@dataclass(frozen=True)
class WatchedSlide(TestSlide):
    """A test slide that remembers which attributes were asked for in vain."""

    asked: list[str] = field(default_factory=list)
    __getattr__ = _remember


@dataclass(frozen=True)
class WatchedOracleSlide(OracleSlide):
    """The same for an oracle, which is told the total counts."""

    asked: list[str] = field(default_factory=list)
    __getattr__ = _remember


# The method under the checks ----------------------------------------------------------------------------------------


@dataclass
class Subject:
    """A method with a config, what it is fitted on, and the result of fitting it once."""

    method: type[Method]
    config: MethodConfig
    place: Path = Path()  # an empty folder, for one check

    @property
    def window(self) -> int:
        """Side of the dataset's patches: what the method asks for."""
        return int(getattr(self.config, "patch_px", 32))

    def new(self) -> Method:
        return self.method(self.config)

    @cached_property
    def needs(self) -> Needs:
        return self.new().needs

    def training(self) -> list[TrainingSlide]:
        """Three slides of two patients, made anew."""
        return [
            _training_slide("A1", "A", 8, self.window),
            _training_slide("A2", "A", 5, self.window),
            _training_slide("B1", "B", 6, self.window),
        ]

    def test(self, n_spots: int = 6, name: str = "A3") -> TestSlide:
        """A slide to predict, of patient A, made anew."""
        return _without_expression(_training_slide(name, "A", n_spots, self.window), self.needs.oracle)

    def fit(self, slides: Sequence[TrainingSlide] | None = None, run: Run | None = None) -> Method:
        method = self.new()
        try:
            method.fit(self.training() if slides is None else slides, run or Run(seed=1))
        except NotApplicable as reason:
            raise CheckFailed(
                f"fit raises NotApplicable ({reason}) though there are training slides of the test slide's patient"
                " - raise it only where the fold lacks what the method needs"
            ) from reason
        return method

    @cached_property
    def fitted(self) -> Method:
        return self.fit()

    @cached_property
    def prediction(self) -> np.ndarray:
        """Of the test slide, by a method fitted with seed 1."""
        return np.array(self.fitted.predict(self.test()))


def _check_prediction(prediction: Any, n_spots: int) -> None:
    _expect(
        type(prediction) is np.ndarray,
        f"predict returns a {type(prediction).__name__} - return a numpy array (for a tensor: .cpu().numpy())",
    )
    shape = (n_spots, N_GENES)
    _expect(
        prediction.shape == shape,
        f"predict returns shape {prediction.shape} for {n_spots} spots and {N_GENES} genes - return {shape}",
    )
    _expect(prediction.dtype == np.float32, f"predict returns {prediction.dtype} - return float32")
    bad = int((~np.isfinite(prediction)).sum())
    _expect(bad == 0, f"{bad} of {prediction.size} predicted values are NaN or infinite - find where they arise")


# The checks ---------------------------------------------------------------------------------------------------------


def declares_itself(subject: Subject) -> None:
    """Names, kind, presets, needs and label are there before fit, as reports and the command line need them."""
    method = subject.method
    _expect(
        isinstance(method.name, str) and re.fullmatch(r"[a-z][a-z0-9_]*", method.name) is not None,
        f"name = {method.name!r} - use lower-case letters, digits and underscores",
    )
    _expect(
        isinstance(method.title, str) and bool(method.title), f"title = {method.title!r} - give the name as printed"
    )
    _expect(method.kind in ("method", "control"), f"kind = {method.kind!r} - it is 'method' or 'control'")
    for preset in ("published", "quick"):
        _expect(
            preset == "published" or preset in method.presets,
            f"presets has no '{preset}' - add it ({{}} where the published settings take minutes anyway)",
        )
    for preset in method.presets:
        name, _, dataset = preset.partition("/")
        try:
            configure(method, name, dataset)
        except UserError as error:
            raise CheckFailed(f"preset '{preset}' does not make a Config: {error}") from error
    fresh = subject.new()
    _expect(isinstance(fresh.needs, Needs), f"needs is a {type(fresh.needs).__name__} - return stbench.method.Needs")
    _expect(
        not fresh.needs.oracle or method.kind == "control",
        "needs.oracle on a method that is no control - what sees test counts must not compete: set kind = 'control'",
    )
    label = fresh.weights_label
    _expect(
        isinstance(label, str) and bool(label),
        f"weights_label = {label!r} before fit - say where pretrained weights come from, or 'none'",
    )


def rejects_bad_configs(subject: Subject) -> None:
    """Unknown settings and values of the wrong type are refused by name; a config does not change."""
    method = subject.method
    try:
        method.Config.model_validate({"no_such_setting": 1})
    except ValueError:
        pass
    else:
        raise CheckFailed(
            "Config accepts the unknown field no_such_setting - derive it from stbench.method.MethodConfig"
        )
    for name in method.Config.model_fields:
        try:
            configure(method, changes=dict(subject.config) | {name: UNTYPED})
        except UserError as error:
            _expect(
                f"{method.name}.{name}" in str(error),
                f"a wrong type of setting {name} is refused without naming it: {error}",
            )
        else:
            raise CheckFailed(f"Config accepts any value for {name} - give the field a type")
        try:
            setattr(subject.config, name, getattr(subject.config, name))
        except ValueError:
            continue
        raise CheckFailed(f"config.{name} can be assigned to - derive Config from stbench.method.MethodConfig (frozen)")


def constructor_does_no_work(subject: Subject) -> None:
    """``__init__`` keeps the config and builds nothing: it is called wherever a method is only talked about."""
    before = _random_state()
    method = subject.new()
    after = _random_state()
    _expect(method.config == subject.config, "the constructor does not keep its config - set self.config = config")
    _expect(
        all(after[library] == state for library, state in before.items()),
        "the constructor draws random numbers - build networks in fit",
    )
    held = [place for place, _ in _tensors(vars(method), "self")]
    _expect(not held, f"the constructor makes {', '.join(held[:3])} - build networks and arrays in fit")


def fits_and_predicts(subject: Subject) -> None:
    """``predict`` returns finite float32 numbers, (n_spots, n_genes)."""
    _check_prediction(subject.fitted.predict(subject.test()), 6)


def same_seed_same_numbers(subject: Subject) -> None:
    """A second fit with the same seed predicts the same, bit for bit, whatever the global random state is."""
    _disturb_random_state()
    again = subject.fit().predict(subject.test())
    _expect(
        np.array_equal(again, subject.prediction),
        f"two fits with one seed predict differently (by up to {_difference(again, subject.prediction)}) - draw all"
        " random numbers from run.numpy_generator, run.torch_generator or run.derive_seed",
    )


def remembers_nothing_between_fits(subject: Subject) -> None:
    """What another instance learnt, of the test slide even, does not enter: folds and seeds follow in one process."""
    expected = subject.prediction
    truth = _training_slide("A3", "A", 6, subject.window)
    subject.fit([truth, *subject.training()]).predict(subject.test(5, "A4"))
    again = subject.fit().predict(subject.test())
    _expect(
        np.array_equal(again, expected),
        f"a fit predicts differently after another instance was fitted on other slides (by up to"
        f" {_difference(again, expected)}) - keep what is learnt in self, not in the class or the module",
    )


def leaves_the_process_as_it_was(subject: Subject) -> None:
    """No call changes what all methods share: torch's defaults, generators, the working folder, signals, ..."""
    told = [*changes_at_import(subject.method)]
    calls = Calls(subject.method.name, told.append)
    method = calls.guard(calls("its constructor", subject.method, subject.config))
    method.needs, method.weights_label  # noqa: B018 - looking at them is a call, too
    method.fit(subject.training(), Run(seed=1))
    method.predict(subject.test())
    saved = subject.place / "saved"
    saved.mkdir()
    method.save(saved)
    calls.guard(calls("load", subject.method.load, saved)).predict(subject.test())
    _expect(
        not told,
        f"{'; '.join(dict.fromkeys(told))} - set it for your own call alone (with torch.no_grad(): ..., a generator of"
        " your own): a run puts it back, so that your next call does not find it either",
    )


def returns_arrays_of_its_own(subject: Subject) -> None:
    """A prediction is not overwritten by the next one."""
    method = subject.fitted
    first = method.predict(subject.test())
    before = np.array(first)
    method.predict(subject.test(5, "A4"))
    _expect(np.array_equal(first, before), "the next predict writes into the array returned before - return a copy")


def order_of_test_slides_does_not_matter(subject: Subject) -> None:
    """Predicting one slide leaves nothing behind that changes the prediction of another."""
    method, first = subject.fitted, subject.prediction
    other_first = method.predict(subject.test(5, "A4"))
    after_other = method.predict(subject.test())
    repeated = method.predict(subject.test(5, "A4"))
    _expect(
        np.array_equal(after_other, first) and np.array_equal(other_first, repeated),
        "a slide's prediction depends on which slides were predicted before it - let predict change nothing in self"
        " (a network must be in eval mode)",
    )


def spots_are_independent_unless_declared(subject: Subject) -> str | None:
    """Where ``needs.whole_slide`` is false a spot's prediction does not depend on the slide's other spots."""
    if subject.needs.whole_slide:
        return "does not apply: needs.whole_slide"
    alone = np.concatenate([subject.fitted.predict(_take(subject.test(), [spot])) for spot in range(6)])
    _expect(
        np.allclose(alone, subject.prediction, rtol=1e-3, atol=1e-4),
        f"a spot alone is predicted differently from the same spot within its slide (by up to"
        f" {_difference(alone, subject.prediction)}) - declare Needs(whole_slide=True), or find what mixes spots",
    )
    return None


def inputs_are_not_modified(subject: Subject) -> None:
    """Neither ``fit`` nor ``predict`` writes into the arrays it is given: other trials see them too."""
    training, test = subject.training(), subject.test()
    before = [_digests(slide) for slide in (*training, test)]
    for slide in (*training, test):
        for array in _arrays(slide).values():
            array.setflags(write=False)
    advice = "work on a copy (torch.from_numpy shares memory: clone before writing in place)"
    try:
        method = subject.fit(training)
        method.predict(test)
    except (ValueError, RuntimeError) as error:
        if "read-only" not in str(error):
            raise
        raise CheckFailed(f"the method writes into a slide's array: {_reason(error)} - {advice}") from error
    for slide, digests in zip((*training, test), before, strict=True):
        changed = [name for name, digest in _digests(slide).items() if digest != digests[name]]
        _expect(not changed, f"the method changes {', '.join(changed)} of slide {slide.id} - {advice}")


def no_access_to_test_expression(subject: Subject) -> None:
    """``predict`` does not ask a test slide for expression; only a declared oracle is told the total counts."""
    plain = subject.test()
    visible: dict[str, Any] = {item.name: getattr(plain, item.name) for item in fields(plain)}
    watched = WatchedOracleSlide(**visible) if isinstance(plain, OracleSlide) else WatchedSlide(**visible)
    failure = ""
    try:
        subject.fitted.predict(watched)
    except AttributeError as error:
        failure = str(error)
    asked = [name for name in watched.asked if name in EXPRESSION]
    _expect(
        not asked,
        f"predict asks the test slide for {', '.join(dict.fromkeys(asked))}, which is what it is to predict - use"
        " patches and positions only (a control that must see total counts declares Needs(oracle=True))",
    )
    _expect(not failure, f"predict needs what a test slide has not: {failure}")


def survives_one_spot(subject: Subject) -> None:
    """A test slide of one spot is predicted."""
    _check_prediction(subject.fitted.predict(subject.test(1)), 1)


def survives_three_spots(subject: Subject) -> None:
    """A test slide of three spots is predicted."""
    _check_prediction(subject.fitted.predict(subject.test(3)), 3)


def survives_small_training_slide(subject: Subject) -> None:
    """A training slide of three spots beside others, and alone, is learnt from."""
    small = _training_slide("A2", "A", 3, subject.window)
    for slides in ([subject.training()[0], small], [small]):
        _check_prediction(subject.fit(slides).predict(subject.test()), 6)


def survives_unseen_positions(subject: Subject) -> None:
    """Array and pixel positions far outside those of the training slides (Visium has 78 x 128) are predicted."""
    near = subject.test()
    moved = {item.name: getattr(near, item.name) for item in fields(near)}
    moved |= {"array_xy": near.array_xy + 100, "pixel_xy": near.pixel_xy + 20_000.0}
    try:
        prediction = subject.fitted.predict(type(near)(**moved))
    except Exception as error:
        raise CheckFailed(
            f"array positions above 100 fail where training ended at {subject.training()[0].array_xy.max()}:"
            f" {_reason(error)} - size tables of positions generously, or clip to them"
        ) from error
    _check_prediction(prediction, 6)


def saves_and_loads(subject: Subject) -> None:
    """What ``load`` returns predicts as what was saved, from another folder, from files without pickled code."""
    saved = subject.place / "saved"
    saved.mkdir()
    subject.fitted.save(saved)
    files = [path for path in saved.rglob("*") if path.is_file()]
    _expect(bool(files), "save writes no file - write safetensors, npy and JSON into the folder")
    for path in files:
        _expect(
            not _is_pickle(path), f"save writes {path.name}, a pickle, which can run code when loaded - use safetensors"
        )
    moved = saved.rename(subject.place / "moved")
    loaded = subject.method.load(moved)
    _expect(loaded.config == subject.config, "load does not restore the config - save it as JSON beside the weights")
    _expect(loaded.weights_label == subject.fitted.weights_label, "load does not restore weights_label - save it")
    prediction = loaded.predict(subject.test())
    _check_prediction(prediction, 6)
    _expect(
        np.allclose(prediction, subject.prediction, rtol=1e-5, atol=1e-6),
        f"after save and load the prediction differs (by up to {_difference(prediction, subject.prediction)})"
        " - save everything that fit learnt (buffers, retrieval keys, normalisation)",
    )


def honours_the_device(subject: Subject) -> str | None:
    """All tensors are where ``run.device`` says; where there is CUDA it is tried as well, with loading to the CPU."""
    _expect_tensors_on(subject.fitted, "cpu", "run.device = 'cpu'")
    torch = sys.modules.get("torch")
    if torch is None:
        return "the method does not use torch"
    if not torch.cuda.is_available():
        return "on the CPU only: no CUDA here"
    method = subject.fit(run=Run(seed=1, device="cuda"))
    _check_prediction(method.predict(subject.test()), 6)
    _expect_tensors_on(method, "cuda", "run.device = 'cuda'", parameters_only=True)
    method.save(subject.place)
    loaded = subject.method.load(subject.place, device="cpu")
    _expect_tensors_on(loaded, "cpu", "load(..., device='cpu')")
    _check_prediction(loaded.predict(subject.test()), 6)
    return None


def says_when_not_applicable(subject: Subject) -> str | None:
    """Without a training slide of the patient ``NotApplicable`` is raised, or there is a prediction; nothing else."""
    if not subject.needs.same_patient:
        return "does not apply: needs no slide of the same patient"
    try:
        method = subject.new()
        method.fit(subject.training()[2:], Run(seed=1))
        prediction = method.predict(subject.test())
    except NotApplicable as reason:
        _expect(bool(str(reason)), "NotApplicable is raised without a reason - say what the fold lacks")
        return None
    _check_prediction(prediction, 6)
    return None


def stops_and_resumes(subject: Subject) -> str | None:
    """Asked to stop, ``fit`` saves its state and raises ``Interrupted``; the next fit goes on to the same numbers."""
    if "epochs" not in subject.method.Config.model_fields:
        return "does not apply: the config has no epochs"
    checkpoint = subject.place / "checkpoint"
    epochs: list[int] = []

    def run(should_stop: Callable[[], bool]) -> Run:
        return Run(
            seed=1,
            checkpoint_directory=checkpoint,
            should_stop=should_stop,
            on_log=lambda epoch, values: epochs.append(epoch),
        )

    try:
        subject.fit(run=run(lambda: bool(epochs)))
    except Interrupted:
        pass
    else:
        how = "went on" if epochs else "logged no epoch (call run.log once an epoch) and went on"
        raise CheckFailed(
            f"fit {how} after should_stop() was true - ask run.check_interrupt() after each batch or epoch, save the"
            " state in run.checkpoint_directory and raise run.interrupted(...)"
        )
    before = list(epochs)
    resumed = subject.fit(run=run(lambda: False))
    repeated = sorted(set(before) & set(epochs[len(before) :]))
    _expect(not repeated, f"epochs {repeated} ran again after an interruption - go on from the checkpoint")
    prediction = resumed.predict(subject.test())
    _expect(
        np.array_equal(prediction, subject.prediction),
        f"a fit that was interrupted and resumed predicts differently (by up to"
        f" {_difference(prediction, subject.prediction)}) - the checkpoint must hold weights, optimiser,"
        " schedule and the state of every random generator",
    )
    return None


CHECKS: tuple[Callable[[Subject], str | None], ...] = (
    declares_itself,
    rejects_bad_configs,
    constructor_does_no_work,
    fits_and_predicts,
    same_seed_same_numbers,
    remembers_nothing_between_fits,
    leaves_the_process_as_it_was,
    returns_arrays_of_its_own,
    order_of_test_slides_does_not_matter,
    spots_are_independent_unless_declared,
    inputs_are_not_modified,
    no_access_to_test_expression,
    survives_one_spot,
    survives_three_spots,
    survives_small_training_slide,
    survives_unseen_positions,
    saves_and_loads,
    honours_the_device,
    says_when_not_applicable,
    stops_and_resumes,
)


# Looking into methods and slides ------------------------------------------------------------------------------------


def _difference(one: np.ndarray, other: np.ndarray) -> str:
    return f"{np.abs(one - other).max():.3g}" if one.shape == other.shape else f"{one.shape} against {other.shape}"


def _arrays(slide: TestSlide) -> dict[str, np.ndarray]:
    values = {item.name: getattr(slide, item.name) for item in fields(slide)}
    return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}


def _digests(slide: TestSlide) -> dict[str, str]:
    return {name: hashlib.blake2b(array.tobytes()).hexdigest() for name, array in _arrays(slide).items()}


def _is_pickle(path: Path) -> bool:
    if path.suffix in (".npy", ".npz"):
        try:
            loaded = np.load(path, allow_pickle=False)
            for name in getattr(loaded, "files", ()):  # of an .npz, which reads an array when asked for it
                loaded[name]
        except ValueError:  # an array of Python objects
            return True
    return path.suffix in PICKLES


def _tensors(value: Any, place: str, seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """(where, array or tensor) for all that ``value`` holds, in containers, networks and other objects."""
    seen = set() if seen is None else seen
    if id(value) in seen:
        return
    seen.add(id(value))
    torch = sys.modules.get("torch")
    if isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor)):
        yield place, value
    elif torch is not None and isinstance(value, torch.nn.Module):
        for name, tensor in [*value.named_parameters(), *value.named_buffers()]:
            yield f"{place}.{name}", tensor
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _tensors(item, f"{place}.{key}" if place == "self" else f"{place}[{key!r}]", seen)
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            yield from _tensors(item, f"{place}[{i}]", seen)
    elif hasattr(value, "__dict__") and not isinstance(value, type) and not callable(value):
        for name, item in vars(value).items():
            yield from _tensors(item, f"{place}.{name}", seen)


def _expect_tensors_on(method: Method, device: str, why: str, parameters_only: bool = False) -> None:
    torch = sys.modules.get("torch")
    if torch is None:
        return
    kinds = torch.nn.Parameter if parameters_only else torch.Tensor
    held = [(place, tensor) for place, tensor in _tensors(vars(method), "self") if isinstance(tensor, kinds)]
    strays = [f"{place} ({tensor.device})" for place, tensor in held if tensor.device.type != device]
    _expect(
        not strays, f"with {why} there are tensors elsewhere: {', '.join(strays[:3])} - send everything to run.device"
    )


def _random_state() -> dict[str, Any]:
    """The states of the global generators, comparable; torch's only where torch is in use."""
    state = np.random.get_state(legacy=False)  # noqa: NPY002 - the global generator is what is looked at
    states: dict[str, Any] = {"random": random.getstate(), "numpy": pickle.dumps(state)}
    torch = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = bytes(torch.random.get_rng_state().numpy())
    return states


def _disturb_random_state() -> None:
    """Put the global generators where no fit left them."""
    random.seed(20)
    np.random.seed(20)  # noqa: NPY002 - the global generator is what a method must not depend on
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(20)
