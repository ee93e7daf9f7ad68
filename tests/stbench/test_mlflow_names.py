"""Any name has a name in MLflow, of its own."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import path_not_unique, validate_param_and_metric_name

from stbench.results.tracking.names import LONGEST, joined, read, written

awkward = st.text(st.sampled_from("_x2B5FA0+/. ²é肝$-:"), min_size=1, max_size=12) | st.text(min_size=1, max_size=40)


@given(awkward)
def test_a_name_is_read_back(name: str) -> None:
    assert read(written(name)) == name


@given(st.lists(awkward, min_size=1, max_size=5))
def test_mlflow_takes_any_joined_name(parts: list[str]) -> None:
    name = joined(*parts)
    assert validate_param_and_metric_name(name)
    assert not path_not_unique(name)
    assert len(name) <= LONGEST


@given(st.lists(awkward, min_size=1, max_size=4), st.lists(awkward, min_size=1, max_size=4))
def test_different_parts_give_different_names(one: list[str], other: list[str]) -> None:
    assert (joined(*one) == joined(*other)) == (one == other)


def test_usual_names_stay_as_they_are_and_long_ones_stay_apart() -> None:
    assert (
        joined("her2st", "loso", "spot-log10-cp10k", "stnet", "pcc_acg") == "her2st/loso/spot-log10-cp10k/stnet/pcc_acg"
    )
    assert joined("mse", "A+B") == "mse/A_x2B_B"
    assert joined("n" * 300, "a") != joined("n" * 300, "b")
