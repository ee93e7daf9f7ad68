"""Every registered method passes the battery, and the battery catches a method that is broken in any one way."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pytest
import torch
from pydantic import BaseModel

from stbench import registry
from stbench.errors import NotApplicable
from stbench.method import Method, MethodConfig, Needs, Run, TestSlide, TrainingSlide
from stbench.method_checks import battery, robustness, subject
from stbench.system.files import read_json, write_json

CHECK_NAMES = [check.__name__ for check in battery.CHECKS]


class SoundConfig(MethodConfig):
    epochs: int = 5
    rate: float = 0.1


class Sound:
    """A linear model on the mean colour, fitted by noisy gradient steps, that does everything right."""

    name: ClassVar[str] = "sound"
    title: ClassVar[str] = "Sound"
    kind: ClassVar[Literal["method", "control"]] = "method"
    Config: ClassVar[type[Any]] = SoundConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {"epochs": 3}, "quick/her2st": {"rate": 0.2}}
    weights_label = "none"

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def needs(self) -> Needs:
        return Needs()

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        X = np.concatenate([self.colour(slide) for slide in slides])
        Y = np.concatenate([slide.target for slide in slides]).astype(np.float64)
        rng = run.numpy_generator("steps")
        self.weights, start = np.zeros((X.shape[1], Y.shape[1])), 0
        file = None if run.checkpoint_directory is None else run.checkpoint_directory / "state.json"
        if file is not None and file.is_file():
            start = self.resume(read_json(file), rng)
        for epoch in range(start + 1, self.config.epochs + 1):
            if run.check_interrupt():
                if file is not None:
                    state = {"epoch": epoch - 1, "weights": self.weights.tolist(), "rng": rng.bit_generator.state}
                    write_json(file, state)
                raise run.interrupted(f"epoch {epoch - 1}")
            noise = rng.normal(0, 0.01, Y.shape)
            self.weights += self.config.rate * X.T @ (Y + noise - X @ self.weights) / len(X)
            run.log(epoch, loss=float(((Y - X @ self.weights) ** 2).mean()))

    def resume(self, state: Mapping[str, Any], rng: np.random.Generator) -> int:
        self.weights = np.array(state["weights"])
        rng.bit_generator.state = state["rng"]
        return int(state["epoch"])

    def colour(self, slide: TestSlide) -> np.ndarray:
        return np.concatenate([slide.patches.mean(axis=(1, 2)) / 255, np.ones((slide.n_spots, 1))], axis=1)

    def predict(self, slide: TestSlide) -> np.ndarray:
        return (self.colour(slide) @ self.weights).astype(np.float32)

    def save(self, directory: Path) -> None:
        np.save(directory / "weights.npy", self.weights)
        write_json(directory / "config.json", self.config.model_dump())

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        method = cls(cls.Config(**read_json(directory / "config.json")))
        method.weights = np.load(directory / "weights.npy")
        return method


def failures(method: type[Any]) -> dict[str, str]:
    return {result.name: result.message for result in battery.run_checks(method) if not result.passed}


# The battery on methods that are there -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.method_names())
def test_every_registered_method_passes(name: str) -> None:
    assert failures(registry.method(name)) == {}


def test_a_sound_method_passes_and_every_check_reports() -> None:
    results = battery.run_checks(Sound)
    assert [result.name for result in results] == CHECK_NAMES
    assert failures(Sound) == {}
    assert isinstance(Sound(SoundConfig()), Method)


def test_a_given_config_is_the_one_that_is_checked() -> None:
    seen = set()

    class Spy(Sound):
        def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
            seen.add(self.config.epochs)
            super().fit(slides, run)

    battery.run_checks(Spy, SoundConfig(epochs=7))
    assert seen == {7}
    seen.clear()
    battery.run_checks(Spy)
    assert seen == {2}


def test_the_slides_have_the_window_that_the_config_asks_for() -> None:
    class WindowConfig(SoundConfig):
        patch_px: int = 48

    class Windowed(Sound):
        Config = WindowConfig

        def colour(self, slide: TestSlide) -> np.ndarray:
            assert slide.patches.shape[1:] == (48, 48, 3)
            return super().colour(slide)

    assert failures(Windowed) == {}


def test_global_random_state_is_left_as_it_was() -> None:
    before = random.getstate(), pickle.dumps(np.random.get_state())  # noqa: NPY002
    battery.run_checks(Sound)
    assert (random.getstate(), pickle.dumps(np.random.get_state())) == before  # noqa: NPY002


def test_every_check_says_in_its_docstring_what_it_asks_for() -> None:
    assert all(check.__doc__ for check in battery.CHECKS)


# Broken methods -----------------------------------------------------------------------------------------------------


class CapitalName(Sound):
    name = "Sound Method"


class NoQuickPreset(Sound):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {}}


class BadPreset(Sound):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}, "quick/her2st": {"rate": "fast"}}


class OracleThatCompetes(Sound):
    @property
    def needs(self) -> Needs:
        return Needs(oracle=True)


class LabelOnlyAfterFit(Sound):
    weights_label = ""


class OpenConfig(BaseModel):
    epochs: int = 5
    rate: float = 0.1


class AcceptsUnknownSettings(Sound):
    Config = OpenConfig


class LooseConfig(MethodConfig):
    epochs: int = 5
    rate: Any = 0.1


class AcceptsAnyType(Sound):
    Config = LooseConfig


class ThawedConfig(BaseModel, extra="forbid"):
    epochs: int = 5
    rate: float = 0.1


class ConfigCanBeChanged(Sound):
    Config = ThawedConfig


class ConstructorBuilds(Sound):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.weights = np.zeros((4, 6))


class ConstructorDraws(Sound):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.first = float(np.random.rand())  # noqa: NPY002


class ConstructorForgetsConfig(Sound):
    def __init__(self, config: Any) -> None:
        self.config = SoundConfig()


class TransposedPrediction(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        return np.ascontiguousarray(super().predict(slide)[:, :5])


class DoublePrediction(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        return super().predict(slide).astype(np.float64)


class ListPrediction(Sound):
    def predict(self, slide: TestSlide) -> Any:
        return super().predict(slide).tolist()


class NotFinite(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        prediction = super().predict(slide)
        prediction[0, 0] = np.nan
        return prediction


class RaisesInFit(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        raise RuntimeError("no\nluck")


class NeverApplicable(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        raise NotApplicable("not today")


class Unseeded(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit(slides, run)
        self.weights += np.random.normal(0, 1e-3, self.weights.shape)  # noqa: NPY002


class GlobalSeedOnImport(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit(slides, run)
        self.weights += random.random()


class RemembersTestSlides(Sound):
    seen = 0

    def predict(self, slide: TestSlide) -> np.ndarray:
        self.seen += 1
        return super().predict(slide) + self.seen


class MixesSpots(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        prediction = super().predict(slide)
        return prediction - prediction.mean(axis=0)


class WritesIntoPatches(Sound):
    def colour(self, slide: TestSlide) -> np.ndarray:
        slide.patches[:, 0] = 0
        return super().colour(slide)


class WritesThroughTorch(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        import torch

        torch.from_numpy(slide.array_xy).sub_(1)
        return super().predict(slide)


class PeeksAtTarget(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        return getattr(slide, "target", super().predict(slide))


class PeeksAtDepth(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        try:
            depth = slide.total_counts  # type: ignore[attr-defined]
        except AttributeError:
            depth = np.zeros(slide.n_spots, np.float32)
        return super().predict(slide) + depth[:, None]


class NeedsTwoSpots(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        assert slide.n_spots > 1
        return super().predict(slide)


class SqueezesOneSpot(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        return super().predict(slide).squeeze()


class NeedsFourSpots(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        assert slide.n_spots != 3
        return super().predict(slide)


class NeedsFourTrainingSpots(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        if min(slide.n_spots for slide in slides) < 4:
            raise ValueError("no full batch")
        super().fit(slides, run)


class SmallPositionTable(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        return super().predict(slide) + np.zeros(64, np.float32)[slide.array_xy[:, :1]]


class Pickles(Sound):
    def save(self, directory: Path) -> None:
        super().save(directory)
        (directory / "model.pkl").write_bytes(pickle.dumps(self.weights))


class PicklesInNpy(Sound):
    def save(self, directory: Path) -> None:
        super().save(directory)
        np.save(directory / "genes.npy", np.array(["a", None], dtype=object))


class SavesNothing(Sound):
    def save(self, directory: Path) -> None:
        pass


class LosesWeights(Sound):
    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        method = super().load(directory)
        method.weights = np.round(method.weights, 2)
        return method


class LosesConfig(Sound):
    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        method = super().load(directory)
        method.config = SoundConfig()
        return method


class LosesLabel(Sound):
    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        method = super().load(directory)
        method.weights_label = "unknown"
        return method


class ReadsItsOldFolder(Sound):
    def save(self, directory: Path) -> None:
        super().save(directory)
        write_json(directory / "place.json", str(directory))

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        return super().load(Path(read_json(directory / "place.json")))


class ElsewhereOnTheDevice(Sound):
    """Keeps a tensor on torch's storage-free device, as a stand-in for a GPU that was not asked for."""

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        import torch

        super().fit(slides, run)
        self.layers = [{"head": torch.nn.Linear(2, 2, device="meta")}]


class FailsWithoutReplicate(Sound):
    @property
    def needs(self) -> Needs:
        return Needs(same_patient=True)

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit([slide for slide in slides if slide.patient == "A"], run)


class IgnoresInterruption(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit(slides, replace(run, should_stop=lambda: False))


class LogsNothing(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit(slides, replace(run, on_log=None))


class StartsAgain(Sound):
    def resume(self, state: Mapping[str, Any], rng: np.random.Generator) -> int:
        return 0


class ForgetsItsGenerator(Sound):
    def resume(self, state: Mapping[str, Any], rng: np.random.Generator) -> int:
        return super().resume(state, np.random.default_rng(0))


class ExitsInFit(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        raise SystemExit(0)


class SetsDefaults(Sound):
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit(slides, run)
        torch.set_default_dtype(torch.float64)
        os.chdir("/")

    def save(self, directory: Path) -> None:
        super().save(directory)
        torch.set_grad_enabled(False)


class DrawsInPredict(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        np.random.rand(3)  # noqa: NPY002
        return super().predict(slide)


class LearnsInTheClass(Sound):
    seen: ClassVar[dict[bytes, np.ndarray]] = {}

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        super().fit(slides, run)
        for slide in slides:
            self.seen |= {patch.tobytes(): target for patch, target in zip(slide.patches, slide.target, strict=True)}

    def predict(self, slide: TestSlide) -> np.ndarray:
        known = super().predict(slide)
        return np.stack([self.seen.get(patch.tobytes(), row) for patch, row in zip(slide.patches, known, strict=True)])


class OneBuffer(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        if not hasattr(self, "buffer"):
            self.buffer = np.empty((500, self.weights.shape[1]), dtype=np.float32)
        self.buffer[: slide.n_spots] = super().predict(slide)
        return self.buffer[: slide.n_spots]


class MaskedPrediction(Sound):
    def predict(self, slide: TestSlide) -> np.ndarray:
        return np.ma.masked_less(super().predict(slide), 0)


@pytest.mark.parametrize(
    ("broken", "check", "message"),
    [
        (CapitalName, "declares_itself", "use lower-case letters"),
        (NoQuickPreset, "declares_itself", "presets has no 'quick' - add it"),
        (BadPreset, "declares_itself", "preset 'quick/her2st' does not make a Config: sound.rate"),
        (OracleThatCompetes, "declares_itself", "set kind = 'control'"),
        (LabelOnlyAfterFit, "declares_itself", "weights_label = '' before fit"),
        (AcceptsUnknownSettings, "rejects_bad_configs", "the unknown field no_such_setting - derive it from"),
        (AcceptsAnyType, "rejects_bad_configs", "accepts any value for rate - give the field a type"),
        (ConfigCanBeChanged, "rejects_bad_configs", "config.epochs can be assigned to"),
        (ConstructorBuilds, "constructor_does_no_work", "makes self.weights - build networks and arrays in fit"),
        (ConstructorDraws, "constructor_does_no_work", "draws random numbers"),
        (ConstructorForgetsConfig, "constructor_does_no_work", "set self.config = config"),
        (TransposedPrediction, "fits_and_predicts", "shape (6, 5) for 6 spots and 6 genes - return (6, 6)"),
        (DoublePrediction, "fits_and_predicts", "returns float64 - return float32"),
        (ListPrediction, "fits_and_predicts", "returns a list - return a numpy array"),
        (MaskedPrediction, "fits_and_predicts", "returns a MaskedArray - return a numpy array"),
        (ExitsInFit, "fits_and_predicts", "it called sys.exit(0) (test_method_checks.py, line"),
        (
            SetsDefaults,
            "leaves_the_process_as_it_was",
            "sound changed in fit: torch's default dtype (now torch.float64)",
        ),
        (SetsDefaults, "leaves_the_process_as_it_was", "the working folder (now /)"),
        (SetsDefaults, "leaves_the_process_as_it_was", "sound changed in save: torch's gradients (now off)"),
        (DrawsInPredict, "leaves_the_process_as_it_was", "changed in predict: numpy's global random generator"),
        (LearnsInTheClass, "remembers_nothing_between_fits", "keep what is learnt in self, not in the class"),
        (OneBuffer, "returns_arrays_of_its_own", "return a copy"),
        (NotFinite, "fits_and_predicts", "1 of 36 predicted values are NaN or infinite"),
        (RaisesInFit, "fits_and_predicts", "RuntimeError: no luck (test_method_checks.py, line"),
        (NeverApplicable, "fits_and_predicts", "fit raises NotApplicable (not today) though"),
        (Unseeded, "same_seed_same_numbers", "draw all random numbers from run.numpy_generator"),
        (GlobalSeedOnImport, "same_seed_same_numbers", "draw all random numbers from run.numpy_generator"),
        (RemembersTestSlides, "order_of_test_slides_does_not_matter", "let predict change nothing in self"),
        (MixesSpots, "spots_are_independent_unless_declared", "declare Needs(whole_slide=True)"),
        (WritesIntoPatches, "inputs_are_not_modified", "writes into a slide's array: ValueError: assignment"),
        (WritesThroughTorch, "inputs_are_not_modified", "changes array_xy of slide A3 - work on a copy"),
        (PeeksAtTarget, "no_access_to_test_expression", "asks the test slide for target"),
        (PeeksAtDepth, "no_access_to_test_expression", "declares Needs(oracle=True)"),
        (NeedsTwoSpots, "survives_one_spot", "AssertionError"),
        (SqueezesOneSpot, "survives_one_spot", "shape (6,) for 1 spots and 6 genes - return (1, 6)"),
        (NeedsFourSpots, "survives_three_spots", "AssertionError"),
        (NeedsFourTrainingSpots, "survives_small_training_slide", "ValueError: no full batch"),
        (SmallPositionTable, "survives_unseen_positions", "size tables of positions generously"),
        (Pickles, "saves_and_loads", "writes model.pkl, a pickle"),
        (PicklesInNpy, "saves_and_loads", "writes genes.npy, a pickle"),
        (SavesNothing, "saves_and_loads", "writes no file"),
        (LosesWeights, "saves_and_loads", "save everything that fit learnt"),
        (LosesConfig, "saves_and_loads", "does not restore the config"),
        (LosesLabel, "saves_and_loads", "does not restore weights_label"),
        (ReadsItsOldFolder, "saves_and_loads", "config.json cannot be read (no such file or directory)"),
        (ElsewhereOnTheDevice, "honours_the_device", "self.layers[0]['head'].weight (meta)"),
        (FailsWithoutReplicate, "says_when_not_applicable", "ValueError: need at least one array to concatenate"),
        (
            IgnoresInterruption,
            "stops_and_resumes",
            "fit went on after should_stop() was true - ask run.check_interrupt()",
        ),
        (LogsNothing, "stops_and_resumes", "call run.log once per epoch"),
        (StartsAgain, "stops_and_resumes", "epochs [1] ran again after an interruption"),
        (ForgetsItsGenerator, "stops_and_resumes", "the state of every random generator"),
    ],
)
def test_a_broken_method_is_caught_by_the_check_for_it(broken: type[Any], check: str, message: str) -> None:
    assert message in failures(broken).get(check, f"{check} passed")


def test_every_check_catches_some_broken_method() -> None:
    caught = test_a_broken_method_is_caught_by_the_check_for_it.pytestmark[0].args[1]  # type: ignore[attr-defined]
    assert {check for _, check, _ in caught} == set(CHECK_NAMES)


def test_a_method_without_any_valid_config_fails_with_the_reason() -> None:
    class NeedsConfig(MethodConfig):
        epochs: int = 5
        path: str

    class Unconfigurable(Sound):
        Config = NeedsConfig

    assert "path" in failures(Unconfigurable)["declares_itself"]


@pytest.mark.gpu
@pytest.mark.parametrize("name", registry.method_names())
def test_every_registered_method_honours_a_gpu(name: str) -> None:
    method = registry.method(name)
    on_trial = subject.Subject(method, subject.small_config(method))
    result = battery._run_check(robustness.honours_the_device, on_trial)
    assert (result.passed, result.message) in [(True, ""), (True, "the method does not use torch")]
