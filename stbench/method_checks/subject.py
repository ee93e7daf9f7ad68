"""The method under test, and the small slides that it is tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NotApplicable
from ..method import Method, MethodConfig, Needs, OracleSlide, Run, TestSlide, TrainingSlide, configure

N_GENES = 6
# Settings that are made small where a method has them and no config is given
SMALL: Mapping[str, Any] = {"epochs": 2, "batch_size": 8, "weights": "random"}
EXPRESSION = ("target", "counts", "genes", "total_counts")


def small_config(method: type[Method]) -> MethodConfig:
    """The config that a method is checked with: its preset "quick", cut down by ``SMALL``."""
    changes = {name: value for name, value in SMALL.items() if name in method.Config.model_fields}
    return configure(method, "quick" if "quick" in method.presets else "published", changes=changes)


class CheckFailed(Exception):  # noqa: N818 - not an error: the outcome of a check
    """A method does not do what is asked; the message says what to fix."""


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise CheckFailed(message)


def training_slide(name: str, patient: str, n_spots: int, window: int) -> TrainingSlide:
    """A slide whose first gene follows the redness of the patch; the same name gives the same slide."""
    return red_slide(name, patient, n_spots, N_GENES, window, np.random.default_rng(list(name.encode())))


def red_slide(
    name: str, patient: str, n_spots: int, n_genes: int, window: int, rng: np.random.Generator
) -> TrainingSlide:
    """A slide whose first gene follows the redness of the patch, and whose other genes follow nothing."""
    redness = rng.uniform(0, 1, n_spots)
    patches = rng.integers(60, 120, (n_spots, window, window, 3))
    patches[..., 0] += (redness * 120).astype(int)[:, None, None]
    rates = rng.uniform(0.5, 3.0, (1, n_genes)) * np.ones((n_spots, 1))
    rates[:, 0] = 0.5 + 8 * redness
    counts = rng.poisson(rates).astype(np.int32)
    columns = int(np.ceil(np.sqrt(n_spots)))
    array_xy = np.stack([np.arange(n_spots) % columns, np.arange(n_spots) // columns], axis=1).astype(np.int64) + 1
    panel_total = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return TrainingSlide(
        id=name,
        patient=patient,
        patches=patches.astype(np.uint8),
        array_xy=array_xy,
        pixel_xy=array_xy * 100.0 + 0.25,
        um_per_px=0.7,
        genes=tuple(f"GENE{i}" for i in range(n_genes)),
        target=np.log10(1 + 1e4 * counts / panel_total).astype(np.float32),
        counts=counts,
        total_counts=(counts.sum(axis=1) * 3 + 1).astype(np.int64),
    )


def _without_expression(slide: TrainingSlide, oracle: bool) -> TestSlide:
    """What the harness gives a method to predict."""
    visible: dict[str, Any] = {item.name: getattr(slide, item.name) for item in fields(TestSlide)}
    return OracleSlide(**visible, total_counts=slide.total_counts) if oracle else TestSlide(**visible)


def take_spots(slide: TestSlide, spots: Sequence[int]) -> TestSlide:
    """The slide with only these spots."""
    chosen: dict[str, Any] = {
        item.name: value[list(spots)] if isinstance(value := getattr(slide, item.name), np.ndarray) else value
        for item in fields(slide)
    }
    return type(slide)(**chosen)


def _remember(slide: WatchedSlide | WatchedOracleSlide, name: str) -> Any:
    """``__getattr__`` of a watched slide: called only where there is no such attribute."""
    if not name.startswith("__") and name != "asked":
        slide.asked.append(name)
    raise AttributeError(f"a test slide has no {name}")


@dataclass(frozen=True)
class WatchedSlide(TestSlide):
    """A test slide that remembers which attributes were asked for in vain."""

    asked: list[str] = field(default_factory=list)
    __getattr__ = _remember


@dataclass(frozen=True)
class WatchedOracleSlide(OracleSlide):
    """The same for an oracle, which is told the total counts."""

    asked: list[str] = field(default_factory=list)
    __getattr__ = _remember


@dataclass
class Subject:
    """A method with a config, what it is fitted on, and the result of fitting it once."""

    method: type[Method]
    config: MethodConfig
    place: Path = Path()  # an empty folder, for one check

    @property
    def window(self) -> int:
        """Side of the dataset's patches: what the method asks for."""
        return int(getattr(self.config, "patch_px", 32))

    def new(self) -> Method:
        return self.method(self.config)

    @cached_property
    def needs(self) -> Needs:
        return self.new().needs

    def training(self) -> list[TrainingSlide]:
        """Three slides of two patients, made anew."""
        return [
            training_slide("A1", "A", 8, self.window),
            training_slide("A2", "A", 5, self.window),
            training_slide("B1", "B", 6, self.window),
        ]

    def test(self, n_spots: int = 6, name: str = "A3") -> TestSlide:
        """A slide to predict, of patient A, made anew."""
        return _without_expression(training_slide(name, "A", n_spots, self.window), self.needs.oracle)

    def fit(self, slides: Sequence[TrainingSlide] | None = None, run: Run | None = None) -> Method:
        method = self.new()
        try:
            method.fit(self.training() if slides is None else slides, run or Run(seed=1))
        except NotApplicable as reason:
            raise CheckFailed(
                f"fit raises NotApplicable ({reason}) though there are training slides of the test slide's patient"
                " - raise it only where the fold lacks what the method needs"
            ) from reason
        return method

    @cached_property
    def fitted(self) -> Method:
        return self.fit()

    @cached_property
    def prediction(self) -> np.ndarray:
        """Of the test slide, by a method fitted with seed 1."""
        return np.array(self.fitted.predict(self.test()))


def check_prediction(prediction: Any, n_spots: int) -> None:
    expect(
        type(prediction) is np.ndarray,
        f"predict returns a {type(prediction).__name__} - return a numpy array (for a tensor: .cpu().numpy())",
    )
    shape = (n_spots, N_GENES)
    expect(
        prediction.shape == shape,
        f"predict returns shape {prediction.shape} for {n_spots} spots and {N_GENES} genes - return {shape}",
    )
    expect(prediction.dtype == np.float32, f"predict returns {prediction.dtype} - return float32")
    bad = int((~np.isfinite(prediction)).sum())
    expect(bad == 0, f"{bad} of {prediction.size} predicted values are NaN or infinite - find where they arise")
