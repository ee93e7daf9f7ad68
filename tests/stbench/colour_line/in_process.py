"""The line through mean colours as a method of Python."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np

from stbench.method import MethodConfig, Needs, Run, TestSlide, TrainingSlide

sys.path.insert(0, str(Path(__file__).parent))
import colour_line

sys.path.pop(0)


class ColourLine:
    name: ClassVar = "colour_line_here"
    title: ClassVar = "Colour line, in this process"
    kind: ClassVar = "method"
    presets: ClassVar = {"published": {}, "quick": {}}
    weights_label = "none"
    needs = Needs()

    class Config(MethodConfig):
        penalty: float = 0.5

    def __init__(self, config: Config) -> None:
        self.config = config

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        rows = [row for slide in slides for row in colour_line.colours(slide.patches)]
        self.coefficients = colour_line.fit(rows, np.concatenate([s.target for s in slides]), self.config.penalty)

    def predict(self, slide: TestSlide) -> np.ndarray:
        rows = colour_line.colours(slide.patches)
        return np.array(colour_line.predict(rows, self.coefficients), dtype=np.float32)

    def save(self, directory: Path) -> None:
        (directory / "line.json").write_text(json.dumps([self.config.penalty, self.coefficients]), encoding="utf-8")

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> ColourLine:
        penalty, coefficients = json.loads((directory / "line.json").read_text(encoding="utf-8"))
        method = cls(cls.Config(penalty=penalty))
        method.coefficients = coefficients
        return method
