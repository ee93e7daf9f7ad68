"""What a trial is: everything that determines its outcome, and its key."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from .. import NUMBERS
from ..data.targets import target
from ..data.transfer import ALL, Transfer
from ..errors import DamagedFileError, first_problem
from ..method import Run
from ..system.files import read_object, value_digest, write_text
from ..system.many_files import compact
from ..system.precision import tf32_allowed

EXTERNAL = "predictions:"  # in front of the name of a method whose predictions were made elsewhere


@dataclass(frozen=True)
class TestedSpec:
    """The dataset that is tested, where it is another one than the training slices'."""

    __test__: ClassVar[bool] = False  # not a test case, whatever pytest thinks of the name
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    dataset: str  # what the registry finds it by, as in DataSpec
    root: str | None  # the folder that it was found under
    slices: tuple[str, ...]
    patch_px: int  # side of its patches: that of the training slices'
    patch_um: float | None  # side of its windows in micrometres; None: patch_px full-resolution pixels
    transfer: Transfer


@dataclass(frozen=True)
class DataSpec:
    """Where a trial's data are and which content they must have."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    dataset: str  # what the registry finds it by: a registered name, or the absolute path of a manifest
    # empty: only slices of another dataset, which is ``tested``, are at hand
    name: str
    root: str | None  # the folder that the dataset was found under
    cache: str
    target: str
    keys: Mapping[str, str]  # slice to the key of its prepared content, in fold order
    patch_um: float | None = None  # side of the windows in micrometres; None: the dataset's patch_px pixels
    panel: str = ""  # digest of the panel in RESULTS/panels that stands for the dataset's own; empty: its own
    tested: TestedSpec | None = None  # the dataset of the test slices; None: that of the training slices

    @cached_property
    def as_json(self) -> str:
        """On one line."""
        content = {each.name: getattr(self, each.name) for each in fields(self)}
        content["tested"] = None if self.tested is None else asdict(self.tested)
        optional = ("patch_um", "tested")
        return compact({name: value for name, value in content.items() if name not in optional or value is not None})


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
    variant: str  # ``changes`` in words; empty for the preset itself
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
    changes: Mapping[str, Any] = field(default_factory=dict)  # what was changed against the preset: setting to value
    genes: str = ""  # digest of the fold's genes, where folds have panels of their own; empty: all that are prepared
    encoder: str = ""  # digest of the row of the table that its encoder is built and fed by, if it is one of pathology
    origin: str = ""  # which method of that name it is, wherever it was called from: see registry.origin
    model: str = ""  # folder of the trained model that it predicts with; empty: it trains its own
    model_digest: str = ""  # of that model's content
    execution: Mapping[str, Any] = field(default_factory=dict)  # settings that were changed and change no number

    @cached_property
    def key(self) -> str:
        """Digest of what determines the outcome. Where data and results lie, on which device it is computed, and in
        which way, where that changes no number, is not part of it.
        """
        reuse = {"trained_by": self.trained_by} if self.trained_by else {}
        reuse |= {"genes": self.genes} if self.genes else {}
        reuse |= {"encoder": self.encoder} if self.encoder else {}
        reuse |= {"model": self.model_digest} if self.model else {}
        return value_digest(
            reuse
            | {
                "numbers": NUMBERS,
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
    def repetition(self) -> str:
        """What tells it from trials of the same method on the same test slice: its seed.

        On another dataset models of several folds may be tested on one slice: then it is fold and seed.
        """
        every_slice = self.data.tested is None or self.fold == ALL
        return str(self.seed) if every_slice else f"{self.fold}-{self.seed}"

    @property
    def label(self) -> str:
        """``stnet B4 seed 0``, ``stnet epochs=10 bf16 B4 seed 0``"""
        precision = "" if self.precision == "fp32" else self.precision
        return f"{' '.join(filter(None, (self.name, self.variant, precision)))} {self.fold} seed {self.seed}"

    def as_json(self) -> str:
        """The content of its file, a field on a line."""
        texts = {each.name: compact(getattr(self, each.name)) for each in fields(self) if each.name != "data"}
        texts["data"] = self.data.as_json  # many trials share it
        return "{\n" + ",\n".join([f'  "{name}": {text}' for name, text in texts.items()]) + "\n}\n"

    def write(self, results: Path) -> None:
        write_text(results / "specs" / f"{self.key}.json", self.as_json())

    @classmethod
    def read(cls, path: Path) -> TrialSpec:
        """The spec in a file of :meth:`write`, its types checked. Raises ``DamagedFileError``."""
        with suppress(OSError, ValidationError):
            return _spec_adapter().validate_json(Path(path).read_bytes())
        again = f"delete {path} and run the command again that planned it"  # what is wrong with it is looked for now
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


def in_words(changes: Mapping[str, Any]) -> str:
    """``epochs=10, k=50``: changed settings as tables and messages have them."""
    return ", ".join(f"{setting}={value}" for setting, value in changes.items())


def trial_seed(spec: TrialSpec) -> int:
    return Run(seed=spec.seed).derive_seed(spec.name, spec.data.name, spec.data.target, spec.split, spec.fold)
