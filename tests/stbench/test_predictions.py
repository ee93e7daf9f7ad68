"""What counts as a prediction, and that a table is read by its names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stbench.errors import MethodFailed
from stbench.trials.predictions import as_prediction

GENES = ("A", "B", "C")
VALUES = np.arange(12, dtype=np.float32).reshape(4, 3) / 8  # exact in half precision, too
SLIDE: Any = SimpleNamespace(id="S1", n_spots=4)
LEAF = torch.tensor(VALUES, requires_grad=True)


@pytest.mark.parametrize(
    "value",
    [
        VALUES,
        VALUES.astype(np.float64),
        VALUES.astype(np.float16),
        np.asfortranarray(VALUES),
        np.ma.array(VALUES),
        LEAF,
        LEAF * 1,
        torch.tensor(VALUES, dtype=torch.bfloat16),
        torch.tensor(VALUES, dtype=torch.float64).T.contiguous().T,
        pd.DataFrame(VALUES, columns=GENES),
    ],
    ids=str,
)
def test_the_same_numbers_in_any_plain_form_are_the_same_prediction(value: Any) -> None:
    prediction = as_prediction(value, SLIDE, GENES, "mine")
    np.testing.assert_array_equal(prediction, VALUES)
    assert prediction.dtype == np.float32
    assert type(prediction) is np.ndarray


def test_integers_are_numbers() -> None:
    whole = np.arange(12).reshape(4, 3)
    np.testing.assert_array_equal(as_prediction(whole, SLIDE, GENES, "mine"), whole)


def test_a_prediction_is_a_copy() -> None:
    for value in (given_array := VALUES.copy(), torch.from_numpy(given_array)):
        prediction = as_prediction(value, SLIDE, GENES, "mine")
        given_array[0, 0] = 99
        assert prediction[0, 0] != 99
        given_array[:] = VALUES


@given(st.permutations(range(3)))
def test_the_genes_of_a_table_in_any_order_are_put_into_the_slides_order(columns: list[int]) -> None:
    table = pd.DataFrame(VALUES, columns=GENES).iloc[:, columns]
    np.testing.assert_array_equal(as_prediction(table, SLIDE, GENES, "mine"), VALUES)


@pytest.mark.parametrize(
    ("table", "side"),
    [
        (pd.DataFrame(VALUES), "columns are not the genes"),
        (pd.DataFrame(VALUES, columns=["A", "B", "D"]), "columns are not the genes"),
        (pd.DataFrame(VALUES, columns=["A", "B", "B"]), "columns are not the genes"),
        (pd.DataFrame(VALUES, columns=GENES, index=[3, 2, 1, 0]), "index does not count the spots"),
        (pd.DataFrame(VALUES, columns=GENES, index=["a", "b", "c", "d"]), "index does not count the spots"),
    ],
)
def test_a_table_whose_names_do_not_agree_is_refused(table: pd.DataFrame, side: str) -> None:
    with pytest.raises(MethodFailed, match=f"mine predicted a DataFrame for slice S1.*{side}"):
        as_prediction(table, SLIDE, GENES, "mine")
