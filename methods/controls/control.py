"""What controls have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from stbench.errors import UserError
from stbench.method import MethodConfig, Needs, Run, TestSlide, TrainingSlide
from stbench.system.files import read_object, reading_tensors, write_json

from ..layers.once_per_slide import once_per_slide

if TYPE_CHECKING:
    pass

QUANTILES = (0.1, 0.5, 0.9)  # of each colour channel


class Control(ABC):
    """What controls share: what one has learnt is a handful of arrays and facts, which are saved beside its config."""

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["method", "control"]] = "control"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}

    def __init__(self, config: Any) -> None:
        self.config = config
        self.learnt: dict[str, np.ndarray] = {}
        self.facts: dict[str, Any] = {}  # JSON-able

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def weights_label(self) -> str:
        return "none"

    @abstractmethod
    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None: ...

    @abstractmethod
    def predict(self, slide: TestSlide) -> np.ndarray: ...

    def save(self, directory: Path) -> None:
        from safetensors.numpy import save_file

        config = self.config.model_dump(mode="json")
        write_json(directory / "control.json", {"name": self.name, "config": config, "facts": self.facts})
        arrays = {key: np.ascontiguousarray(array) for key, array in self.learnt.items()}
        save_file(arrays, directory / "learnt.safetensors")

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        from safetensors.numpy import load_file

        if not (directory / "control.json").is_file():
            raise UserError(f"{directory} holds no saved control - give a trial's model folder")
        again = "restore it, or train again"
        saved = read_object(directory / "control.json", again)
        if not {"name", "config", "facts"} <= saved.keys():
            raise UserError(f"{directory / 'control.json'} is not a saved control - {again}")
        if saved["name"] != cls.name:
            raise UserError(f"{directory} holds {saved['name']}, not {cls.name} - load it as what it is")
        control = cls(cls.Config(**saved["config"]))
        control.facts = saved["facts"]
        with reading_tensors(directory / "learnt.safetensors"):
            control.learnt = load_file(directory / "learnt.safetensors")
        return control


def joined_targets(slides: Sequence[TrainingSlide]) -> np.ndarray:
    """(spots of all slides, n_genes) float32."""
    return np.concatenate([slide.target for slide in slides])


def normalised_positions(slide: TestSlide) -> np.ndarray:
    """(n_spots, 2) float64 in [0, 1]: per slide and axis, array positions minus their minimum over their extent.

    So slides of different arrays, resolutions and tissue sizes lie on each other. An axis without extent is 0.5.
    """
    positions = slide.array_xy.astype(np.float64)
    low, extent = positions.min(axis=0), np.ptp(positions, axis=0)
    return np.where(extent > 0, (positions - low) / np.where(extent > 0, extent, 1), 0.5)


def name_order(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorts names with their numbers as numbers: ``P2_rep2`` before ``P2_rep10``."""
    parts = re.findall(r"\d+|\D+", name)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts)


def colours(slide: TestSlide) -> np.ndarray:
    return once_per_slide(slide, "colour statistics", lambda: colour_statistics(slide.patches))


def colour_statistics(patches: np.ndarray) -> np.ndarray:
    """(n_spots, 15) float64 from (n_spots, side, side, 3) uint8: per channel the mean, the standard deviation and the
    10 %, 50 % and 90 % quantiles (the smallest value that this share of the pixels does not exceed), in units of 255.
    """
    values = np.arange(256)
    channel = 256 * np.arange(3)
    n_pixels = patches.shape[1] * patches.shape[2]
    rows = []
    for patch in patches:
        # how often each value occurs in each channel gives all statistics exactly
        counts = np.bincount((patch + channel).ravel(), minlength=768).reshape(3, 256)
        total, squares = counts @ values, counts @ values**2
        std = np.sqrt(n_pixels * squares - total**2) / n_pixels
        not_above = np.cumsum(counts, axis=1)
        quantiles = [(not_above < share * n_pixels).sum(axis=1) for share in QUANTILES]
        rows.append(np.concatenate([total / n_pixels, std, *quantiles]))
    return np.stack(rows) / 255
