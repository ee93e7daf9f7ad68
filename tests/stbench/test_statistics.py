"""Statistics by patient: equal to hand-computed cases, scipy and printed tables, and honest about few patients."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stbench.errors import UserError
from stbench.statistics import (
    Comparison,
    ahead_of_all,
    bootstrap_interval,
    critical_difference,
    holm,
    mean_ranks,
    paired_by_patient,
    paired_test,
    patient_differences,
    stratified_test,
    variance_components,
    win_matrix,
)
from stbench.statistics.paired import EXACT_PATIENTS, RANDOM_FLIPS

# Demsar 2006, table 5a: critical values of the two-tailed Nemenyi test at 0.05, for 2 to 10 classifiers
Q_05 = (1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164)

# (patient, slice): values of entries a and b; three patients with two, one and three slices
PAIRED = [
    ("p", "p1", 0.30, 0.20),
    ("p", "p2", 0.40, 0.20),
    ("q", "q1", 0.25, 0.20),
    ("r", "r1", 0.10, 0.15),
    ("r", "r2", 0.20, 0.20),
    ("r", "r3", 0.30, 0.05),
]


def long(values: np.ndarray, patients: list[str]) -> pd.DataFrame:
    """``values``: (n_slices, n_entries), ``patients``: of each slice; entries are named e0, e1, ..."""
    return pd.DataFrame(
        [
            {"entry": f"e{j}", "slice": f"s{i:03d}", "patient": patient, "value": values[i, j]}
            for i, patient in enumerate(patients)
            for j in range(values.shape[1])
        ]
    )


def pair() -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"entry": entry, "slice": name, "patient": patient, "value": value}
            for patient, name, a, b in PAIRED
            for entry, value in (("a", a), ("b", b))
        ]
    )


def two_sided(differences: list[float]) -> float:
    """By counting every pattern of signs, in the plainest way."""
    observed = abs(sum(differences))
    sums = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True)))
        for signs in itertools.product((1, -1), repeat=len(differences))
    ]
    return sum(value >= observed - 1e-12 for value in sums) / len(sums)


def test_a_comparison_gives_every_patient_the_same_weight() -> None:
    found = paired_by_patient(pair(), "a", "b")
    assert found.difference == pytest.approx((0.15 + 0.05 + 0.2 / 3) / 3)
    assert (found.n_patients, found.patients_won, found.patients_tied) == (3, 3, 0)
    assert (found.n_slices, found.slices_won, found.slices_tied) == (6, 4, 1)
    assert found.test.p == pytest.approx(2 / 8)  # all three positive: the smallest that three patients can give
    assert found.test.smallest_p == pytest.approx(2 / 8)
    assert found.interval.low <= found.difference <= found.interval.high
    assert found.interval.over == "patients"


def test_swapping_the_pair_only_turns_the_sign() -> None:
    forth, back = paired_by_patient(pair(), "a", "b"), paired_by_patient(pair(), "b", "a")
    assert back.difference == pytest.approx(-forth.difference)
    assert back.test.p == forth.test.p
    assert back.slices_won == forth.n_slices - forth.slices_won - forth.slices_tied


def test_of_errors_the_lower_wins() -> None:
    found = paired_by_patient(pair(), "a", "b", higher_is_better=False)
    assert (found.slices_won, found.slices_tied, found.patients_won) == (1, 1, 0)
    assert found.difference > 0  # still a minus b


def test_three_patients_by_hand() -> None:
    # sums of |±1 ±2 ±4| over eight patterns: 7 7 5 5 3 3 1 1; observed 1 + 4 - 2 = 3, reached by six of eight
    assert paired_test(np.array([1.0, -2.0, 4.0])).p == pytest.approx(6 / 8)


def test_five_patients_give_the_p_worked_out_by_hand() -> None:
    # observed 3 + 4 + 5 + 6 - 1 = 17; only 19 (all of one sign) and 17 reach it, each with its mirror: 4 of 32
    found = paired_test(np.array([3.0, 4.0, -1.0, 5.0, 6.0]))
    assert found.p == pytest.approx(4 / 32)
    assert found.smallest_p == pytest.approx(2 / 32)
    assert found.name == "exact sign-flip"


@given(st.lists(st.integers(-9, 9).map(float), min_size=2, max_size=7))
@settings(max_examples=25, deadline=None)
def test_the_exact_test_counts_every_pattern_of_signs(differences: list[float]) -> None:
    found = paired_test(np.array(differences))
    assert found.p == pytest.approx(two_sided(differences))
    assert found.p >= found.smallest_p


def test_the_smallest_p_is_reached_when_all_patients_agree() -> None:
    for n in range(2, 9):
        found = paired_test(np.arange(1.0, n + 1))
        assert found.p == pytest.approx(found.smallest_p) == pytest.approx(2 / 2**n)


def test_wilcoxon_is_scipys_and_has_the_same_smallest_p() -> None:
    differences = np.array([0.4, 0.1, -0.2, 0.5, 0.3, 0.7])
    # by hand: the ranks of the negative differences sum to 2; 0, 1 and 2 are reached by one subset each: 2 x 3 / 64
    found = paired_test(differences, "wilcoxon")
    assert found.p == pytest.approx(6 / 64) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)
    assert paired_test(np.abs(differences), "wilcoxon").p == pytest.approx(found.smallest_p)


def test_one_patient_is_no_test_and_says_nothing_of_new_patients() -> None:
    one = pair().query("patient == 'r'")
    found = paired_by_patient(one, "a", "b")
    assert found.test.name == "no test"
    assert np.isnan(found.test.p)
    assert np.isnan(found.test.smallest_p)
    assert found.interval.over == "slices"
    assert found.difference == pytest.approx(0.2 / 3)


def test_equal_entries_are_never_told_apart() -> None:
    same = long(np.repeat(np.linspace(0.1, 0.4, 6)[:, None], 2, axis=1), list("aabbcc"))
    for test in ("sign-flip", "wilcoxon"):
        assert paired_by_patient(same, "e0", "e1", test=test).test.p == 1.0  # type: ignore[arg-type]


def test_many_patients_are_tested_by_random_patterns_near_the_exact_value() -> None:
    differences = np.random.default_rng(3).normal(0.35, 1, EXACT_PATIENTS + 1)
    found = paired_test(differences)
    signs = np.array(list(itertools.product((1, -1), repeat=len(differences))))
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
    assert found.p == pytest.approx(exact, abs=4 * np.sqrt(exact / RANDOM_FLIPS) * 2)
    assert found.smallest_p == pytest.approx(2 / 2 ** (EXACT_PATIENTS + 1))
    assert paired_test(np.ones(40)).p == paired_test(np.ones(40)).smallest_p == pytest.approx(2 / (RANDOM_FLIPS + 1))


def test_under_no_difference_the_test_is_not_wrong_more_often_than_it_says() -> None:
    rng = np.random.default_rng(11)
    p = np.array([paired_test(rng.normal(size=6)).p for _ in range(300)])
    assert (p <= 0.25).mean() < 0.25 + 3 * np.sqrt(0.25 * 0.75 / 300)
    assert (p <= 0.25).mean() > 0.12  # and has not become useless


@given(st.permutations(range(12)), st.floats(-5, 5))
@settings(max_examples=15, deadline=None)
def test_neither_the_order_of_rows_nor_a_constant_changes_a_comparison(order: list[int], constant: float) -> None:
    found, again = paired_by_patient(pair(), "a", "b"), paired_by_patient(pair().iloc[order], "a", "b")
    assert again == found
    moved = paired_by_patient(pair().assign(value=pair()["value"] + constant), "a", "b")
    assert moved.difference == pytest.approx(found.difference)
    assert (moved.test, moved.slices_won, moved.slices_tied) == (found.test, found.slices_won, found.slices_tied)


def against_the_leader(values: np.ndarray) -> list[Comparison]:
    """``values``: (n_patients, n_entries), a slice each; the entry of highest mean against every other."""
    table = long(values, [f"p{i}" for i in range(len(values))])
    leader = int(values.mean(axis=0).argmax())
    others = [j for j in range(values.shape[1]) if j != leader]
    return [paired_by_patient(table, f"e{leader}", f"e{j}") for j in others]


def test_the_best_of_all_is_as_sure_as_its_weakest_comparison() -> None:
    # seven patients; e0 is ahead of e1 on all of them (2 / 128), of e2 on all but the smallest difference (4 / 128)
    values = np.array([[0.5, 0.5 - 0.1 * i, 0.5 - 0.1 * i if i > 1 else 0.55] for i in range(1, 8)])
    found = against_the_leader(values)
    assert [comparison.test.p for comparison in found] == [pytest.approx(2 / 128), pytest.approx(4 / 128)]
    assert ahead_of_all(found) == pytest.approx(4 / 128)
    assert ahead_of_all(found[:1]) == pytest.approx(2 / 128)
    assert ahead_of_all(found, higher_is_better=False) == 1.0  # of errors it is the worst of all


def test_who_is_behind_one_is_not_ahead_of_all_and_one_patient_is_no_claim() -> None:
    table = pair()
    behind = paired_by_patient(table, "b", "a")
    assert ahead_of_all([behind]) == 1.0
    assert ahead_of_all([behind], higher_is_better=False) == pytest.approx(2 / 8)
    assert np.isnan(ahead_of_all([paired_by_patient(table.query("patient == 'r'"), "a", "b")]))
    with pytest.raises(ValueError, match="at least one other"):
        ahead_of_all([])


@pytest.mark.parametrize("gaps", [(0.0,), (0.0, 0.0), (0.0, -9.0, -9.0), (0.0, 0.0, 0.0, 0.0), (0.0, -0.3, -9.0)])
def test_a_leader_that_is_not_the_best_is_seldom_called_so_though_it_was_picked_by_its_scores(
    gaps: tuple[float, ...],
) -> None:
    """``gaps``: how far the others are truly below entry 0. Scores of a patient move together, as real ones do."""
    rng, n, level = np.random.default_rng(5), 2000, 0.05
    true = np.array([0.0, *gaps])
    best = np.flatnonzero(true == true.max())
    signs = np.array(list(itertools.product((1, -1), repeat=7)))
    like = paired_by_patient(pair(), "a", "b")
    wrong = 0
    for _ in range(n):
        values = true + rng.normal(size=(7, 1)) + rng.normal(size=(7, len(true)))
        leader = int(values.mean(axis=0).argmax())
        differences = values[:, [leader]] - np.delete(values, leader, axis=1)
        p = (np.abs(signs @ differences) >= np.abs(differences.sum(axis=0)) - 1e-12).mean(axis=0)
        found = [
            replace(like, difference=of, test=replace(like.test, p=of_p))
            for of, of_p in zip(differences.mean(axis=0), p, strict=True)
        ]
        wrong += ahead_of_all(found) <= level and (len(best) > 1 or leader not in best)
    assert wrong / n < level + 2 * np.sqrt(level * (1 - level) / n)


def test_only_slices_that_both_have_are_compared() -> None:
    without = pair().query("not (entry == 'b' and slice == 'r3')")
    found = paired_by_patient(without, "a", "b")
    assert (found.n_patients, found.n_slices) == (3, 5)
    assert list(patient_differences(without, "a", "b")) == pytest.approx([0.15, 0.05, -0.025])


def test_bad_scores_are_refused_in_one_line() -> None:
    twice = pd.concat([pair(), pair().head(1)])
    moved = pair().assign(patient=[f"x{i}" for i in range(12)])
    for table, complaint in (
        (twice, "two scores on slice p1"),
        (moved, "slice p1 belongs to two patients"),
        (pair().drop(columns="patient"), "no column patient"),
        (pair().head(0), "no rows"),
    ):
        with pytest.raises(UserError, match=complaint):
            paired_by_patient(table, "a", "b")
    with pytest.raises(UserError, match="c is not among the scores"):
        paired_by_patient(pair(), "a", "c")
    apart = pair().query("(entry == 'a') == (patient == 'p')")
    with pytest.raises(UserError, match="share no slice"):
        paired_by_patient(apart, "a", "b")
    with pytest.raises(UserError, match="b has no score on slice p1"):
        mean_ranks(pair().query("not (entry == 'b' and slice == 'p1')"))


def test_holm_is_that_worked_out_by_hand() -> None:
    # sorted 0.01 0.02 0.03 0.04 times 4 3 2 1: 0.04 0.06 0.06 0.04, made monotone
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([]).size == 0


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    assert holm([0.01, np.nan, 0.04]) == pytest.approx([0.02, np.nan, 0.04], nan_ok=True)
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, 1.5])


def test_holm_agrees_with_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).random(20) ** 3
    assert holm(p) == pytest.approx(multitest.multipletests(p, method="holm")[1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(deadline=None)
def test_holm_keeps_the_order_and_never_helps(p_values: list[float]) -> None:
    p, corrected = np.array(p_values), holm(p_values)
    assert (corrected >= p).all()
    assert (corrected <= np.minimum(1, len(p) * p)).sum() >= 1  # the smallest is Bonferroni's
    assert (corrected >= min(1, len(p) * p.min()) - 1e-15).all()  # no value can be below m times the smallest
    assert (np.diff(corrected[np.argsort(p, kind="stable")]) >= 0).all()


def scores_of(values: list[list[float]]) -> pd.DataFrame:
    """One list of slices' values a patient."""
    rows = [(f"p{i}", f"p{i}s{j}", value) for i, of in enumerate(values) for j, value in enumerate(of)]
    return pd.DataFrame(rows, columns=["patient", "slice", "value"])


def test_two_patients_with_a_slice_each_are_drawn_as_by_hand() -> None:
    # four equally likely draws: both the first (0), one of each (0.5, twice), both the second (1)
    found = bootstrap_interval(scores_of([[0.0], [1.0]]), np.random.default_rng(0), n=4000, level=0.4)
    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)
    wide = bootstrap_interval(scores_of([[0.0], [1.0]]), np.random.default_rng(0), level=0.95)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_slices_are_drawn_within_patients_only() -> None:
    # a patient without spread keeps its mean whatever slices are drawn; only patients move
    found = bootstrap_interval(scores_of([[0.0, 0.0, 0.0], [1.0]]), np.random.default_rng(0), level=0.95)
    assert found.mean == 0.5  # not the mean over slices, 0.25
    assert (found.low, found.high) == (0.0, 1.0)
    assert (found.over, found.n_patients, found.n_slices) == ("patients", 2, 4)


def test_one_patient_is_drawn_by_slices_and_one_slice_not_at_all() -> None:
    values = list(np.random.default_rng(0).normal(size=200))
    found = bootstrap_interval(scores_of([values]), np.random.default_rng(1))
    half = 1.96 * np.std(values) / np.sqrt(200)
    assert found.over == "slices"
    assert (found.low, found.high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.02)
    one = bootstrap_interval(scores_of([[0.3]]), np.random.default_rng(0))
    assert (one.over, one.mean) == ("nothing", 0.3)
    assert np.isnan(one.low)


def test_intervals_of_many_patients_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(5)
    held = 0
    for _ in range(200):
        means = rng.normal(0, 1, 20)
        table = scores_of([list(rng.normal(mean, 0.5, 1 + i % 3)) for i, mean in enumerate(means)])
        found = bootstrap_interval(table, rng, n=400)
        held += found.low <= 0 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_an_interval_does_not_depend_on_the_order_of_rows() -> None:
    table = scores_of([[0.1, 0.5], [0.3], [0.2, 0.9, 0.4]])
    found = [bootstrap_interval(t, np.random.default_rng(2)) for t in (table, table.iloc[::-1])]
    assert found[0] == found[1]


@pytest.mark.parametrize(("k", "q"), zip(range(2, 11), Q_05, strict=True))
def test_the_critical_difference_is_the_printed_one(k: int, q: float) -> None:
    assert critical_difference(k, 14) == pytest.approx(q * np.sqrt(k * (k + 1) / (6 * 14)), abs=1e-3)


def test_ranks_are_taken_within_patients_and_ties_share_one() -> None:
    values = np.array([[0.3, 0.1, 0.2], [0.5, 0.1, 0.2], [0.1, 0.1, 0.4]])  # slices of patients a, a and b
    found = mean_ranks(long(values, ["a", "a", "b"]))
    assert found.ranks.loc["a"].tolist() == [1, 3, 2]
    assert found.ranks.loc["b"].tolist() == [2.5, 2.5, 1]
    assert found.mean.to_dict() == {"e2": 1.5, "e0": 1.75, "e1": 2.75}
    assert mean_ranks(long(values, ["a", "a", "b"]), higher_is_better=False).mean.idxmin() == "e1"


def test_friedman_is_the_formula_of_its_paper() -> None:
    values = np.random.default_rng(0).random((12, 4)) + np.array([0, 0.1, 0.2, 0.3])
    found = mean_ranks(long(values, [f"p{i:02d}" for i in range(12)]))
    n, k = 12, 4
    statistic = 12 * n / (k * (k + 1)) * ((found.mean**2).sum() - k * (k + 1) ** 2 / 4)  # Demsar 2006, section 3.2.2
    assert found.friedman_p == pytest.approx(stats.chi2.sf(statistic, k - 1))


def test_groups_join_exactly_those_closer_than_the_critical_difference() -> None:
    n = 20  # patients, three entries in a fixed order and a fourth always far behind: CD is 1.05
    values = np.tile([0.9, 0.8, 0.7, 0.1], (n, 1))
    values[::2, [0, 1]] = values[::2, [1, 0]]  # the first two take turns: mean ranks 1.5 1.5 3 4
    found = mean_ranks(long(values, [f"p{i:02d}" for i in range(n)]))
    assert found.mean.tolist() == [1.5, 1.5, 3.0, 4.0]
    assert found.critical_difference == pytest.approx(2.569 * np.sqrt(20 / 120), abs=1e-3)
    assert found.separates
    assert [set(group) for group in found.groups] == [{"e0", "e1"}, {"e2", "e3"}]


def test_few_patients_separate_nobody() -> None:
    values = np.tile([0.9, 0.5, 0.1], (4, 1))
    found = mean_ranks(long(values, list("abcd")))
    assert not found.separates
    assert found.groups == (("e0", "e1", "e2"),)
    assert mean_ranks(long(values[:, [0, 0, 0]], list("abcd"))).friedman_p == 1.0


def test_wins_are_counted_for_every_pair() -> None:
    wins = win_matrix(pair()).set_index(["entry", "other"])
    assert wins.loc[("a", "b")].to_dict() == {
        **{"slices_won": 4, "slices_tied": 1, "n_slices": 6},
        **{"patients_won": 3, "patients_tied": 0, "n_patients": 3},
    }
    assert wins.loc[("b", "a"), ["slices_won", "slices_tied"]].tolist() == [1, 1]


def test_wins_are_those_of_the_comparison_also_where_scores_are_missing() -> None:
    values = np.random.default_rng(1).random((7, 3)).round(1)
    table = long(values, list("aabbccc")).query("not (entry == 'e1' and slice == 's002')")
    wins = win_matrix(table, higher_is_better=False).set_index(["entry", "other"])
    for a, b in itertools.permutations(["e0", "e1", "e2"], 2):
        found = paired_by_patient(table, a, b, higher_is_better=False)
        row = wins.loc[(a, b)]
        assert (row["slices_won"], row["slices_tied"], row["n_slices"]) == (
            found.slices_won,
            found.slices_tied,
            found.n_slices,
        )
        assert (row["patients_won"], row["n_patients"]) == (found.patients_won, found.n_patients)


def over(values: dict[str, list[float]]) -> pd.DataFrame:
    rows = [(name, f"p{i}", value) for name, of in values.items() for i, value in enumerate(of)]
    return pd.DataFrame(rows, columns=["stratum", "patient", "value"])


def test_patients_of_all_datasets_count_together() -> None:
    found = stratified_test(over({"x": [0.1, 0.2, 0.3], "y": [0.5, 0.1]}))
    assert found.n_patients == 5
    assert found.test.p == pytest.approx(2 / 32) == pytest.approx(found.test.smallest_p)
    assert found.strata.set_index("stratum")["difference"].to_dict() == pytest.approx({"x": 0.2, "y": 0.3})


def test_a_dataset_of_larger_scores_does_not_weigh_more() -> None:
    differences = {"x": [0.1, -0.2, 0.3, 0.2], "y": [0.5, 0.1, -0.2]}
    found = stratified_test(over(differences))
    larger = stratified_test(over({**differences, "y": [1000 * value for value in differences["y"]]}))
    assert larger.test.p == pytest.approx(found.test.p)
    standard = [v / np.sqrt(np.mean(np.square(of))) for of in differences.values() for v in of]
    assert found.test.p == pytest.approx(two_sided(standard))


def test_a_dataset_without_any_difference_adds_nothing() -> None:
    found = stratified_test(over({"x": [0.1, 0.2, 0.3], "y": [0.0, 0.0]}))
    assert found.test.p == pytest.approx(2 / 8)


TRUTH = {"method": 0.5, "patient": 1.0, "slice": 0.6, "method × patient": 0.4, "method × slice": 0.3, "seed": 0.2}


def simulated(rng: np.random.Generator, n_methods: int, sizes: list[int], n_seeds: int) -> pd.DataFrame:
    """Scores with the components ``TRUTH`` (standard deviations); ``sizes``: slices of each patient."""
    patient = np.repeat(np.arange(len(sizes)), sizes)
    draw = {name: lambda *shape, s=scale: rng.normal(0, s, shape) for name, scale in TRUTH.items()}
    n = len(patient)
    cell = draw["method"](n_methods, 1) + draw["patient"](len(sizes))[patient] + draw["slice"](n)
    cell = cell + draw["method × patient"](n_methods, len(sizes))[:, patient] + draw["method × slice"](n_methods, n)
    values = cell[..., None] + draw["seed"](n_methods, n, n_seeds)
    index = np.indices(values.shape).reshape(3, -1)
    return pd.DataFrame(
        {"entry": index[0], "slice": index[1], "patient": patient[index[1]], "seed": index[2], "value": values.ravel()}
    ).astype({"entry": str, "slice": str, "patient": str})


@pytest.mark.parametrize("sizes", [[3] * 8, [1, 2, 6, 3, 1, 5, 4, 2]], ids=["balanced", "unequal numbers of slices"])
def test_components_of_variance_are_recovered_without_bias(sizes: list[int]) -> None:
    rng = np.random.default_rng(7)
    made = [variance_components(simulated(rng, 6, sizes, 2)).table.set_index("source")["estimate"] for _ in range(150)]
    estimates = pd.DataFrame(made)
    error = estimates.std() / np.sqrt(len(estimates))
    assert set(estimates) == set(TRUTH)
    for source, scale in TRUTH.items():
        assert estimates[source].mean() == pytest.approx(scale**2, abs=4 * error[source]), source


def test_a_balanced_two_way_table_is_split_as_by_hand() -> None:
    # method means 1 and 3, slice means 1, 2 and 3, no interaction: mean squares 6, 2 and 0
    values = np.array([[0.0, 1.0, 2.0], [2.0, 3.0, 4.0]]).T
    found = variance_components(long(values, ["a", "b", "c"]).assign(seed=0))
    table = found.table.set_index("source")
    assert table["mean_square"].to_dict() == pytest.approx({"method": 6.0, "patient": 2.0, "method × patient": 0.0})
    assert table["variance"].to_dict() == pytest.approx({"method": 2.0, "patient": 1.0, "method × patient": 0.0})
    assert table["share"].sum() == pytest.approx(1)
    assert any("one slice" in note for note in found.notes)
    assert any("One seed" in note for note in found.notes)


def test_mean_squares_of_the_full_design_add_up_to_the_total() -> None:
    scores = simulated(np.random.default_rng(0), 4, [1, 3, 2], 3)
    table = variance_components(scores).table
    total = ((scores["value"] - scores["value"].mean()) ** 2).sum()
    assert (table["df"] * table["mean_square"]).sum() == pytest.approx(total)
    assert table["df"].sum() == len(scores) - 1


def test_one_patient_leaves_slices_alone() -> None:
    found = variance_components(simulated(np.random.default_rng(0), 3, [5], 2))
    assert list(found.table["source"]) == ["method", "slice", "method × slice", "seed"]
    assert any("one patient" in note for note in found.notes)


def test_what_is_not_crossed_is_left_out_and_said() -> None:
    scores = simulated(np.random.default_rng(0), 3, [2, 2], 2)
    full = variance_components(scores[(scores["slice"] != "3") & (scores["seed"] != 1)])
    gaps = scores[~((scores["entry"] == "0") & ((scores["slice"] == "3") | (scores["seed"] == 1)))]
    found = variance_components(gaps)
    pd.testing.assert_frame_equal(found.table, full.table)
    assert any("1 of 4 slices left out" in note for note in found.notes)
    assert any("1 of 2 seeds left out" in note for note in found.notes)
    with pytest.raises(UserError, match="two entries with two slices"):
        variance_components(scores[scores["entry"] == "0"])


@given(st.randoms(use_true_random=False), st.floats(-3, 3))
@settings(max_examples=10, deadline=None)
def test_neither_order_nor_a_constant_changes_the_split(random, constant: float) -> None:
    scores = simulated(np.random.default_rng(1), 3, [2, 3], 2)
    order = random.sample(range(len(scores)), len(scores))
    again = variance_components(scores.iloc[order].assign(value=lambda t: t["value"] + constant)).table
    pd.testing.assert_frame_equal(again, variance_components(scores).table)
