"""Tables become Markdown and LaTeX that say the same and break on no character of the data."""

import math

import pytest

from stbench.reports.tables.latex import latex, latex_escape
from stbench.reports.tables.markdown import markdown
from stbench.reports.tables.table import Cell, Table
from stbench.reports.words.format import number, plus_minus

TABLE = Table(
    name="t",
    caption="HER2+, 6/32 slices",
    columns=("method", "slices", "PCC"),
    groups=(("", 2), ("paper pack", 1)),
    blocks=(
        ((Cell("A_b|c", tags=("quick",)), Cell("6/6"), Cell("0.2 ± 0.1", 0.2, strong=True, minor="seeds ± 0.01")),),
        ((Cell("control"), Cell("5/6 †"), Cell("−0.1", -0.1)),),
    ),
    notes=("50 % of the spots",),
)


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (0.12345, 0.0171, "0.1235 ± 0.017"),
        (-0.05, 0.0, "−0.0500 ± 0.000"),
        (0.5, math.nan, "0.5000"),
        (math.nan, math.nan, "–"),
    ],
)
def test_a_mean_is_printed_as_in_the_paper(mean: float, spread: float, text: str) -> None:
    assert plus_minus(mean, spread) == text


def test_numbers_have_a_true_minus_sign() -> None:
    assert number(-0.5, 2) == "−0.50"
    assert number(-2.71e18) == "−2.7e+18"


def test_markdown_has_one_line_a_row_with_the_same_number_of_cells() -> None:
    text = markdown(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| method | slices | paper pack: PCC |"
    assert lines[1] == "| --- | ---: | ---: |"
    assert lines[2] == r"| A\_b\|c (quick) | 6/6 | **0.2 ± 0.1 (seeds ± 0.01)** |"
    assert lines[3] == "|  |  |  |"  # controls are set apart
    assert {line.replace(r"\|", "").count("|") for line in lines} == {4}
    assert text.startswith("**HER2+, 6/32 slices**\n\n")
    assert text.endswith("- 50 % of the spots\n")


def test_latex_has_booktabs_rules_and_escaped_cells() -> None:
    text = latex(TABLE)
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    assert text.count("\\midrule") == 2  # under the header and above the controls
    assert "\\cmidrule(lr){3-3}" in body
    assert "A\\_b\\textbar{}c (quick) & 6/6 & {\\boldmath\\bfseries 0.2 $\\pm$ 0.1 (seeds $\\pm$ 0.01)} \\\\" in body
    assert "control & 5/6 $\\dagger$ & $-$0.1 \\\\" in body
    assert "50 \\% of the spots" in text
    assert text.count("{") == text.count("}")


def test_every_special_character_of_latex_is_escaped() -> None:
    assert latex_escape("a&b%c$d#e_f{g}h~i^j\\k") == (
        "a\\&b\\%c\\$d\\#e\\_f\\{g\\}h\\textasciitilde{}i\\textasciicircum{}j\\textbackslash{}k"
    )
    assert latex_escape("two\nlines") == "two lines"
