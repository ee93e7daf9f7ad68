"""A method out of a TOML file: fitting and predicting are commands, run in the environment that the file names."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from ..errors import DamagedFileError, Interrupted, MethodFailed, NotApplicable, UserError
from ..method import MethodConfig, Needs, Run, TestSlide, TrainingSlide
from ..system.files import read_object, write_json
from .command import Ending
from .commands import Commands
from .definition import EXCHANGE, Definition, filled, read_definition
from .environment import require_environment
from .exchange import Asked, write_test, write_training
from .output import Output
from .settings import config_of
from .sources import digest_of_code

log = logging.getLogger("stbench")

RECORD = "stbench.json"  # beside the command's own files in what save writes
ENDED = "trained.json"  # in a checkpoint whose training came to its end


@dataclass(frozen=True)
class Learnt:
    """What a training left."""

    model: Path  # the folder that the train command wrote
    genes: tuple[str, ...]
    mean: tuple[float, ...]  # of the target over the training spots: for genes that are not predicted
    seed: int
    precision: str


class ForeignMethod:
    """Base of the classes that :func:`open_method` makes, one for each TOML file."""

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["method", "control"]]
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, object]]]
    safe_precisions: ClassVar[tuple[str, ...]]
    resumes: ClassVar[bool]
    reads_own_files: ClassVar[bool] = True  # nobody else does: they may be pickles
    code_digest: ClassVar[str]
    costs: ClassVar[Mapping[str, float]]
    definition: ClassVar[Definition]
    here: ClassVar[Path]

    def __init__(self, config: MethodConfig) -> None:
        self.config = config
        self.versions: dict[str, str] = {}  # of its environment
        self.peak_mem_mb: float | None = 0.0  # of its commands' processes; None: they hold it where it is not seen
        self._learnt: Learnt | None = None
        self._place = Path()  # where predicting has room
        self._device = "cpu"
        self._should_stop: Callable[[], bool] = lambda: False

    @property
    def needs(self) -> Needs:
        return Needs(whole_slide=self.definition.whole_slide, same_patient=self.definition.same_patient)

    @property
    def weights_label(self) -> str:
        return filled([self.definition.weights], self.config.model_dump())[0]

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        """Write the training folder, run the train command, and keep of all of it the model folder alone."""
        place = run.checkpoint_directory or _temporary(self)
        place.mkdir(parents=True, exist_ok=True)
        if not (place / ENDED).is_file():
            self._train(slides, run, place)
            write_json(place / ENDED, {"genes": list(slides[0].genes), "mean": _mean(slides)})
        facts = read_object(place / ENDED)
        genes, mean = tuple(facts["genes"]), tuple(facts["mean"])
        self._learnt = Learnt(place / "model", genes, mean, run.seed, run.precision)
        self._place, self._device, self._should_stop = place, run.device, run.should_stop

    def _train(self, slides: Sequence[TrainingSlide], run: Run, place: Path) -> None:
        task, model, kept = place / "task", place / "model", place / "work"
        for folder in (task, model) if self.resumes else (task, model, kept):
            shutil.rmtree(folder, ignore_errors=True)
        for folder in (task, model, kept):
            folder.mkdir(exist_ok=True)
        commands = self._commands()
        about = commands.about(run.seed, run.device, run.precision, slides[0].genes, model, kept)
        write_training(task, slides, about)
        self.versions = commands.versions(kept)
        output = Output("train", run)
        ending = commands.run("train", task, kept, about, output, run.should_stop)
        self._remember_memory(ending, run.device)
        if output.skipped:
            raise NotApplicable(output.skipped)
        if ending.was_stopped:
            goes_on = "goes on from what it kept" if self.resumes else "begins anew, as its file does not say resumes"
            raise Interrupted(f"the train command was stopped; the next time it {goes_on}")
        if not any(path.is_file() for path in model.rglob("*")):
            raise MethodFailed(
                "the train command ended well and left no file in {model}, which is all that predicting is given"
            )
        shutil.rmtree(task)  # so that a predict command finds nothing of the training but its model
        shutil.rmtree(kept)

    def predict(self, slide: TestSlide) -> np.ndarray:
        """Predict a slide. Several at once (:meth:`predict_slides`) take one start of the command."""
        return self.predict_slides([slide])[0]

    def predict_slides(self, slides: Iterable[TestSlide]) -> list[np.ndarray]:
        """Predict slides, each (n_spots, n_genes) float32, in one run of the predict command."""
        learnt = self._learnt
        if learnt is None:
            raise MethodFailed("it was asked to predict before it was fitted")
        with tempfile.TemporaryDirectory(dir=self._place, prefix="predict-") as name:
            task, scratch = Path(name) / "task", Path(name) / "work"
            task.mkdir()
            scratch.mkdir()
            commands = self._commands()
            about = commands.about(
                learnt.seed, self._device, learnt.precision, learnt.genes, learnt.model, checkpoint=None
            )
            asked = write_test(task, slides, learnt.genes, about)
            output = Output("predict", None)
            ending = commands.run("predict", task, scratch, about, output, self._should_stop)
            self._remember_memory(ending, self._device)
            if ending.was_stopped:
                raise Interrupted("the predict command was stopped; the model stays")
            return [_read(each, learnt, output) for each in asked]

    def save(self, directory: Path) -> None:
        """The command's own files in ``model/``, and what the harness has to know beside it."""
        learnt = self._learnt
        if learnt is None:
            raise MethodFailed("it was asked to save before it was fitted")
        shutil.copytree(learnt.model, directory / "model")
        facts = {"genes": learnt.genes, "mean": learnt.mean, "seed": learnt.seed, "precision": learnt.precision}
        write_json(directory / RECORD, {"exchange": EXCHANGE, "config": self.config.model_dump(mode="json"), **facts})

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> ForeignMethod:
        """What :meth:`save` wrote; the folder is read where it is, and has to stay there."""
        directory = Path(directory).absolute()
        record = read_object(directory / RECORD)
        if record.get("exchange") != EXCHANGE:
            raise DamagedFileError(f"{directory / RECORD} is of version {record.get('exchange')!r}, this is {EXCHANGE}")
        method = cls(cls.Config(**record["config"]))
        genes, mean = tuple(record["genes"]), tuple(record["mean"])
        method._learnt = Learnt(directory / "model", genes, mean, record["seed"], record["precision"])
        method._place, method._device = _temporary(method), device
        return method

    def _commands(self) -> Commands:
        return Commands(self.definition, self.here, self.config.model_dump(mode="json"))

    def _remember_memory(self, ending: Ending, device: str) -> None:
        if self.definition.environment.kind == "docker" or device.startswith("cuda"):
            self.peak_mem_mb = None
        elif self.peak_mem_mb is not None:
            self.peak_mem_mb = max(self.peak_mem_mb, ending.peak_bytes / 2**20)


def open_method(path: Path) -> type[ForeignMethod]:
    """The class of the method that a TOML file describes; the same one for as long as file and code are the same.

    Raises ``UserError`` for a file that is none, and where this machine lacks its environment or its code.
    """
    path = Path(os.path.abspath(path))
    definition = read_definition(path)
    try:
        require_environment(definition.environment, path.parent)
        digest = digest_of_code(definition, path.parent)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    question = path, repr(definition), digest
    if question not in _classes:
        _classes[question] = _class_of(path, definition, digest)
    return _classes[question]


_classes: dict[tuple[Path, str, str], type[ForeignMethod]] = {}


def _class_of(path: Path, definition: Definition, digest: str) -> type[ForeignMethod]:
    members = {
        "__doc__": definition.description or f"{definition.title}, as {path.name} describes it.",
        "__module__": __name__,
        "name": definition.name,
        "title": definition.title,
        "kind": definition.kind,
        "Config": config_of(definition.name, definition.settings, str(path)),
        "presets": {"published": {}, **definition.presets},
        "safe_precisions": definition.precisions,
        "resumes": definition.resumes,
        "code_digest": digest,
        "costs": definition.cost.model_dump(exclude_none=True),
        "definition": definition,
        "here": path.parent,
    }
    return type(definition.name, (ForeignMethod,), members)


def _read(asked: Asked, learnt: Learnt, output: Output) -> np.ndarray:
    """A prediction, with the training mean for genes that are missing, as others' predictions are scored."""
    if not asked.path.is_file():
        told = output.tail()
        raise MethodFailed(
            f"the predict command ended well and left no prediction of slice {asked.id} at predictions/"
            f"{asked.path.name}{f'; its last lines: {told}' if told else ''}"
        )
    try:
        values, notes = asked.predicted
    except UserError as error:
        raise MethodFailed(str(error)) from error
    missing = np.isnan(values).all(axis=0)
    values[:, missing] = np.array(learnt.mean, dtype=np.float32)[missing]
    for note in notes:
        log.warning("%s", note)
    return values


def _mean(slides: Sequence[TrainingSlide]) -> list[float]:
    """(n_genes,): of the target over all spots."""
    return [float(mean) for mean in np.concatenate([slide.target for slide in slides]).mean(axis=0, dtype=np.float64)]


def _temporary(owner: object) -> Path:
    """A folder that goes with its owner."""
    folder = Path(tempfile.mkdtemp(prefix="stbench-foreign-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
