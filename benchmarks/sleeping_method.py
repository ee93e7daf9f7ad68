"""A method that learns nothing, in two to four seconds: what an engine makes of its slots shows in nothing else."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from stbench.method import MethodConfig, Needs, Run, TestSlide, TrainingSlide


class Sleeping:
    name: ClassVar[str] = "sleeping"
    title: ClassVar[str] = "Sleeping"
    kind: ClassVar[Literal["method", "control"]] = "control"
    Config: ClassVar[type[MethodConfig]] = MethodConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    needs = Needs()
    weights_label = "none"

    def __init__(self, config: MethodConfig) -> None:
        self.n_genes = 0

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.n_genes = len(slides[0].genes)
        time.sleep(run.numpy_generator("sleep").uniform(2.0, 4.0))

    def predict(self, slide: TestSlide) -> np.ndarray:
        return np.zeros((len(slide.patches), self.n_genes), dtype=np.float32)

    def save(self, directory: Path) -> None:
        (directory / "n_genes").write_text(str(self.n_genes), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Sleeping:
        method = cls(MethodConfig())
        method.n_genes = int((directory / "n_genes").read_text(encoding="utf-8"))
        return method
