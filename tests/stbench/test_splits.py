"""Splits: every slice is tested exactly once, nothing is on both sides, and shared patients are stated."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.data.splits import SPLITS, Fold, kfold, lopo, loso, make_folds, same_patient
from stbench.errors import UserError

HER2ST = {"B4": "B", "C2": "C", "C3": "C", "C4": "C", "C5": "C", "C6": "C"}

datasets = st.lists(st.sampled_from("PQRS"), min_size=2, max_size=14).map(
    lambda patients: {f"S{i}": patient for i, patient in enumerate(patients)}
)


def check_partition(folds: list[Fold], patients: dict[str, str]) -> None:
    order = list(patients)
    tested = [slice_id for fold in folds for slice_id in fold.test]
    assert sorted(tested) == sorted(order)
    assert len({fold.name for fold in folds}) == len(folds)
    for fold in folds:
        assert fold.test
        assert fold.train
        assert set(fold.test) | set(fold.train) == set(order)
        assert not set(fold.test) & set(fold.train)
        for side in (fold.test, fold.train, fold.same_patient):
            assert list(side) == sorted(side, key=order.index)
        tested_patients = {patients[s] for s in fold.test}
        assert set(fold.same_patient) == {s for s in fold.train if patients[s] in tested_patients}


@given(datasets)
def test_loso_tests_each_slice_alone_in_the_datasets_order(patients: dict[str, str]) -> None:
    folds = loso(patients)
    check_partition(folds, patients)
    assert [fold.test for fold in folds] == [(slice_id,) for slice_id in patients]
    assert [fold.name for fold in folds] == list(patients)


@given(datasets)
def test_lopo_never_trains_on_a_tested_patient(patients: dict[str, str]) -> None:
    if len(set(patients.values())) < 2:
        with pytest.raises(UserError, match="leave-one-patient-out needs two patients"):
            lopo(patients)
        return
    folds = lopo(patients)
    check_partition(folds, patients)
    assert all(not fold.same_patient for fold in folds)
    assert [fold.name for fold in folds] == list(dict.fromkeys(patients.values()))
    assert all({patients[s] for s in fold.test} == {fold.name} for fold in folds)


@given(datasets, st.integers(2, 14), st.integers(0, 5))
def test_kfold_folds_differ_in_size_by_one_at_most(patients: dict[str, str], k: int, seed: int) -> None:
    if k > len(patients):
        with pytest.raises(UserError, match=f"k = {k} needs {k} slices, there are {len(patients)}"):
            kfold(patients, k, seed)
        return
    folds = kfold(patients, k, seed)
    check_partition(folds, patients)
    assert len(folds) == k
    sizes = [len(fold.test) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert kfold(patients, k, seed) == folds


def test_kfold_is_shuffled_by_its_seed() -> None:
    patients = {f"S{i}": "P" for i in range(12)}
    assert len({tuple(fold.test for fold in kfold(patients, 4, seed)) for seed in range(10)}) > 5
    assert [fold.name for fold in kfold(patients, 4)] == ["1of4", "2of4", "3of4", "4of4"]


def test_folds_do_not_depend_on_the_hash_seed() -> None:
    """The published training lists come from a Python set, whose order changes from process to process."""
    code = """
from stbench.data.splits import kfold, loso
patients = {f"S{i}": f"P{i // 3}" for i in range(9)}
print(kfold(patients, 3), loso(patients))
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "Fold(name='S0'" in outputs.pop()


def test_the_six_her2st_sections_at_hand() -> None:
    folds = {fold.name: fold for fold in loso(HER2ST)}
    assert folds["B4"].same_patient == ()
    assert folds["C3"].same_patient == ("C2", "C4", "C5", "C6")
    assert [fold.name for fold in lopo(HER2ST)] == ["B", "C"]


def test_a_fold_states_in_words_what_it_trains_on() -> None:
    folds = loso(HER2ST)
    assert folds[0].statement() == "B4 held out; 0 of 5 training slices are of the same patient"
    assert folds[1].statement() == "C2 held out; 4 of 5 training slices are of the same patient"
    assert lopo({"A1": "A", "A2": "A", "B1": "B"})[0].statement() == (
        "A1 and A2 held out; 0 of 1 training slices share a patient with them"
    )
    mixed = Fold("1of2", ("A1", "B1", "C1"), ("A2", "D1"), ("A2",))
    assert mixed.statement() == "A1, B1 and C1 held out; 1 of 2 training slices share a patient with them"


def test_one_slices_share_of_a_fold_can_be_asked_for() -> None:
    patients = {"A1": "A", "A2": "A", "B1": "B", "B2": "B"}
    assert same_patient(["A1"], ["A2", "B2"], patients) == ("A2",)
    assert same_patient(["A1", "B1"], ["A2", "B2"], patients) == ("A2", "B2")


@pytest.mark.parametrize("patients", [{}, {"block1": "10x"}])
def test_loso_needs_two_slices(patients: dict[str, str]) -> None:
    with pytest.raises(UserError, match="leave-one-slice-out needs two slices, there is") as caught:
        loso(patients)
    assert "\n" not in str(caught.value)


def test_kfold_needs_two_folds() -> None:
    with pytest.raises(UserError, match="at least two folds, not 1"):
        kfold(HER2ST, 1)


def test_folds_are_made_by_name() -> None:
    assert make_folds("loso", HER2ST) == loso(HER2ST)
    assert make_folds("lopo", HER2ST) == lopo(HER2ST)
    assert make_folds("kfold", HER2ST, k=3, seed=7) == kfold(HER2ST, 3, 7)
    assert set(SPLITS) == {"loso", "lopo", "kfold"}
    with pytest.raises(UserError, match="unknown split 'losso' - did you mean 'loso'"):
        make_folds("losso", HER2ST)
