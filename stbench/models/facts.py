"""What a model folder says of its model: ``model.json``, read by whoever uses the model elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..errors import DamagedFileError, UserError, first_problem
from ..system.files import read_object, write_json
from ..system.precision import Precision

FORMAT = 1  # raise it whenever what is written below changes
FACTS = "model.json"
TRAIN_AGAIN = "restore it, or train the model again"


@dataclass(frozen=True)
class SlideFacts:
    """A training slide: what a new image is held against."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    n_spots: int
    um_per_px: float | None  # of full resolution; None: unknown
    window_px: float  # full-resolution pixels that a side of its windows covers
    spot_diameter: float  # full-resolution pixels
    image_level: str  # full, hires or lowres
    mean_rgb: tuple[float, float, float]  # of its patches' mean colours, 0 to 255
    std_rgb: tuple[float, float, float]  # of its patches' mean colours, from spot to spot


@dataclass(frozen=True)
class FileFacts:
    """A file of the model folder, as it was written."""

    size: int  # bytes
    digest: str  # see :func:`stbench.system.files.file_digest`


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Where a trained model comes from, what it predicts from what, and how well it did; JSON-able."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    format: int = FORMAT
    method: str  # what the registry finds it by, as it was typed: a registered name, or path.py:Class
    origin: str  # the same, wherever it is asked from: see registry.origin
    name: str
    title: str
    kind: str  # method or control
    preset: str
    variant: str  # what was changed against the preset, in words
    config: Mapping[str, Any]
    method_source: str  # digest of the method's code
    weights: str  # label of the pretrained weights that it started from
    licence: str = ""  # of these weights, where it is known
    dataset: str
    dataset_title: str
    split: str
    fold: str
    seed: int
    trial_seed: int  # that all random streams of the trial come from
    train: tuple[str, ...]  # slices
    test: tuple[str, ...]
    patients: Mapping[str, str]  # of all these slices
    genes: tuple[str, ...]  # the panel: columns of what it predicts
    target: str
    formula: str  # of the target
    patch_px: int  # side of a patch, as the method is given it
    patch_um: float | None  # side of the windows in micrometres; None: they have patch_px full-resolution pixels
    slides: Mapping[str, SlideFacts]  # by training slice
    precision: Precision
    device: str  # that it was trained on
    key: str  # of its trial
    scores: Mapping[str, Mapping[str, float | None]]  # test slice to pcc_acg, pcc_heg, mse, mae; None: not defined
    leak: str  # what it does with a test slide's own expression (Needs.leak); empty: nothing
    oracle: bool  # it needs a test slide's total counts
    same_patient: bool  # it needs a training slide of the test slide's patient
    stbench: str  # version
    torch: str  # version
    numbers: int  # stbench.NUMBERS
    files: Mapping[str, FileFacts] = field(default_factory=dict)  # the folder's others, by relative path

    @property
    def label(self) -> str:
        """``ridge B4 seed 0``: what messages call the model."""
        return f"{' '.join(filter(None, (self.name, self.variant)))} {self.fold} seed {self.seed}"

    def write(self, directory: Path) -> None:
        write_json(directory / FACTS, asdict(self))

    @classmethod
    def read(cls, directory: Path) -> ModelFacts:
        """Of a model folder. Raises ``UserError`` for another format, ``DamagedFileError`` for what is none."""
        path = directory / FACTS
        fields = read_object(path, TRAIN_AGAIN)
        form = fields.get("format")
        if form != FORMAT:
            writer = fields.get("stbench")
            raise UserError(
                f"{path} is of format {form!r}, and this stbench reads {FORMAT} - read it with the version that wrote "
                f"it{f' ({writer})' if writer else ''}, or train the model again"
            )
        try:
            return _adapter().validate_python(fields)
        except ValidationError as error:
            raise DamagedFileError(f"{path} was changed ({first_problem(error)}) - {TRAIN_AGAIN}") from error


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[ModelFacts]:
    return TypeAdapter(ModelFacts)
