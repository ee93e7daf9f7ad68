"""What the image contributes: which patches are exchanged, and what is said of the prediction before and after."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from exchanging import predict_exchanged
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from stbench.method import TestSlide, TrainingSlide
from stbench.scores.exchange import (
    COLUMNS,
    exchange_scores,
    movement,
    order_of_exchange,
    scores_of_exchange,
)

PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"
DEMO = ("--dataset", "demo", "--slices", "P1a,P1b,P2a", "--no-mlflow")
GENES = tuple("abcdef")


def _method(predict: Callable[[TestSlide], np.ndarray]) -> Any:
    return SimpleNamespace(predict=predict)


def redness(slide: TestSlide) -> np.ndarray:
    return np.repeat(slide.patches[..., 0].mean(axis=(1, 2))[:, None] / 50, 6, axis=1).astype(np.float32)


def place(slide: TestSlide) -> np.ndarray:
    return np.repeat(slide.array_xy[:, :1].astype(np.float32), 6, axis=1)


@pytest.fixture
def slide(make_training_slides: Callable[..., list[TrainingSlide]]) -> TrainingSlide:
    return make_training_slides(n_slides=1, n_spots=24)[0]


@given(n_spots=st.integers(2, 60), seed=st.integers(0, 2**32))
def test_every_spot_is_given_another_spots_patch_and_every_patch_is_given_once(n_spots: int, seed: int) -> None:
    given_ = order_of_exchange(n_spots, np.random.default_rng(seed))
    assert sorted(given_) == list(range(n_spots))
    assert (given_ != np.arange(n_spots)).all()


def test_every_other_spots_patch_is_equally_likely() -> None:
    rng = np.random.default_rng(0)
    first = np.bincount([order_of_exchange(5, rng)[0] for _ in range(4000)], minlength=5)
    assert first[0] == 0
    np.testing.assert_allclose(first[1:] / 4000, 0.25, atol=0.03)


def test_patches_are_exchanged_and_all_else_stays_where_it_is(slide: TrainingSlide) -> None:
    seen: list[TestSlide] = []

    def remember(given_: TestSlide) -> np.ndarray:
        seen.append(given_)
        return redness(given_)

    predict_exchanged(_method(remember), slide, "made up", seed=0)
    (after,) = seen
    assert not any((slide.patches[i] == after.patches[i]).all() for i in range(slide.n_spots))
    np.testing.assert_array_equal(
        np.sort(slide.patches.sum(axis=(1, 2, 3))), np.sort(after.patches.sum(axis=(1, 2, 3)))
    )
    np.testing.assert_array_equal(after.array_xy, slide.array_xy)
    np.testing.assert_array_equal(after.pixel_xy, slide.pixel_xy)


def test_the_exchange_follows_from_seed_dataset_and_slice_alone(slide: TrainingSlide) -> None:
    def once(of: TestSlide = slide, dataset: str = "made up", seed: int = 0) -> np.ndarray:
        exchanged = predict_exchanged(_method(redness), of, dataset, seed)
        assert exchanged is not None
        return exchanged

    np.testing.assert_array_equal(once(), once())
    for other in (once(seed=1), once(dataset="another"), once(replace(slide, id="another"))):
        assert (other != once()).any()


def test_the_movement_of_three_spots_worked_out_by_hand() -> None:
    prediction = np.array([[0.0, 1.0], [2.0, 1.0], [4.0, 1.0]])
    exchanged = np.array([[1.0, 1.0], [2.0, 3.0], [4.0, 1.0]])
    # changes 1 and 2: 1 + 4 = 5; spread of the first gene about 2: 4 + 0 + 4 = 8, of the second none
    assert movement(prediction, exchanged) == pytest.approx(math.sqrt(5 / 8))


def test_a_prediction_from_its_own_patch_moves_by_the_distance_of_two_spots() -> None:
    rng = np.random.default_rng(0)
    prediction = rng.normal(5, [1, 2, 0.1], (2000, 3))
    assert movement(prediction, prediction[order_of_exchange(2000, rng)]) == pytest.approx(math.sqrt(2), abs=0.03)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e3])
def test_the_movement_has_no_unit_and_no_origin(factor: float) -> None:
    rng = np.random.default_rng(1)
    before, after = rng.normal(size=(2, 30, 4))
    assert movement(factor * (before + 7), factor * (after + 7)) == pytest.approx(movement(before, after))


def test_the_prediction_of_positions_stays_and_keeps_its_score(slide: TrainingSlide) -> None:
    exchanged = predict_exchanged(_method(place), slide, "made up", seed=0)
    assert exchanged is not None
    scores = exchange_scores(slide.target, place(slide), exchanged, GENES)
    assert scores["exchanged_move"] == 0
    expected = np.mean([pearsonr(place(slide)[:, i], slide.target[:, i])[0] for i in range(6)])
    assert scores["exchanged_pcc_acg"] == pytest.approx(expected)
    assert scores["exchanged_strict_pcc_acg"] == pytest.approx(expected)


def test_a_constant_prediction_has_no_spread_to_move_by_and_is_zero_in_the_strict_pack(slide: TrainingSlide) -> None:
    constant = np.full_like(slide.target, 0.1)
    scores = exchange_scores(slide.target, constant, constant, GENES)
    assert math.isnan(scores["exchanged_move"])
    assert math.isnan(scores["exchanged_pcc_acg"])
    assert scores["exchanged_strict_pcc_acg"] == 0


def test_what_rounding_of_a_mean_leaves_is_no_spread() -> None:
    constant = np.full((3, 2), 0.1)
    assert constant.mean(axis=0)[0] != 0.1
    assert math.isnan(movement(constant, constant + 1))


def test_one_spot_has_nothing_to_exchange_with_and_the_reason_is_told(
    make_training_slides: Callable[..., list[TrainingSlide]],
) -> None:
    (one,) = make_training_slides(n_slides=1, n_spots=1)
    exchanged = predict_exchanged(_method(redness), one, "made up", seed=0)
    assert exchanged is None
    scores, (why,) = scores_of_exchange("S1", one.target, redness(one), exchanged, GENES)
    assert set(scores) == set(COLUMNS)
    assert all(math.isnan(value) for value in scores.values())
    assert "slice S1 has one spot" in why


def test_an_exchanged_prediction_that_is_not_finite_leaves_a_note_and_no_number(slide: TrainingSlide) -> None:
    broken = redness(slide)
    broken[3, 1] = np.nan
    scores, (why,) = scores_of_exchange("S1", slide.target, redness(slide), broken, GENES)
    assert all(math.isnan(value) for value in scores.values())
    assert "S1" in why
    assert "gene b" in why


def test_a_run_keeps_the_numbers_of_every_trial(tmp_path: Path, stbench_command: Callable) -> None:
    command = ("run", "--methods", f"{PROBE},training_mean,position_knn", *DEMO, "--seeds", "0,1")
    for out in ("one", "two"):
        assert stbench_command(*command, "--out", tmp_path / out).code == 0
    summary = pd.read_csv(tmp_path / "one" / "summary.csv")
    again = pd.read_csv(tmp_path / "two" / "summary.csv")
    pd.testing.assert_frame_equal(summary[list(COLUMNS)], again[list(COLUMNS)])
    of = {name: rows for name, rows in summary.groupby("method")}
    assert of["training_mean"]["exchanged_move"].isna().all()
    assert (of["training_mean"]["exchanged_strict_pcc_acg"] == 0).all()
    assert (of["position_knn"]["exchanged_move"] == 0).all()
    np.testing.assert_array_equal(of["position_knn"]["exchanged_pcc_acg"], of["position_knn"]["pcc_acg"])
    assert of["probe"]["exchanged_move"].between(1.2, 1.65).all()  # it sees the patch alone
    assert (of["probe"]["exchanged_pcc_acg"].abs() < of["probe"]["pcc_acg"].abs()).all()
    by_seed = of["probe"].set_index(["slice", "seed"])["exchanged_move"].unstack()  # noqa: PD010 - no averaging
    assert (by_seed[0] != by_seed[1]).all()


def test_an_own_prediction_scored_as_if_made_elsewhere_has_no_such_number(
    tmp_path: Path, stbench_command: Callable
) -> None:
    results = tmp_path / "r"
    assert stbench_command("run", "--methods", PROBE, *DEMO, "--out", results).code == 0
    files = [path for path in (results / "trials").rglob("predictions/*.h5ad")]
    scored = stbench_command("score", *files, *DEMO[:-1], "--name", "theirs", "--out", results)
    assert scored.code == 0, scored.err
    summary = pd.read_csv(results / "summary.csv")
    theirs = summary["method"] == "theirs"
    assert summary.loc[theirs, "pcc_acg"].notna().all()
    assert summary.loc[theirs, list(COLUMNS)].isna().all(axis=None)
    assert summary.loc[~theirs, list(COLUMNS)].notna().all(axis=None)
