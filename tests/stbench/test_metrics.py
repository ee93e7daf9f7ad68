"""Metrics: equal to scipy gene by gene, equal to published numbers, and clear about what cannot be scored."""

from __future__ import annotations

import warnings
from fractions import Fraction
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from stbench.data.targets import target
from stbench.errors import UserError
from stbench.scores.correlation import neg_log10_p, per_gene
from stbench.scores.metrics import N_HEG, UnscorableError, gene_table, highest, score_slide

# n, r, -log10 p as printed by the mclSTExp tutorial (GNAS, FN1, FASN, HLA-B, SCD, IGKC, HLA-DRA)
TUTORIAL = [
    (298, 0.8403201389691681, 79.97388011526529),
    (277, 0.8153348082173453, 66.49574990411878),
    (270, 0.7796053276935957, 55.673117428464344),
    (283, 0.8441040802323344, 77.31367757650334),
    (277, 0.8080384061967886, 64.41835778562279),
    (695, 0.6289915275636789, 77.09680819723347),
    (277, 0.8327048138938901, 71.83510752988644),
]

# n, r, -log10 p where p is below float64's range: the hypergeometric form of the beta function at 50 digits
UNDERFLOWING = [
    (4895, 0.5, 307.30472461230923895),
    (4895, 0.55, 384.45252223424345867),
    (4895, -0.9, 1766.4264483231754538),
    (1300, 0.85, 362.90664921380689215),
    (20000, 0.3, 411.2710173690771508),
    (200000, 0.12, 631.7521217118626976),
    (1000000, 0.05, 545.34393623955697789),
]


def names(n_genes: int) -> list[str]:
    return [f"GENE{i}" for i in range(n_genes)]


def random_pair(n_spots: int = 40, n_genes: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.gamma(2.0, 1.0, (n_spots, n_genes))
    return truth, 0.5 * truth + rng.normal(size=truth.shape)


@st.composite
def columns(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Two vectors of equal length: random, tied or constant, with or without an offset, at any scale of float64."""
    n = draw(st.integers(2, 15))

    def vector() -> np.ndarray:
        element = st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1))
        values = draw(hnp.arrays(np.float64, n, elements=element))
        offset = draw(st.sampled_from([0.0, 1.0, -1e4]))
        scale = draw(st.sampled_from([1e-300, 1e-150, 1e-12, 1e-8, 1.0, 1e8, 1e150, 1e300]))
        return (values + offset) * scale

    return vector(), vector()


def well_conditioned(x: np.ndarray) -> bool:
    """Whether scipy's r can be the judge: not where the spread is lost in rounding or subnormal."""
    size = np.abs(x).max()
    return bool(np.ptp(x / size) > 1e-9 and size > 1e-305)


@settings(deadline=None, max_examples=300)
@given(columns())
@example((np.array([1.0, 2.0]), np.array([5.0, 3.0])))
@example((np.array([0.1, 0.1, 0.1]), np.array([1.0, 2.0, 4.0])))
def test_r_and_p_of_a_gene_are_scipys(pair: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = pair
    ours = per_gene(x[:, None], y[:, None])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = stats.pearsonr(x, y)
    assert ours.constant_truth[0] == (np.ptp(x) == 0)
    assert ours.constant_prediction[0] == (np.ptp(y) == 0)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert np.isnan(theirs.statistic)
        assert np.isnan(ours.r[0])
        assert np.isnan(ours.p[0])
    elif well_conditioned(x) and well_conditioned(y):
        assert ours.r[0] == pytest.approx(theirs.statistic, abs=1e-10)
        # near 1 the last digit of r moves p of three spots by more than 1e-10
        sensitive = 1 - abs(theirs.statistic) < 1e-9
        assert ours.p[0] == pytest.approx(theirs.pvalue, abs=1e-7 if sensitive else 1e-10)


@pytest.mark.parametrize("n_spots", [2, 3, 4, 187, 1000])
@pytest.mark.parametrize("scale", [1e-300, 1e-8, 1.0, 1e150])
def test_a_whole_matrix_equals_scipy_column_by_column(n_spots: int, scale: float) -> None:
    truth, prediction = random_pair(n_spots, 30)
    truth[:, 3] = 0.1  # constant, and its mean is not exactly 0.1
    prediction[:, 4] = 7.3
    prediction[:, 5] = -truth[:, 5]
    prediction[:, 6] = 1e6 + 1e-3 * prediction[:, 6]
    truth, prediction = truth * scale, prediction * scale
    ours = per_gene(truth, prediction)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        theirs = [stats.pearsonr(truth[:, g], prediction[:, g]) for g in range(30)]
    np.testing.assert_allclose(ours.r, [result.statistic for result in theirs], rtol=0, atol=1e-10)
    sensitive = 1 - np.abs(ours.r) < 1e-9  # here the last digit of r moves p of three spots by more than 1e-10
    difference = np.abs(ours.p - [result.pvalue for result in theirs])
    assert (difference[~np.isnan(ours.r)] < np.where(sensitive, 1e-7, 1e-10)[~np.isnan(ours.r)]).all()
    assert np.flatnonzero(np.isnan(ours.r)).tolist() == [3, 4]


@pytest.mark.parametrize("exponent", [-1074, -1030, -500, 500, 1020])
def test_r_does_not_depend_on_the_scale_to_the_ends_of_float64(exponent: int) -> None:
    truth, prediction = np.array([[1.0], [2.0], [4.0], [8.0]]), np.array([[3.0], [1.0], [4.0], [7.0]])
    expected = stats.pearsonr(truth[:, 0], prediction[:, 0]).statistic
    scaled = np.ldexp(truth, exponent)
    assert per_gene(scaled, prediction).r[0] == pytest.approx(expected, abs=1e-15)
    assert per_gene(prediction, scaled).r[0] == pytest.approx(expected, abs=1e-15)


def test_a_single_spot_has_no_correlation() -> None:
    result = per_gene(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    assert np.isnan(result.r).all()
    assert np.isnan(result.p).all()
    assert result.constant_truth.all()
    assert result.constant_prediction.all()


def test_two_spots_give_exactly_one_or_minus_one_and_a_p_of_one() -> None:
    result = per_gene(np.array([[0.1, 0.1, 5.0], [0.7, 0.7, 5.0]]), np.array([[0.3, 0.9, 1.0], [0.4, 0.2, 2.0]]))
    assert result.r[:2].tolist() == [1.0, -1.0]
    assert result.p[:2].tolist() == [1.0, 1.0]
    assert np.isnan(result.r[2])
    assert np.isnan(result.p[2])


def test_a_spread_of_one_part_in_ten_billion_is_resolved_exactly() -> None:
    """Rational arithmetic as the judge: here a single pass over float64 would lose all digits."""
    rng = np.random.default_rng(1)
    x, y = 1 + 1e-10 * rng.normal(size=50), 3 - 1e-10 * rng.normal(size=50)
    fx, fy = [Fraction(float(v)) for v in x], [Fraction(float(v)) for v in y]
    mx, my = sum(fx) / 50, sum(fy) / 50
    sxy = sum((a - mx) * (b - my) for a, b in zip(fx, fy, strict=True))
    sxx, syy = sum((a - mx) ** 2 for a in fx), sum((b - my) ** 2 for b in fy)
    exact = float(sxy) / (float(sxx) ** 0.5 * float(syy) ** 0.5)
    assert per_gene(x[:, None], y[:, None]).r[0] == pytest.approx(exact, abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 10_000), st.sampled_from([1e-20, 0.5, 3.0, 1e12]), st.floats(-100, 100))
def test_r_does_not_change_when_a_gene_is_rescaled_or_shifted(seed: int, scale: float, shift: float) -> None:
    truth, prediction = random_pair(12, 5, seed)
    np.testing.assert_allclose(
        per_gene(truth, (prediction + shift) * scale).r, per_gene(truth, prediction).r, rtol=0, atol=1e-10
    )


def test_float32_input_is_scored_in_float64() -> None:
    truth, prediction = (array.astype(np.float32) for array in random_pair(300, 4))
    expected = [stats.pearsonr(truth[:, g].astype(float), prediction[:, g].astype(float)).statistic for g in range(4)]
    np.testing.assert_allclose(per_gene(truth, prediction).r, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("n", "r", "printed"), TUTORIAL)
def test_p_values_of_the_published_tutorial(n: int, r: float, printed: float) -> None:
    assert float(neg_log10_p(r, n)) == pytest.approx(printed, rel=1e-12)
    # a pair of columns with exactly this correlation has this p
    x = np.zeros((n, 1))
    x[:2, 0] = 1, -1
    z = np.zeros((n, 1))
    z[2:4, 0] = 1, -1
    p = per_gene(x, r * x + np.sqrt(1 - r * r) * z).p[0]
    assert -np.log10(p) == pytest.approx(printed, rel=1e-12)


@pytest.mark.parametrize(("n", "r", "reference"), UNDERFLOWING)
def test_neg_log10_p_does_not_underflow(n: int, r: float, reference: float) -> None:
    assert float(neg_log10_p(r, n)) == pytest.approx(reference, rel=1e-12)
    assert float(neg_log10_p(-r, n)) == float(neg_log10_p(r, n))


@pytest.mark.parametrize("n", [10, 60, 300])
def test_neg_log10_p_is_the_log_of_students_survival_function(n: int) -> None:
    r = np.array([-0.7, -0.2, 1e-12, 1e-9, 1e-6, 1e-3, 0.05, 0.4, 0.4999, 0.5001, 0.95])
    t = np.abs(r) * np.sqrt((n - 2) / (1 - r**2))
    expected = -(np.log(2) + stats.t.logsf(t, n - 2)) / np.log(10)
    np.testing.assert_allclose(neg_log10_p(r, n), expected, rtol=1e-11, atol=1e-13)


@given(st.floats(-1, 1))
def test_p_of_three_and_of_four_spots_has_a_closed_form(r: float) -> None:
    """R of three spots follows the arcsine distribution, of four the uniform."""
    np.testing.assert_allclose(10 ** -neg_log10_p(r, 3), 1 - 2 / np.pi * np.arcsin(abs(r)), rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(10 ** -neg_log10_p(r, 4), 1 - abs(r), rtol=1e-12, atol=1e-14)


def test_neg_log10_p_rises_smoothly_through_the_end_of_float64() -> None:
    r = np.linspace(0.46, 0.56, 400)  # p from 1e-256 to 1e-401
    step = np.diff(neg_log10_p(r, 4895))
    assert (step > 0).all()
    assert np.abs(np.diff(step)).max() < 0.01 * step.mean()


def test_neg_log10_p_at_the_limits() -> None:
    values = neg_log10_p(np.array([0.0, 1.0, -1.0, np.nan]), 20)
    assert values[0] == 0
    assert not np.signbit(values[0])
    assert np.isposinf(values[1:3]).all()
    assert np.isnan(values[3])
    assert float(neg_log10_p(1.0, 2)) == 0
    assert np.isnan(neg_log10_p(0.3, 1))


def test_the_published_evaluation_on_a_closed_form() -> None:
    spot, gene = np.arange(20)[:, None], np.arange(60)[None, :]
    truth = np.abs(np.sin(0.3 * spot + 0.7 * gene)) * (1 + 0.01 * gene)
    prediction = np.abs(np.sin(0.3 * spot + 0.7 * gene + 0.4))
    truth[:, 59] = 0
    score = score_slide(truth, prediction, names(60))
    assert np.isnan(score.genes.r).sum() == 1
    assert score.n_constant_truth == 1
    assert score.n_constant_prediction == 0
    assert score.pcc_acg == pytest.approx(0.653256131904, abs=1e-12)
    assert score.pcc_heg == pytest.approx(0.653557989059, abs=1e-12)
    assert score.mse == pytest.approx(0.147382377249, abs=1e-12)
    assert score.mae == pytest.approx(0.328260797116, abs=1e-12)
    in_order = np.argsort(-score.genes.mean_truth)
    assert in_order[:5].tolist() == [58, 54, 55, 50, 57]
    assert score.genes.heg[in_order[:50]].all()
    assert score.genes.heg.sum() == 50


def test_the_paper_pack_drops_undefined_genes_from_acg_and_keeps_them_in_heg() -> None:
    truth, prediction = random_pair()
    truth[:, 0] = 0.0  # constant and lowest: in ACG only
    score = score_slide(truth, prediction, names(60))
    r = [stats.pearsonr(truth[:, g], prediction[:, g]).statistic for g in range(1, 60)]
    assert score.pcc_acg == pytest.approx(np.mean(r), abs=1e-12)
    assert np.isfinite(score.pcc_heg)
    truth[:, 0] = 99.0  # constant and highest: HEG has no NaN handling
    assert np.isnan(score_slide(truth, prediction, names(60)).pcc_heg)


def test_the_strict_pack_counts_a_constant_prediction_as_zero_and_excludes_a_constant_truth() -> None:
    truth, prediction = random_pair()
    truth[:, 0] = 99.0
    prediction[:, [0, 1, 2]] = 5.0
    train_mean = np.arange(60)[::-1].astype(float)  # highest: the first 50
    score = score_slide(truth, prediction, names(60), train_mean)
    assert score.n_constant_truth == 1
    assert score.n_constant_prediction == 2  # the first gene is counted once, as constant in truth
    r = np.array([stats.pearsonr(truth[:, g], prediction[:, g]).statistic for g in range(3, 60)])
    assert score.strict_pcc_acg == pytest.approx(r.sum() / 59, abs=1e-12)
    assert score.strict_pcc_heg == pytest.approx(r[:47].sum() / 49, abs=1e-12)
    assert score.pcc_acg == pytest.approx(r.mean(), abs=1e-12)
    assert np.isnan(score.genes.strict_r[0])
    assert score.genes.strict_r[1:3].tolist() == [0.0, 0.0]
    assert score.genes.strict_heg[:50].all()
    assert not score.genes.strict_heg[50:].any()


def test_the_packs_choose_their_genes_on_different_slices() -> None:
    truth, prediction = random_pair()
    truth[:, :10] += 100  # high on the test slice
    train_mean = np.where(np.arange(60) < 10, 0.0, 1.0)  # lowest on the training slices
    score = score_slide(truth, prediction, names(60), train_mean)
    assert score.genes.heg[:10].all()
    assert not score.genes.strict_heg[:10].any()


def test_predicting_the_training_mean_scores_zero_under_strict_and_nothing_under_paper() -> None:
    truth, _ = random_pair()
    score = score_slide(truth, np.tile(truth.mean(axis=0), (len(truth), 1)), names(60), truth.mean(axis=0))
    assert np.isnan(score.pcc_acg)
    assert np.isnan(score.pcc_heg)
    assert score.strict_pcc_acg == 0
    assert score.strict_pcc_heg == 0
    assert score.n_constant_prediction == 60
    assert score.mse == pytest.approx(truth.var(axis=0).mean(), rel=1e-12)


def test_a_perfect_prediction_scores_one() -> None:
    truth, _ = random_pair()
    score = score_slide(truth, truth.copy(), names(60), truth.mean(axis=0))
    for value in (score.pcc_acg, score.pcc_heg, score.strict_pcc_acg, score.strict_pcc_heg):
        assert value == pytest.approx(1.0, abs=1e-12)
    assert score.mse == 0
    assert score.mae == 0


def test_without_training_slices_strict_heg_is_unknown_and_the_score_says_so() -> None:
    score = score_slide(*random_pair(), names(60))
    assert np.isnan(score.strict_pcc_heg)
    assert np.isfinite(score.strict_pcc_acg)
    assert not score.genes.strict_heg.any()
    assert any("training slices" in note for note in score.notes)


def test_a_panel_below_fifty_genes_is_its_own_heg_and_the_score_says_so() -> None:
    truth, prediction = random_pair(n_genes=7)
    score = score_slide(truth, prediction, names(7), truth.mean(axis=0))
    assert score.pcc_heg == pytest.approx(score.pcc_acg, abs=1e-14)
    assert score.genes.heg.all()
    assert any("7 genes" in note for note in score.notes)


def test_of_genes_with_equal_means_the_later_ones_are_taken() -> None:
    assert np.flatnonzero(highest(np.array([1.0, 2.0, 1.0, 1.0, 0.0]), 3)).tolist() == [1, 2, 3]
    assert np.flatnonzero(highest(np.zeros(60))).tolist() == list(range(60 - N_HEG, 60))


@pytest.mark.parametrize("n_spots", [1, 2, 3])
def test_tiny_slices_are_scored(n_spots: int) -> None:
    truth, prediction = random_pair(n_spots)
    score = score_slide(truth, prediction, names(60), truth.mean(axis=0))
    assert score.n_spots == n_spots
    assert score.mse == pytest.approx(((truth - prediction) ** 2).mean(), rel=1e-12)
    assert np.isnan(score.strict_pcc_acg) == (n_spots == 1)
    assert score.n_constant_truth == (60 if n_spots == 1 else 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["truth", "prediction"])
def test_a_value_that_is_not_finite_is_named(value: float, which: str) -> None:
    truth, prediction = random_pair()
    {"truth": truth, "prediction": prediction}[which][7, 3] = value
    with pytest.raises(UnscorableError, match=rf"the {which} .* spot 7, gene GENE3 \({value}\)") as caught:
        score_slide(truth, prediction, names(60))
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ValueError)
    assert "\n" not in str(caught.value)


def test_shapes_that_do_not_match_are_named() -> None:
    truth, prediction = random_pair()
    with pytest.raises(UnscorableError, match=r"\(39, 60\).*\(40, 60\)"):
        score_slide(truth, prediction[1:], names(60))
    with pytest.raises(UnscorableError, match="59 gene names for 60 columns"):
        score_slide(truth, prediction, names(59))
    with pytest.raises(UnscorableError, match=r"\(0, 60\)"):
        score_slide(truth[:0], prediction[:0], names(60))
    with pytest.raises(ValueError, match="train_mean"):
        score_slide(truth, prediction, names(60), np.zeros(59))


def test_the_gene_table_has_a_row_for_every_gene() -> None:
    truth, prediction = random_pair()
    prediction[:, 2] = 1
    score = score_slide(truth, prediction, names(60), truth.mean(axis=0))
    table = gene_table("B4", score)
    expected = ["slice", "gene", "r", "p", "strict_r", "mean_truth", "mean_prediction", "heg", "strict_heg"]
    assert list(table.columns) == expected
    assert table["gene"].tolist() == names(60)
    assert set(table["slice"]) == {"B4"}
    assert table["r"].mean() == pytest.approx(score.pcc_acg)
    assert table["strict_r"].mean() == pytest.approx(score.strict_pcc_acg)
    assert table.loc[table["heg"], "r"].mean(skipna=False) == pytest.approx(score.pcc_heg, nan_ok=True)
    np.testing.assert_allclose(table["mean_prediction"], prediction.mean(axis=0))


@pytest.mark.data
def test_the_training_mean_on_six_real_sections_equals_pandas(data_root: Path) -> None:
    panel = resources.files("stbench.datasets.panels").joinpath("her2st.txt").read_text().split()
    truth, tables = {}, {}
    for name in ("B4", "C2", "C3", "C4", "C5", "C6"):
        counts = pd.read_csv(data_root / "her2st" / "data" / "ST-cnts" / f"{name}.tsv.gz", sep="\t", index_col=0)
        truth[name] = target("spot-log10-cp10k")(counts[panel].to_numpy(), counts.sum(axis=1).to_numpy())
        tables[name] = np.log10(1 + (counts[panel].div(counts[panel].sum(axis=1), axis=0) * 1e4).fillna(0))
    for name in truth:
        training = np.concatenate([truth[other] for other in truth if other != name])
        mean = training.mean(axis=0)
        score = score_slide(truth[name], np.tile(mean, (len(truth[name]), 1)), panel, mean)
        difference = tables[name] - pd.concat([tables[other] for other in tables if other != name]).mean()
        assert score.mse == pytest.approx((difference**2).mean().mean(), abs=1e-6)
        assert score.mae == pytest.approx(difference.abs().mean().mean(), abs=1e-6)
        assert score.n_constant_truth + score.n_constant_prediction == len(panel)
        assert score.strict_pcc_acg == 0
