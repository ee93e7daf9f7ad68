"""Each alarm is tripped by a method built to trip it, and by no healthy one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stbench.alarms import after_exchange, after_prediction, after_training
from stbench.exchange import predict_exchanged
from stbench.method import Needs, TestSlide, TrainingSlide

RNG = np.random.default_rng(0)


def _method(predict: Callable[[TestSlide], np.ndarray], whole_slide: bool = False, **diagnostics: float) -> Any:
    return SimpleNamespace(predict=predict, needs=Needs(whole_slide=whole_slide), diagnostics=diagnostics)


def redness(slide: TestSlide) -> np.ndarray:
    """A healthy prediction: every gene follows the patch."""
    return np.repeat(slide.patches[..., 0].mean(axis=(1, 2))[:, None] / 50, 6, axis=1).astype(np.float32)


@pytest.fixture
def slide(make_training_slides: Callable[..., list[TrainingSlide]]) -> TrainingSlide:
    return make_training_slides(n_slides=1, n_spots=24)[0]


def _kinds(method: Any, slide: TrainingSlide, truth: np.ndarray | None = None) -> set[str]:
    prediction = method.predict(slide)
    alarms = [*after_prediction(method, slide, prediction, slide.target if truth is None else truth, RNG)]
    exchanged = predict_exchanged(method, slide, "made up", seed=0)
    if exchanged is not None:
        alarms += after_exchange(slide, prediction, exchanged)
    return {alarm.kind for alarm in alarms}


def test_a_healthy_method_rings_nothing(slide: TrainingSlide) -> None:
    assert _kinds(_method(redness), slide) == set()
    history = {1: {"loss": 5.0}, 2: {"loss": 1.0}}
    assert list(after_training(_method(redness, contrastive_batch=128, retrieval_rank=0.1), history)) == []


def test_a_flat_prediction_rings(slide: TrainingSlide) -> None:
    kinds = _kinds(_method(lambda seen: redness(seen) * 1e-3), slide)
    assert kinds == {"the prediction hardly varies in most genes"}


def test_the_flat_alarm_is_about_variance_not_about_standard_deviation(slide: TrainingSlide) -> None:
    truth = redness(slide)
    for factor, rings in ((0.25, False), (0.2, True)):  # 0.25² = 6.3 % and 0.2² = 4 % of the truth's variance
        method = _method(lambda seen, factor=factor: redness(seen) * np.float32(factor))
        assert bool(_kinds(method, slide, truth)) is rings


def test_a_method_that_looks_only_at_positions_rings(slide: TrainingSlide) -> None:
    def position(seen: TestSlide) -> np.ndarray:
        return np.repeat(seen.array_xy[:, :1].astype(np.float32), 6, axis=1)

    assert _kinds(_method(position), slide) == {"the prediction does not depend on the image"}


def test_a_method_that_normalises_over_the_batch_rings(slide: TrainingSlide) -> None:
    def standardised(seen: TestSlide) -> np.ndarray:
        value = redness(seen)
        return (value - value.mean(axis=0)) / value.std(axis=0)

    ringing = {"the prediction of a spot depends on the other spots of its batch"}
    assert _kinds(_method(standardised), slide) == ringing
    assert _kinds(_method(standardised, whole_slide=True), slide) == set()  # there it is the method's idea


@pytest.mark.parametrize(
    ("diagnostics", "history", "kind"),
    [
        ({"contrastive_batch": 128}, {1: {"loss": math.log(128) * 1.019}}, "the contrastive loss is that of guessing"),
        ({"retrieval_rank": 0.49}, {}, "retrieval is no better than guessing"),
        ({}, {1: {"loss": 1.0}, 2: {"loss": float("nan")}}, "a training value was not finite"),
    ],
)
def test_alarms_on_the_training(diagnostics: dict[str, float], history: Mapping, kind: str) -> None:
    assert [alarm.kind for alarm in after_training(_method(redness, **diagnostics), history)] == [kind]


def test_a_contrastive_loss_away_from_chance_rings_nothing() -> None:
    history = {1: {"loss": math.log(128) * 1.021}}
    assert list(after_training(_method(redness, contrastive_batch=128), history)) == []


def test_tiny_slides_are_left_alone(make_training_slides: Callable[..., list[TrainingSlide]]) -> None:
    (one,) = make_training_slides(n_slides=1, n_spots=1)
    assert _kinds(_method(redness), one) == set()
