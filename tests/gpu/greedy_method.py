"""A method that tests load by path: it asks the device for more memory than can be addressed, or learns a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch

from stbench.method import MethodConfig, Needs, Run, TestSlide, TrainingSlide


class GreedyConfig(MethodConfig):
    without: str = ""  # the slice without which too much is asked for


class Greedy:
    name: ClassVar[str] = "greedy"
    title: ClassVar[str] = "Greedy"
    kind: ClassVar[Literal["method", "control"]] = "method"
    Config: ClassVar[type[MethodConfig]] = GreedyConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quick": {}}
    weights_label = "none"

    def __init__(self, config: GreedyConfig) -> None:
        self.config = config

    @property
    def needs(self) -> Needs:
        return Needs()

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.target = torch.cat([torch.from_numpy(np.array(slide.target)) for slide in slides]).to(run.device)
        if self.config.without not in [slide.id for slide in slides]:
            torch.empty(2**48, dtype=torch.uint8, device=run.device)
        run.log(1, loss=1.0)

    def predict(self, slide: TestSlide) -> np.ndarray:
        mean = self.target.mean(dim=0).cpu().numpy()
        return np.repeat(mean[None], slide.n_spots, axis=0) + slide.patches.mean(axis=(1, 2, 3))[:, None] / 255

    def save(self, directory: Path) -> None:
        np.save(directory / "target.npy", self.target.cpu().numpy())

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        method = cls(GreedyConfig())
        method.target = torch.from_numpy(np.load(directory / "target.npy")).to(device)
        return method
