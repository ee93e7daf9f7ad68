"""Spread, smoothness and structure of gene maps, against scipy, dense formulas and cases done by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stbench.scores import pieces
from stbench.scores.exchange import movement
from stbench.scores.metrics import score_slide
from stbench.scores.sharpness import COLUMNS, evenly_spread, moran, sharpness, structural_similarity
from stbench.slides.lattice import direct_neighbours, gaussian_window, pitch


def _square(side: int, step: float = 290.0) -> np.ndarray:
    return np.stack(np.meshgrid(np.arange(side), np.arange(side)), axis=-1).reshape(-1, 2) * step


def _hexagonal(rows: int, columns: int, step: float = 100.0) -> np.ndarray:
    row, column = (axis.ravel() for axis in np.mgrid[:rows, :columns])
    return np.stack([column + 0.5 * (row % 2), row * np.sqrt(0.75)], axis=1) * step


def _maps(n_spots: int, n_genes: int = 7, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.log1p(rng.poisson(2, (n_spots, n_genes)))  # many ties
    return truth, 0.4 * truth + rng.normal(0, 0.2, truth.shape)


def test_the_pitch_is_the_distance_to_the_nearest_spot() -> None:
    assert pitch(_square(5)) == pytest.approx(290)
    assert pitch(_hexagonal(5, 6)) == pytest.approx(100)
    assert np.isnan(pitch(np.zeros((3, 2))))


def test_a_square_array_has_four_neighbours_and_a_hexagonal_one_six() -> None:
    square = direct_neighbours(_square(5)).sum(axis=1).reshape(5, 5)
    assert (square[1:-1, 1:-1] == 4).all()
    assert square[0, 0] == 2
    hexagonal = direct_neighbours(_hexagonal(6, 6)).sum(axis=1).reshape(6, 6)
    assert (hexagonal[1:-1, 1:-1] == 6).all()


def test_positions_that_scatter_do_not_change_who_is_a_neighbour() -> None:
    jitter = np.random.default_rng(0).uniform(-10, 10, (100, 2))  # px; measured positions are a few px off
    difference = direct_neighbours(_square(10) + jitter) - direct_neighbours(_square(10))
    assert abs(difference).sum() == 0


def test_moran_of_four_spots_in_a_row_is_what_one_calculates_by_hand() -> None:
    line = np.stack([np.arange(4) * 5.0, np.zeros(4)], axis=1)
    # z = (-½, -½, ½, ½), means of neighbours (-½, 0, 0, ½): (¼ + ¼) / 1
    assert moran(np.array([[0.0], [0], [1], [1]]), direct_neighbours(line))[0] == pytest.approx(0.5)


def test_a_chequered_map_is_minus_one_and_a_gradient_near_one() -> None:
    positions = _square(12)
    x, y = (positions / 290).T
    values = np.stack([(x + y) % 2, x + 0.3 * y], axis=1)
    chequered, gradient = moran(values, direct_neighbours(positions))
    assert chequered == pytest.approx(-1)
    assert 0.8 < gradient < 1


def test_moran_is_the_dense_double_sum() -> None:
    positions = np.delete(_hexagonal(7, 6), [3, 11, 20], axis=0)
    values, _ = _maps(len(positions))
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    weights = ((distance > 0) & (distance < 120)).astype(float)
    weights /= weights.sum(axis=1, keepdims=True)
    z = values - values.mean(axis=0)
    dense = len(z) / weights.sum() * np.einsum("ij,ig,jg->g", weights, z, z) / (z**2).sum(axis=0)
    np.testing.assert_allclose(moran(values, direct_neighbours(positions)), dense, rtol=1e-10)


def test_an_isolated_spot_is_left_out() -> None:
    positions = _square(6)
    values, _ = _maps(len(positions))
    far = np.vstack([positions, [[1e5, 1e5]]])
    with_it = np.vstack([values, np.full((1, values.shape[1]), 50.0)])
    np.testing.assert_allclose(moran(with_it, direct_neighbours(far)), moran(values, direct_neighbours(positions)))


def test_spots_without_any_neighbour_have_no_moran() -> None:
    assert np.isnan(moran(np.array([[1.0, 2.0]]), direct_neighbours(np.zeros((1, 2))))).all()


def test_every_row_of_the_window_sums_to_one_and_falls_off() -> None:
    window = gaussian_window(_square(15)).toarray()
    np.testing.assert_allclose(window.sum(axis=1), 1)
    centre = window[7 * 15 + 7].reshape(15, 15)
    assert centre[7, 7] > centre[7, 8] > centre[8, 8] > centre[7, 9]
    assert centre[7, 9] / centre[7, 7] == pytest.approx(np.exp(-0.5 * (2 / 1.5) ** 2))
    assert centre[7, 1] == 0  # six pitches away


def _similarity_spot_by_spot(x: np.ndarray, y: np.ndarray, positions: np.ndarray, step: float) -> float:
    c1, c2 = (0.01 * np.ptp(x)) ** 2, (0.03 * np.ptp(x)) ** 2
    found = []
    for place in positions:
        distance = np.linalg.norm(positions - place, axis=1) / step
        w = np.where(distance < 5.001, np.exp(-(distance**2) / (2 * 1.5**2)), 0)
        w /= w.sum()
        mx, my = w @ x, w @ y
        vx, vy, cov = w @ (x - mx) ** 2, w @ (y - my) ** 2, w @ ((x - mx) * (y - my))
        found.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    return float(np.mean(found))


def test_structural_similarity_is_the_published_formula_spot_by_spot() -> None:
    positions = np.delete(_square(9), [0, 40, 41], axis=0)
    truth, prediction = _maps(len(positions), n_genes=200)  # more than are worked on at once
    found = structural_similarity(truth, prediction, gaussian_window(positions))
    for gene in (0, 130, 199):
        expected = _similarity_spot_by_spot(truth[:, gene], prediction[:, gene], positions, 290)
        assert found[gene] == pytest.approx(expected, rel=1e-9)


def test_a_map_is_like_itself_and_unlike_its_negative() -> None:
    positions = _square(8)
    truth, _ = _maps(len(positions))
    window = gaussian_window(positions)
    np.testing.assert_allclose(structural_similarity(truth, truth, window), 1)
    assert (structural_similarity(truth, 2 * truth.mean(axis=0) - truth, window) < 0).all()


def test_columns_agree_with_numpy_and_scipy() -> None:
    positions = _hexagonal(8, 9)
    truth, prediction = _maps(len(positions))
    table = sharpness(truth.astype(np.float32), prediction.astype(np.float32), positions)
    assert tuple(table.columns) == COLUMNS
    np.testing.assert_allclose(table["sd_truth"], truth.std(axis=0), rtol=1e-5)
    np.testing.assert_allclose(table["sd_prediction"], prediction.std(axis=0), rtol=1e-5)
    ranks = [stats.spearmanr(truth[:, g], prediction[:, g]).statistic for g in range(truth.shape[1])]
    np.testing.assert_allclose(table["spearman"], ranks, atol=1e-6)
    neighbours = direct_neighbours(positions)
    np.testing.assert_allclose(table["moran_truth"], moran(truth, neighbours), atol=1e-5)
    np.testing.assert_allclose(table["moran_prediction"], moran(prediction, neighbours), atol=1e-5)


def test_constant_genes_are_undefined_where_nothing_can_be_said() -> None:
    positions = _square(6)
    truth, prediction = _maps(len(positions), n_genes=2)
    truth[:, 0], prediction[:, 1] = 1.1, 0.3
    table = sharpness(truth, prediction, positions)
    assert table["spearman"].isna().all()
    assert list(table["moran_truth"].isna()) == [True, False]
    assert list(table["moran_prediction"].isna()) == [False, True]
    assert list(table["ssim"].isna()) == [True, False]
    assert table["sd_prediction"][1] == pytest.approx(0, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.1, 50), shift=st.floats(-5, 5), seed=st.integers(0, 1000))
def test_smoothness_and_ranks_do_not_depend_on_scale_or_the_order_of_spots(
    scale: float, shift: float, seed: int
) -> None:
    positions = _square(7)
    truth, prediction = _maps(len(positions), seed=seed)
    order = np.random.default_rng(seed).permutation(len(positions))
    before = sharpness(truth, prediction, positions)
    after = sharpness(truth[order], scale * prediction[order] + shift, positions[order] * scale)
    names = ["spearman", "moran_truth", "moran_prediction"]
    np.testing.assert_allclose(after[names], before[names], atol=1e-8)
    np.testing.assert_allclose(after["sd_prediction"], scale * before["sd_prediction"], rtol=1e-8)


def test_smoothing_a_prediction_lowers_its_spread_and_raises_its_moran() -> None:
    positions = _square(14)
    truth, _ = _maps(len(positions), n_genes=20)
    table = sharpness(truth, gaussian_window(positions) @ truth, positions)
    assert (table["sd_prediction"] < 0.5 * table["sd_truth"]).all()
    assert (table["moran_prediction"] > table["moran_truth"] + 0.3).all()


def test_genes_are_worked_on_piece_by_piece_and_large_slides_by_windows_evenly_spread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pieces change nothing; the surroundings of some spots are those that these spots have among all."""
    positions = _hexagonal(8, 9)
    truth, prediction = _maps(len(positions))
    whole = sharpness(truth, prediction, positions)
    monkeypatch.setattr(pieces, "VALUES", 3 * len(truth))
    pd.testing.assert_frame_equal(sharpness(truth, prediction, positions), whole, rtol=1e-12)
    some = np.arange(0, len(positions), 3)
    expected = gaussian_window(positions)[some].toarray()
    np.testing.assert_allclose(gaussian_window(positions, around=some).toarray(), expected, atol=1e-15)
    monkeypatch.setattr("stbench.scores.sharpness.MOST_WINDOWS", len(positions) // 2)
    thinned = sharpness(truth, prediction, positions)
    chosen = evenly_spread(len(positions))
    np.testing.assert_allclose(
        thinned["ssim"], structural_similarity(truth, prediction, gaussian_window(positions)[chosen]), rtol=1e-12
    )
    pd.testing.assert_frame_equal(thinned.drop(columns="ssim"), whole.drop(columns="ssim"), rtol=1e-12)


def test_scores_of_pieces_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, prediction = _maps(60)
    genes = [f"G{i}" for i in range(truth.shape[1])]
    whole, moved = score_slide(truth, prediction, genes, truth.mean(axis=0)), movement(prediction, prediction[::-1])
    monkeypatch.setattr(pieces, "VALUES", 2 * len(truth))
    cut = score_slide(truth, prediction, genes, truth.mean(axis=0))
    assert (cut.mse, cut.mae, cut.pcc_acg, cut.strict_pcc_heg) == pytest.approx(
        (whole.mse, whole.mae, whole.pcc_acg, whole.strict_pcc_heg), rel=1e-12
    )
    np.testing.assert_allclose(cut.genes.r, whole.genes.r, rtol=1e-12)
    assert movement(prediction, prediction[::-1]) == pytest.approx(moved, rel=1e-12)
