"""A name in a table stays what it is, and a number keeps its last bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.errors import UserError
from stbench.system.tables import read_csv

AWKWARD = ["NA", "None", "nan", "null", "", "True", "1", "01", "1e3", "-", "inf", "#N/A", ' "x", y', "[a]", "1-Mar"]
ROOT = Path(__file__).parents[2]
names = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12) | st.sampled_from(AWKWARD)


@given(
    table=st.lists(
        st.tuples(names, st.floats(allow_nan=False, width=64), st.integers(-(2**53), 2**53)), min_size=1, max_size=20
    )
)
def test_what_is_written_is_read(table: list[tuple[str, float, int]]) -> None:
    written = pd.DataFrame(table, columns=["slice", "value", "count"]).astype({"value": float, "count": "int64"})
    content = written.to_csv(index=False)
    pd.testing.assert_frame_equal(read_csv(Path("table.csv"), ("slice",), content=content), written)


def test_awkward_names_are_names_and_blanks_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    pd.DataFrame({"slice": AWKWARD, "mse": [np.nan, *np.arange(len(AWKWARD) - 1) / 3]}).to_csv(path, index=False)
    table = read_csv(path, ("slice",))
    assert list(table["slice"]) == AWKWARD
    assert np.isnan(table["mse"][0])
    assert table["mse"][2] == 1 / 3


def test_a_word_among_numbers_is_one_line_that_names_file_and_column(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("slice,mse\nA,0.1\nB,much\n")
    with pytest.raises(
        UserError, match=r"metrics\.csv: column mse holds something other than numbers .*much"
    ) as caught:
        read_csv(path, ("slice",))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_table_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("")
    with pytest.raises(UserError, match=r"metrics\.csv is not a readable table \(No columns.*\) - run the same"):
        read_csv(path)


def test_no_other_module_reads_csv_by_guessing() -> None:
    """The readers of other tools' files turn numeric columns into numbers themselves, and name what is text."""
    guessing = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for folder in ("stbench", "methods", "datasets", "reports")
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in re.sub(r"\(\n\s+", "(", path.read_text(encoding="utf-8")).splitlines()
        if re.search(r"\b(pd|pandas)\.read_(csv|table|fwf|excel)\(", line)
        and not re.search(r"converters=|dtype=str, keep_default_na=False", line)
        and path != ROOT / "stbench" / "system" / "tables.py"
    ]
    assert not guessing
