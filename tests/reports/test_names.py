"""Names in figures are broken where a reader would break them, and always fit."""

from hypothesis import given
from hypothesis import strategies as st

from stbench.reports.figures.labels import broken


def test_what_is_in_brackets_stands_in_a_line_of_its_own() -> None:
    assert broken("STnet (quick)", 19) == "STnet (quick)"
    assert broken("kNN on features (random weights)", 22) == "kNN on features\n(random weights)"
    assert broken("A (b) c (quick, 5/6)", 14) == "A (b) c\n(quick, 5/6)"


def test_where_the_brackets_are_too_long_words_are_broken_anywhere() -> None:
    assert broken("STnet (quick, random weights)", 19) == "STnet (quick,\nrandom weights)"


def test_what_does_not_fit_is_cut_with_an_ellipsis() -> None:
    assert broken("one two three four five", 9, max_lines=2) == "one two\nthree …"


@given(st.text("ab ()", min_size=1, max_size=60), st.integers(4, 30))
def test_no_line_is_longer_than_it_may_be_and_no_letter_is_lost(name: str, width: int) -> None:
    lines = broken(name, width).split("\n")
    assert max(map(len, lines)) <= width
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")
