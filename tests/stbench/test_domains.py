"""Clusters of predicted and of measured expression against the regions that a pathologist drew."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from prepared import prepared_slide
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from stbench.data.prepared import PreparedSlide
from stbench.scores.domains import SEEDS, clusters, domains, labelled, principal_components

THREE = ("tumour",) * 20 + ("stroma",) * 25 + ("immune",) * 15


def _slide(labels: Sequence[str | None] | None, n_genes: int = 30, signal: float = 3.0, seed: int = 0) -> PreparedSlide:
    """Spots in a row whose target follows their label (spots without a label follow none)."""
    rng = np.random.default_rng(seed)
    n_spots = 60 if labels is None else len(labels)
    known = sorted({label for label in labels or () if label})
    profile = {label: rng.normal(0, signal, n_genes) for label in known}
    means = np.array([profile.get(label, np.zeros(n_genes)) for label in labels or [None] * n_spots])
    target = (means + rng.normal(0, 0.5, means.shape)).astype(np.float32)
    return prepared_slide(np.ones(means.shape, dtype=np.int32), np.ones(n_spots, dtype=np.int64), target, "S1", labels)


def _adjusted_rand(a: Sequence, b: Sequence) -> float:
    """By counting pairs of spots, one by one (Hubert and Arabie 1985)."""
    pairs = list(combinations(range(len(a)), 2))
    same_a, same_b = ([x[i] == x[j] for i, j in pairs] for x in (a, b))
    both = sum(p and q for p, q in zip(same_a, same_b, strict=True))
    expected = sum(same_a) * sum(same_b) / len(pairs)
    return (both - expected) / ((sum(same_a) + sum(same_b)) / 2 - expected)


def _normalised_information(a: Sequence, b: Sequence) -> float:
    joint = np.array(
        [[np.mean([x == p and y == q for x, y in zip(a, b, strict=True)]) for q in set(b)] for p in set(a)]
    )
    pa, pb = joint.sum(axis=1), joint.sum(axis=0)
    some = joint > 0
    information = (joint[some] * np.log(joint[some] / np.outer(pa, pb)[some])).sum()
    return information / (-(pa * np.log(pa)).sum() / 2 - (pb * np.log(pb)).sum() / 2)


def test_regions_that_the_expression_shows_are_found() -> None:
    slide = _slide(THREE)
    agreement, spots = domains(slide, slide.target)
    assert (agreement["ari"] == 1).all()
    assert agreement["nmi"].to_numpy() == pytest.approx(1)
    assert set(agreement["k"]) == {3}
    assert agreement.groupby("of")["kmeans_seed"].apply(tuple).to_dict() == {"prediction": SEEDS, "truth": SEEDS}
    assert spots.groupby("cluster_truth")["label"].nunique().eq(1).all()


def test_the_numbers_are_those_of_counting_pairs_and_of_entropies() -> None:
    slide = _slide(THREE, signal=0.25)
    prediction = np.random.default_rng(3).normal(size=slide.target.shape)
    agreement, spots = domains(slide, prediction)
    for of in ("prediction", "truth"):
        row = agreement[(agreement["of"] == of) & (agreement["kmeans_seed"] == 0)].iloc[0]
        found = list(spots[f"cluster_{of}"])
        assert row["ari"] == pytest.approx(_adjusted_rand(THREE, found))
        assert row["nmi"] == pytest.approx(_normalised_information(THREE, found))
    assert agreement["ari"].max() < 0.9


def test_undetermined_spots_are_left_out_first() -> None:
    labels = [*THREE, "undetermined", "Undetermined ", "", None]
    slide = _slide(labels)
    rng = np.random.default_rng(0)
    noisy = slide.target.copy()
    noisy[60:] = rng.normal(0, 1000, (4, noisy.shape[1]))  # would be clusters of their own
    agreement, spots = domains(slide, noisy)
    assert set(agreement["n_spots"]) == {60}
    assert set(agreement["k"]) == {3}
    assert (agreement.loc[agreement["of"] == "prediction", "ari"] == 1).all()
    assert list(spots["spot"]) == [f"spot{i}" for i in range(60)]
    assert list(spots["x"]) == [10.0 * i for i in range(60)]


@pytest.mark.parametrize("labels", [None, (None,) * 5, ("tumour",) * 5, ("tumour", "tumour", "undetermined", "", None)])
def test_without_two_labelled_regions_there_is_nothing_to_score(labels: tuple | None) -> None:
    slide = _slide(labels)
    assert domains(slide, slide.target) is None


def test_a_constant_prediction_has_one_cluster_and_scores_nothing(recwarn: pytest.WarningsRecorder) -> None:
    slide = _slide(THREE)
    agreement, spots = domains(slide, np.full_like(slide.target, 0.1))
    assert set(spots["cluster_prediction"]) == {0}
    of_prediction = agreement[agreement["of"] == "prediction"]
    assert (of_prediction[["ari", "nmi"]] == 0).all(axis=None)
    assert not recwarn.list


def test_a_truth_is_clustered_once_for_all_predictions_and_never_taken_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clustered = []

    def counted(components: np.ndarray, k: int, seed: int) -> np.ndarray:
        clustered.append(len(components))
        return clusters(components, k, seed)

    monkeypatch.setattr("stbench.scores.domains.clusters", counted)
    slide, other = (_slide(THREE, signal=0.3, seed=seed) for seed in (21, 22))
    first, _ = domains(slide, other.target)
    again, _ = domains(slide, other.target)
    assert len(clustered) == 3 * len(SEEDS)  # the truth, and twice the prediction
    pd.testing.assert_frame_equal(first, again)
    swapped, _ = domains(other, slide.target)
    assert len(clustered) == 5 * len(SEEDS)
    theirs, ours = (table[table["of"] == of] for table, of in ((swapped, "truth"), (first, "prediction")))
    np.testing.assert_array_equal(theirs[["ari", "nmi"]], ours[["ari", "nmi"]])
    domains(replace(slide, labels=THREE[::-1]), other.target)
    assert len(clustered) == 7 * len(SEEDS)


@pytest.mark.parametrize(("n_spots", "k", "value"), [(50, 3, 0.0), (7, 5, -2.5), (3, 2, 1e9)])
def test_points_at_one_place_are_the_cluster_that_k_means_gives_them(n_spots: int, k: int, value: float) -> None:
    points = np.full((n_spots, 2), value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        expected = KMeans(k, n_init=10, random_state=1).fit_predict(points)
    found = clusters(points, k, 1)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == expected.dtype


def test_components_are_those_of_the_centred_matrix() -> None:
    values = np.random.default_rng(0).normal(2, [1, 5, 3, 1, 1, 1, 2, 1, 1, 1, 1, 4], (50, 12))
    found = principal_components(values)
    centred = values - values.mean(axis=0)
    u, s, _ = np.linalg.svd(centred, full_matrices=False)
    assert found.shape == (50, 9)
    np.testing.assert_allclose(np.abs(found), np.abs(u * s)[:, :9], atol=1e-9)


def test_components_are_those_of_scanpy() -> None:
    scanpy = pytest.importorskip("scanpy")
    values = np.random.default_rng(0).gamma(1, 1, (60, 40)).astype(np.float32)
    expected = scanpy.pp.pca(values, n_comps=9)
    np.testing.assert_allclose(np.abs(principal_components(values)), np.abs(expected), atol=1e-4)


@pytest.mark.parametrize(("n_spots", "n_genes"), [(30, 1), (5, 20), (30, 4)])
def test_small_panels_and_slices_have_fewer_components(n_spots: int, n_genes: int) -> None:
    values = np.random.default_rng(0).normal(size=(n_spots, n_genes))
    found = principal_components(values)
    centred = values - values.mean(axis=0)
    assert found.shape == (n_spots, min(n_spots, n_genes))
    np.testing.assert_allclose(found @ found.T, centred @ centred.T, atol=1e-9)  # nothing is lost, nothing added


def test_the_same_seed_gives_the_same_clusters() -> None:
    points = np.random.default_rng(0).normal(size=(80, 5))
    np.testing.assert_array_equal(clusters(points, 4, 7), clusters(points, 4, 7))
    assert set(clusters(points, 4, 7)) == {0, 1, 2, 3}


def test_labels_that_say_nothing_are_known() -> None:
    assert list(labelled(("a", None, "", " ", "Undetermined", "b"))) == [0, 5]
    assert len(labelled(None)) == 0
