"""A prediction against the truth on every named target."""

from __future__ import annotations

import numpy as np
import pytest
from prepared import prepared_slide
from scipy import stats

from stbench.data.prepared import PreparedSlide
from stbench.data.targets import TARGETS
from stbench.scores.rescoring import rescore, training_means


def _slide(
    name: str = "S", n_spots: int = 40, n_genes: int = 60, target: str = "lognorm", seed: int = 0
) -> PreparedSlide:
    """Spots of unequal depth, without any structure otherwise; no gene is constant."""
    rng = np.random.default_rng([seed, *name.encode()])
    depth = rng.gamma(3, 1, (n_spots, 1))
    counts = rng.poisson(depth * rng.gamma(0.5, 3, (1, n_genes)) + 0.01).astype(np.int32)
    counts[0, :] += 1
    total_counts = (counts.sum(axis=1) * 2 + rng.integers(1, 50, n_spots)).astype(np.int64)
    return prepared_slide(counts, total_counts, TARGETS[target](counts, total_counts, 2 * n_genes), name)


@pytest.mark.parametrize("name", TARGETS)
def test_the_truth_itself_correlates_fully_with_the_target_it_is_on_only(name: str) -> None:
    slide = _slide(target=name)
    table = rescore(slide, slide.target, training_means([_slide("T")])).set_index("target")
    assert table.loc[name, "pcc_acg"] == pytest.approx(1)
    assert table.loc[name, "pcc_heg"] == pytest.approx(1)
    assert (table.drop(index=name)["pcc_acg"] < 0.999).all()


def test_scores_are_those_of_scipy_over_the_targets_own_highly_expressed_genes() -> None:
    slide, training = _slide(), [_slide("T"), _slide("U", n_spots=90)]
    prediction = slide.target + np.random.default_rng(1).normal(0, 0.5, slide.target.shape)
    table = rescore(slide, prediction, training_means(training)).set_index("target")
    assert list(table.index) == list(TARGETS)
    for name, target in TARGETS.items():
        truth = target(slide.counts, slide.total_counts, slide.n_measured)
        r = np.array([stats.pearsonr(truth[:, g], prediction[:, g]).statistic for g in range(truth.shape[1])])
        assert table.loc[name, "pcc_acg"] == pytest.approx(r.mean(), abs=1e-6)
        assert table.loc[name, "pcc_heg"] == pytest.approx(r[np.argsort(truth.mean(axis=0))[-50:]].mean(), abs=1e-6)
        pooled = np.concatenate([target(of.counts, of.total_counts, of.n_measured) for of in training]).mean(axis=0)
        assert table.loc[name, "strict_pcc_heg"] == pytest.approx(r[np.argsort(pooled)[-50:]].mean(), abs=1e-6)


def test_means_of_the_training_slides_are_over_their_spots_together() -> None:
    training = [_slide("T", n_spots=10), _slide("U", n_spots=90)]
    for name, mean in training_means(training).items():
        pooled = np.concatenate([TARGETS[name](of.counts, of.total_counts, of.n_measured) for of in training])
        np.testing.assert_allclose(mean, pooled.mean(axis=0, dtype=np.float64), rtol=1e-9, err_msg=name)


def test_the_scale_of_the_prediction_does_not_matter() -> None:
    slide, means = _slide(), training_means([_slide("T")])
    prediction = np.random.default_rng(2).normal(size=slide.target.shape)
    columns = ["pcc_acg", "pcc_heg", "strict_pcc_acg", "strict_pcc_heg"]
    stretched = rescore(slide, 3 * prediction - 7, means)[columns]
    np.testing.assert_allclose(stretched, rescore(slide, prediction, means)[columns], atol=1e-9)


def test_a_prediction_of_depth_alone_is_worth_most_where_depth_stays_in_the_target() -> None:
    slide = _slide(n_spots=200)
    depth = np.log(slide.total_counts)[:, None] * np.ones((1, len(slide.genes)))
    table = rescore(slide, depth, training_means([_slide("T")])).set_index("target")["pcc_acg"]
    assert table.idxmax() == "gene-log10-cp10k"
    assert table["gene-log10-cp10k"] > table["spot-log10-cp10k"] + 0.2


def test_a_constant_prediction_is_undefined_in_the_paper_pack_and_zero_in_the_strict_one() -> None:
    slide = _slide()
    table = rescore(slide, np.ones_like(slide.target), training_means([_slide("T")]))
    assert table[["pcc_acg", "pcc_heg"]].isna().all(axis=None)
    assert (table[["strict_pcc_acg", "strict_pcc_heg"]] == 0).all(axis=None)
