"""Each alarm is tripped by a method built to trip it, and by no healthy one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from exchanging import predict_exchanged

from stbench.errors import MethodFailed
from stbench.method import Needs, TestSlide, TrainingSlide
from stbench.scores.alarms import after_exchange, after_prediction, after_training, on_another_scale
from stbench.trials.asking import predict_again

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
    truth = slide.target if truth is None else truth
    again = predict_again(method, {"S": slide}, "made up", 0, lambda name: RNG)
    alarms = [*after_prediction(slide, prediction, truth, again.parts.get("S"))]
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
        ({}, {1: {"loss": 3.0}, 2: {"loss": 0.5}, 3: {"loss": 2.7e18}}, "the training diverged"),
    ],
)
def test_what_a_training_says_of_itself_rings_its_own_alarm(
    diagnostics: dict[str, float], history: Mapping, kind: str
) -> None:
    assert [alarm.kind for alarm in after_training(_method(redness, **diagnostics), history)] == [kind]


@pytest.mark.parametrize(("change", "rings"), [(0.5e-4, False), (2e-4, True)])
@pytest.mark.parametrize("spread", [0.5, 20.0])
def test_how_much_of_a_change_counts_as_dependence_on_the_batch(
    change: float, rings: bool, spread: float, slide: TrainingSlide
) -> None:
    """1e-4 of the prediction's spread; below a spread of 1, which is that of most targets, 1e-4 itself."""
    base = redness(slide).astype(np.float64)
    scale = spread / base.std()

    def predict(seen: TestSlide) -> np.ndarray:
        value = redness(seen).astype(np.float64) * scale
        return value + (change * max(1.0, spread) if seen.n_spots < slide.n_spots else 0)

    again = predict_again(_method(predict), {"S": slide}, "made up", 0, lambda name: RNG)
    kinds = {alarm.kind for alarm in after_prediction(slide, base * scale, base, again.parts["S"])}
    assert ("the prediction of a spot depends on the other spots of its batch" in kinds) is rings


@pytest.mark.parametrize(("change", "rings"), [(0.0, True), (0.9e-6, True), (1.2e-6, False), (1.0, False)])
def test_how_little_of_a_movement_counts_as_none(change: float, rings: bool, slide: TrainingSlide) -> None:
    """A millionth of the prediction's spread at the spot that moves most: what rounding does."""
    prediction = np.random.default_rng(0).normal(3, 5, slide.target.shape)
    exchanged = prediction.copy()
    exchanged[4, 2] += change * prediction.std()
    assert bool(list(after_exchange(slide, prediction, exchanged))) is rings


def test_three_spots_are_enough_to_see_that_the_image_is_not_used(
    make_training_slides: Callable[..., list[TrainingSlide]],
) -> None:
    for n_spots, rings in ((2, False), (3, True)):
        (few,) = make_training_slides(n_slides=1, n_spots=n_spots)
        blind = np.arange(n_spots * 6, dtype=float).reshape(n_spots, 6)
        assert bool(list(after_exchange(few, blind, blind))) is rings


@pytest.mark.parametrize(("rank", "rings"), [(0.449, False), (0.45, True)])
def test_a_rank_within_a_twentieth_of_guessing_rings(rank: float, rings: bool) -> None:
    assert bool(list(after_training(_method(redness, retrieval_rank=rank), {}))) is rings


def test_the_last_epochs_loss_is_the_one_that_is_compared_with_guessing() -> None:
    guessing, learnt = {"loss": math.log(64)}, {"loss": 1.0}
    method = _method(redness, contrastive_batch=64)
    assert list(after_training(method, {2: learnt, 1: guessing})) == []
    assert len(list(after_training(method, {2: guessing, 1: learnt}))) == 1


def test_a_contrastive_loss_away_from_chance_rings_nothing() -> None:
    history = {1: {"loss": math.log(128) * 1.021}}
    assert list(after_training(_method(redness, contrastive_batch=128), history)) == []


def test_tiny_slides_are_left_alone(make_training_slides: Callable[..., list[TrainingSlide]]) -> None:
    (one,) = make_training_slides(n_slides=1, n_spots=1)
    assert _kinds(_method(redness), one) == set()


def test_a_loss_that_rises_a_little_or_starts_at_nothing_is_no_divergence() -> None:
    for losses in ([1.0, 9.9], [0.0, 5.0], [-3.0, 4.0], [2.7e18, 1.0], [5.0]):
        history = {epoch: {"loss": loss} for epoch, loss in enumerate(losses, start=1)}
        assert list(after_training(_method(redness), history)) == []


@pytest.mark.parametrize(
    ("low", "high", "rings"), [(0, 4, False), (-39, 43, False), (0, 45, True), (-41, 4, True), (0, 2.7e18, True)]
)
def test_predictions_far_outside_the_targets_range_ring(low: float, high: float, rings: bool) -> None:
    """The target lies between 0 and 4: more than ten times that beyond either end is another scale."""
    truth = np.array([[0.0, 4.0], [1.0, 2.0]])
    alarms = list(on_another_scale("S1", np.array([[low, 1.0], [high, 1.0]]), truth))
    assert [alarm.kind for alarm in alarms] == ["predictions lie far outside the target's range"] * rings
    if rings:
        assert alarms[0].text == f"S1: predictions from {low:.3g} to {high:.3g}, the target from 0 to 4"


@pytest.mark.parametrize("diagnostics", [None, [1], {"contrastive_batch": "many"}, {"contrastive_batch": 0}])
def test_diagnostics_that_are_none_are_the_methods_failure(diagnostics: Any) -> None:
    with pytest.raises(MethodFailed, match=r"its (diagnostics are|contrastive_batch is)"):
        list(after_training(SimpleNamespace(diagnostics=diagnostics), {}))
