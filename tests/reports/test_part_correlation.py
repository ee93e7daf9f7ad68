"""Correlations between genes: which genes, pooled how, in which order, and how near predictions come."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.cluster.hierarchy
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from synthetic import CONTROLS, METHODS, Fake, make_results
from synthetic_predictions import add_predictions, truth_of

from stbench.reports.figures.canvas import drawing
from stbench.reports.parts import correlation
from stbench.reports.parts.correlation import (
    correlation_figure,
    gene_structure,
    leaf_order,
    matrix_agreement,
    most_expressed,
    part,
    pooled_correlation,
    spread_slices,
)
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.predictions import prediction_files
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section

MCLSTEXP, STNET = METHODS[0], METHODS[1]
MEAN = CONTROLS[0]
SLICES = ["B4", "C2", "C3"]
N_GENES = 8
GENES = [f"GENE{i}" for i in range(N_GENES)]


def predict(method: str, name: str, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """mclSTExp is near the truth; STnet's genes all follow the first one; the mean is one value."""
    if method == "mclstexp":
        return truth + 0.3 * rng.normal(size=truth.shape)
    if method == "stnet":
        return truth[:, :1] + 0.2 * rng.normal(size=truth.shape)
    return np.ones_like(truth)


def section_of(tmp_path: Path, *methods: Fake, **settings: object) -> Section:
    chosen: dict = {"slices": SLICES, "n_genes": N_GENES, **settings}
    run = make_results(tmp_path / "run", methods or (MCLSTEXP, STNET), **chosen)
    (section,) = load([add_predictions(run, predict)])
    return section


def made(section: Section) -> Part:
    answer = part(section, Context([section]))
    assert answer is not None
    return answer


def entry(section: Section, method: str) -> str:
    return next(name for name, of in section.entries["method"].items() if of == method)


def test_pooling_correlates_over_all_spots_and_within_slices_forgets_their_levels() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(20, 3)), rng.normal(size=(30, 3)) + 5  # all genes are higher on the second
    pooled = pooled_correlation([first, second])
    together = np.concatenate([first, second])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert pooled[i, j] == pytest.approx(scipy.stats.pearsonr(together[:, i], together[:, j]).statistic)
    assert pooled[0, 1] > 0.7
    within = pooled_correlation([first, second], within_slices=True)
    np.testing.assert_allclose(within, pooled_correlation([first, second - 5], within_slices=True))
    assert abs(within[0, 1]) < 0.5


def test_a_constant_gene_has_no_correlation() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.normal(size=(20, 3)), rng.normal(size=(20, 3))
    one[:, 1], two[:, 1] = 0.1, 0.7  # constant on each slice, not over both
    assert np.isfinite(pooled_correlation([one, two])).all()
    within = pooled_correlation([one, two], within_slices=True)
    assert np.isnan(within[1]).all()
    assert np.isfinite(within[0, 2])


@given(st.integers(0, 10_000))
def test_agreement_is_pearsons_r_of_the_triangles_and_1_for_the_same_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = (np.corrcoef(rng.normal(size=(6, 30))) for _ in range(2))
    above = np.triu(np.ones((6, 6), dtype=bool), 1)
    assert matrix_agreement(one, two) == pytest.approx(scipy.stats.pearsonr(one[above], two[above]).statistic)
    assert matrix_agreement(one, one) == pytest.approx(1)


def test_agreement_skips_pairs_that_are_undefined() -> None:
    one = np.corrcoef(np.random.default_rng(0).normal(size=(6, 30)))
    two = one.copy()
    two[2, :] = two[:, 2] = np.nan
    assert matrix_agreement(one, two) == pytest.approx(1)
    assert np.isnan(matrix_agreement(one, np.full_like(one, np.nan)))


def test_the_order_is_that_of_wards_tree_over_the_rows() -> None:
    rng = np.random.default_rng(0)
    blocks = np.repeat(rng.normal(size=(2, 40)), 4, axis=0) + 0.3 * rng.normal(size=(8, 40))
    mixed = np.corrcoef(blocks[[0, 4, 1, 5, 2, 6, 3, 7]])
    order = leaf_order(mixed)
    assert order == list(
        scipy.cluster.hierarchy.dendrogram(scipy.cluster.hierarchy.linkage(mixed, "ward"), no_plot=True)["leaves"]
    )
    assert len({place % 2 for place in order[:4]}) == 1  # the two blocks come apart
    assert len({place % 2 for place in order[4:]}) == 1


def test_the_genes_of_highest_mean_over_all_spots_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = section_of(tmp_path)
    monkeypatch.setattr(correlation, "N_GENES", 5)
    mean = np.concatenate([truth_of(name, 36, GENES) for name in SLICES]).mean(axis=0)
    assert most_expressed(section) == [GENES[place] for place in np.argsort(-mean)[:5]]


def test_slices_are_spread_over_patients() -> None:
    patients = {"A1": "A", "A2": "A", "A3": "A", "B1": "B", "C1": "C", "C2": "C"}
    assert spread_slices(list(patients), patients, 4) == ("A1", "A2", "B1", "C1")
    assert spread_slices(list(patients), patients, 99) == tuple(patients)


def test_the_matrices_are_those_of_the_pooled_files_in_the_observed_order(tmp_path: Path) -> None:
    section = section_of(tmp_path)
    shown = [entry(section, "mclstexp"), entry(section, "stnet")]
    structure = gene_structure(shown, GENES, SLICES, prediction_files(section))
    truth = np.concatenate([truth_of(name, 36, GENES) for name in SLICES]).astype(float)
    expected = np.corrcoef(truth, rowvar=False)
    order = leaf_order(expected)
    assert structure.genes == tuple(GENES[place] for place in order)
    np.testing.assert_allclose(structure.observed, expected[np.ix_(order, order)], atol=1e-6)
    own = []
    for name in SLICES:
        rng = np.random.default_rng(sum(map(ord, "stnet" + name)))
        own.append(predict("stnet", name, truth_of(name, 36, GENES), rng))
    np.testing.assert_allclose(
        structure.predicted[shown[1]], np.corrcoef(np.concatenate(own), rowvar=False)[np.ix_(order, order)], atol=1e-5
    )
    assert structure.agreement[shown[0]] > 0.95 > structure.agreement[shown[1]]


def test_the_figure_draws_the_matrices_and_their_agreement(tmp_path: Path) -> None:
    section = section_of(tmp_path)
    shown = [entry(section, "mclstexp"), entry(section, "stnet")]
    structure = gene_structure(shown, GENES, SLICES, prediction_files(section))
    with drawing():
        figure = correlation_figure(section, structure)
    panels = figure.axes[:-1]  # the last is the colour bar's
    matrices = [structure.observed, *structure.predicted.values()]
    for axes, matrix in zip(panels, matrices, strict=True):
        (cells,) = axes.collections
        np.testing.assert_array_equal(np.ma.filled(cells.get_array(), np.nan), matrix)
        assert cells.get_clim() == (-1, 1)
        assert cells.get_cmap().name == "viridis"
    titles = [axes.get_title() for axes in panels]
    assert titles == [
        "observed",
        f"mclSTExp\nr = {structure.agreement[shown[0]]:.2f}",
        f"STnet\nr = {structure.agreement[shown[1]]:.2f}".replace("-", "−"),
    ]


@pytest.mark.usefixtures("saved_pictures")
def test_the_part_names_the_best_and_the_least(tmp_path: Path) -> None:
    section = section_of(tmp_path)
    answer = made(section)
    assert answer.lead[0].startswith("mclSTExp keeps the correlations between genes best")
    assert "STnet keeps them least" in answer.lead[0]
    assert len(answer.frames["pairs.csv"]) == N_GENES * (N_GENES - 1) // 2
    (table,) = answer.tables
    assert [[row[0].text for row in block] for block in table.blocks] == [["mclSTExp", "STnet"], ["observed"]]


def test_a_method_that_lacks_a_slice_is_left_out_and_named(tmp_path: Path) -> None:
    section = section_of(tmp_path, MCLSTEXP, STNET, states={("stnet", "C3", 0): ("failed", "no memory")})
    answer = made(section)
    assert [row[0].text for row in answer.tables[0].blocks[0]] == ["mclSTExp"]
    assert any("STnet (2/3)" in sentence for sentence in answer.lead)


def test_of_many_slices_some_are_read_and_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "MAX_SLICES", 2)
    answer = made(section_of(tmp_path))
    assert any(sentence.startswith("Pooled over 2 of 3 slices") and "B4, C2" in sentence for sentence in answer.lead)


def test_one_value_for_every_spot_has_no_correlations(tmp_path: Path) -> None:
    answer = made(section_of(tmp_path, MEAN))
    assert answer.lead[0] == "No prediction varies enough for correlations between genes."
    assert answer.pictures


def test_nothing_is_said_without_predictions(load_fake: Callable[..., Section]) -> None:
    section = load_fake()
    assert part(section, Context([section])) is None


def test_where_folds_have_panels_of_their_own_genes_that_all_have_are_pooled(load_fake: Callable[..., Section]) -> None:
    section = load_fake()
    genes = most_expressed(section)
    first = section.slices[0]
    lost = section.genes["slice"].eq(first) & section.genes["gene"].isin(genes[:2])
    section = replace(section, genes=section.genes[~lost])
    assert most_expressed(section)[: len(genes) - 2] == genes[2:]
    assert not set(genes[:2]) & set(most_expressed(section))
