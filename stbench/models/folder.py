"""A trained model as one folder, which can be copied anywhere: ``model.json`` beside what its method saves.

Nothing in it is code, and nothing of it is run: safetensors, npy and JSON, or of a method in an environment of its own
whatever its command wrote. What reads it is the method, which has to be installed, or there as the file that it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from .. import NUMBERS, registry
from ..errors import DamagedFileError, MethodFailed, UserError, said
from ..method import Method
from ..system.calls import Calls
from ..system.compressed import existing
from ..system.files import file_digest
from .facts import FACTS, TRAIN_AGAIN, FileFacts, ModelFacts

__all__ = ["ModelFacts", "TrainedModel", "find_model", "load_method", "read_model", "write_model"]

ANEW = "delete the trial's folder and run the same command again with --save-models"


@dataclass(frozen=True)
class TrainedModel:
    """A model that can predict, and what is known of it."""

    facts: ModelFacts
    method: Method
    directory: Path  # its folder
    notices: tuple[str, ...] = ()  # what a user of it must know


def write_model(directory: Path, facts: ModelFacts, method: Method) -> None:
    """Write a trained method into an existing, empty folder.

    Parameters
    ----------
    directory : Path
        The folder.
    facts : ModelFacts
        Written as ``model.json``; their list of files is made here.
    method : Method
        Trained; what it saves lies beside.

    Raises
    ------
    MethodFailed
        If the method saves a file that is called ``model.json``.
    """
    method.save(directory)
    if (directory / FACTS).exists():
        raise MethodFailed(f"it saved a file {FACTS}, which the harness writes - give it another name")
    files = {
        path.relative_to(directory).as_posix(): FileFacts(size=path.stat().st_size, digest=file_digest(path))
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }
    replace(facts, files=files).write(directory)
    # safetensors makes its files readable by their owner alone: who may read model.json may read them
    mode = (directory / FACTS).stat().st_mode
    for name in files:
        (directory / name).chmod(mode | (directory / name).stat().st_mode)


def read_model(directory: Path, device: str = "cpu") -> TrainedModel:
    """The model of a folder.

    Parameters
    ----------
    directory : Path
        A model folder, wherever it was copied to, or the trial that it lies in (``RESULTS/trials/KEY``).
    device : str, default="cpu"
        Where it is to predict; ``auto`` chooses.

    Returns
    -------
    TrainedModel
        Its files are what was written; ``notices`` tell what changed around them.

    Raises
    ------
    UserError
        If there is no model, its format is another one, its method is not there, or a file is missing or damaged.
    """
    from ..training.device import resolve_device

    folder = find_model(directory)
    facts = ModelFacts.read(folder)
    for name, record in facts.files.items():
        _require_whole(folder / name, record)
    method_class = registry.method(reference_of(facts, folder))
    notices = []
    if registry.source_digest(method_class) != facts.method_source:
        notices.append(
            f"the code of {facts.name} changed since model {facts.label} was trained: its predictions may be others "
            "than its scores tell"
        )
    if facts.numbers != NUMBERS:
        notices.append(
            f"model {facts.label} was trained by stbench {facts.stbench}, since which numbers of stbench have changed"
        )
    return TrainedModel(facts, load_method(method_class, folder, resolve_device(device)), folder, tuple(notices))


def find_model(directory: Path) -> Path:
    """The model folder that ``directory`` is, or that the trial in ``directory`` keeps. Raises ``UserError``."""
    directory = Path(directory)
    for folder in (directory, directory / "model"):
        if (folder / FACTS).is_file():
            return folder
    if not directory.is_dir():
        raise UserError(f"there is no folder {directory} - give a model folder: RESULTS/trials/KEY/model, or a copy")
    if any((folder / "trials").is_dir() for folder in (directory, directory.parent)):
        raise UserError(f"{directory} is a results directory - give the model of one of its trials: trials/KEY/model")
    if (directory / "model").is_dir() or (directory.parent / "state.json").is_file():
        raise UserError(f"{directory} keeps a model without {FACTS}, as stbench up to 0.2 did - {ANEW}")
    if (directory / "state.json").is_file():
        raise UserError(f"{directory} is a trial that kept no model - {ANEW}")
    raise UserError(f"{directory} is no model folder: it has no {FACTS} - give RESULTS/trials/KEY/model, or a copy")


def load_method(method: type[Method], folder: Path, device: str) -> Method:
    """What ``method`` loads from a model folder. Raises ``UserError`` for whatever it raises."""
    calls = Calls(method.name)
    try:
        return calls("load", method.load, folder, device=device)
    except UserError:
        raise
    except Exception as error:  # a stranger's method may fail in any way
        raise DamagedFileError(f"{folder} cannot be loaded ({said(error)}) - {TRAIN_AGAIN}") from error


def reference_of(facts: ModelFacts, folder: Path) -> str:
    """What the registry finds a model's method by: where a file of the same path as then is not there, what was typed.

    Raises ``UserError`` where it is not here.
    """
    try:
        registry.method(facts.origin)
        return facts.origin
    except UserError as error:
        if facts.method != facts.origin:
            try:
                registry.method(facts.method)
                return facts.method
            except UserError:
                pass
        raise UserError(f"the method of {folder} is not here: {error}") from error


def _require_whole(path: Path, record: FileFacts) -> None:
    if not path.is_file():
        raise DamagedFileError(f"{path} is missing - {TRAIN_AGAIN}")
    if path.stat().st_size != record.size:
        existing(path)  # a pointer of Git LFS has a way out of its own
    if path.stat().st_size != record.size or file_digest(path) != record.digest:
        raise DamagedFileError(f"{path} is not what was written: it was cut or changed - {TRAIN_AGAIN}")
