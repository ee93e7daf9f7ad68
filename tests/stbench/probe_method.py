"""A method that tests load by path: the mean of the training targets, or whatever trouble its config asks for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from stbench.errors import NotApplicable
from stbench.method import MethodConfig, Needs, Run, TestSlide, TrainingSlide


class ProbeConfig(MethodConfig):
    trouble: Literal["none", "raise", "nan", "shape", "not_applicable", "stop"] = "none"
    on: str = ""  # only when this slice is predicted (trouble in predict) or trained on (trouble in fit); empty: always
    shift: float = 0.0  # added to every prediction


class Probe:
    name: ClassVar[str] = "probe"
    title: ClassVar[str] = "Probe"
    kind: ClassVar[Literal["method", "control"]] = "method"
    Config: ClassVar[type[MethodConfig]] = ProbeConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}

    def __init__(self, config: ProbeConfig) -> None:
        self.config = config
        self.mean = np.zeros(0, dtype=np.float32)

    @property
    def needs(self) -> Needs:
        return Needs()

    @property
    def weights_label(self) -> str:
        return "none"

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        trained_on = not self.config.on or self.config.on in [slide.id for slide in slides]
        if self.config.trouble == "not_applicable" and trained_on:
            raise NotApplicable("the probe was asked not to apply")
        self.mean = np.concatenate([slide.target for slide in slides]).mean(axis=0)
        for epoch in (1, 2):
            run.log(epoch, loss=1.0 / epoch, seconds=0.5)
            run.progress(epoch, 2, "epochs")
        run.note("the probe was here")

    def predict(self, slide: TestSlide) -> np.ndarray:
        prediction = np.repeat(self.mean[None] + np.float32(self.config.shift), slide.n_spots, axis=0)
        prediction += slide.patches.mean(axis=(1, 2, 3))[:, None] / 255
        if self.config.on in ("", slide.id):
            if self.config.trouble == "raise":
                raise RuntimeError("the probe was asked\nto raise")
            if self.config.trouble == "nan":
                prediction[0, 0] = np.nan
            if self.config.trouble == "shape":
                return prediction[:-1]
        return prediction

    def save(self, directory: Path) -> None:
        np.save(directory / "mean.npy", self.mean)
        (directory / "config.json").write_text(self.config.model_dump_json())

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Probe:
        method = cls(ProbeConfig(**json.loads((directory / "config.json").read_text())))
        method.mean = np.load(directory / "mean.npy")
        return method
