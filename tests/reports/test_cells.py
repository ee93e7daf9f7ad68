"""Numbers as cells: an undefined one is said, and sorted last."""

import math

import pytest

from stbench.reports.tables.cells import amount_cell, count_cell, number_cell, rank_cell, text_cell, worded_cell
from stbench.reports.tables.table import Cell
from stbench.system.wording import listed


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (number_cell(-0.12345), Cell("−0.1235", -0.12345)),
        (number_cell(0.5, 2, strong=True, minor="rank 1"), Cell("0.50", 0.5, strong=True, minor="rank 1")),
        (number_cell(math.nan, undefined="undefined", strong=True, minor="rank 1"), Cell("undefined")),
        (count_cell(12.0), Cell("12", 12.0)),
        (count_cell(math.nan), Cell("–")),
        (amount_cell(1234.56), Cell("1,235", 1234.56)),
        (amount_cell(1234.56, 1), Cell("1,234.6", 1234.56)),
        (amount_cell(math.nan), Cell("–")),
        (rank_cell(3.0, strong=True), Cell("3", 3.0, strong=True)),
        (rank_cell(math.nan), Cell("–")),
        (worded_cell("holds", 1.0), Cell("holds", 1.0)),
        (worded_cell("cannot be decided", math.nan), Cell("cannot be decided")),
        (text_cell("B4"), Cell("B4", "B4")),
    ],
)
def test_a_number_is_printed_and_sorted_by(cell: Cell, expected: Cell) -> None:
    assert cell == expected


def test_names_are_listed_with_commas_and_one_and() -> None:
    assert listed(["A"]) == "A"
    assert listed(["A", "B"]) == "A and B"
    assert listed(("A", "B", "C")) == "A, B and C"
