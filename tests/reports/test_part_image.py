"""The part of the report that says what the image contributes, and the leaderboard's columns about it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from drawn import marks_of
from synthetic import CONTROLS, METHODS, STNET, make_results

from stbench.reports import report
from stbench.reports.figures import canvas
from stbench.reports.numbers.means import exchange_table, leaderboard, over_exchanged_slices
from stbench.reports.parts.image import image_figure, part
from stbench.reports.parts.part import Context
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.markdown import markdown
from stbench.scores.exchange import COLUMNS

MCLSTEXP = METHODS[0]
BLIND = replace(METHODS[4], kept=0.996)  # thitogene
ELSEWHERE = replace(STNET, name="theirs", title="Theirs", preset="external", weights="unknown", kept=None)


def _row(made: object, label: str) -> list[str]:
    (line,) = [line for line in markdown(made.tables[0]).splitlines() if line.startswith(f"| {label}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def _means(section: Section, method: str) -> pd.Series:
    return section.rows[section.rows["method"] == method][["pcc_acg", *COLUMNS]].mean()


@pytest.mark.usefixtures("saved_pictures")
def test_the_lead_says_what_the_best_method_owes_to_the_image(load_fake: Callable[..., Section]) -> None:
    of = load_fake()
    made = part(of, Context([of]))
    means = _means(of, "mclstexp")
    assert made.lead[0] == (
        f"With patches exchanged between the spots of a slice, mclSTExp, the best method, has a PCC (ACG) of "
        f"{means['exchanged_pcc_acg']:.4f} instead of {means['pcc_acg']:.4f}: 70% of its score is owed to the image of "
        "the spot."
    )


@pytest.mark.parametrize(
    ("kept", "words"),
    [(1.0, "owes nothing to the image"), (1.2, "owes nothing to the image"), (-0.1, "all of its score is owed")],
)
def test_the_lead_says_all_and_nothing(load_fake: Callable[..., Section], kept: float, words: str) -> None:
    of = load_fake(methods=(replace(MCLSTEXP, kept=kept), STNET))
    assert words in part(of, Context([of])).lead[0]


def test_a_method_that_hardly_moves_is_named_with_its_share(load_fake: Callable[..., Section]) -> None:
    of = load_fake(methods=(MCLSTEXP, BLIND, *CONTROLS[:2]))
    (named,) = [text for text in part(of, Context([of])).lead if text.startswith("Hardly moved")]
    assert "THItoGene (0.6%)" in named
    assert "mclSTExp" not in named


def test_the_method_that_owes_most_to_the_image_is_named_where_it_is_not_the_best(
    load_fake: Callable[..., Section],
) -> None:
    of = load_fake(methods=(replace(MCLSTEXP, kept=0.9), STNET))
    assert any(text.startswith("The image contributes most to STnet") for text in part(of, Context([of])).lead)


def test_the_table_has_pairs_the_difference_and_the_movement(load_fake: Callable[..., Section]) -> None:
    of = load_fake()
    made = part(of, Context([of]))
    means = _means(of, "mclstexp")
    difference = means["pcc_acg"] - means["exchanged_pcc_acg"]
    row = _row(made, "mclSTExp")
    assert row[1:5] == ["3/3", f"{means['pcc_acg']:.4f}", f"{means['exchanged_pcc_acg']:.4f}", f"{difference:.4f}"]
    assert row[7] == f"{math.sqrt(2) * 0.7:.3f}"
    assert _row(made, "Training mean")[2:] == ["undefined", "undefined", "undefined", "0.0000", "0.0000", "undefined"]


def test_both_numbers_of_a_pair_are_of_the_same_slices() -> None:
    rows = pd.DataFrame(
        {
            "entry": "stnet",
            "slice": ["A", "B", "C"],
            "seed": 0,
            "state": "finished",
            "pcc_acg": [0.1, 0.5, 0.9],
            "strict_pcc_acg": [0.1, 0.5, 0.9],
            "exchanged_move": [1.0, 2.0, math.nan],
            "exchanged_pcc_acg": [0.05, math.nan, math.nan],
            "exchanged_strict_pcc_acg": [0.05, 0.0, math.nan],
        }
    )
    means = over_exchanged_slices(exchange_table(rows), pd.Index(["stnet"])).loc["stnet"]
    assert means["exchanged_slices"] == 2  # C is of an older version
    assert means[["pcc_acg", "exchanged_pcc_acg", "exchanged_move"]].tolist() == pytest.approx([0.1, 0.05, 1.5])


def test_seeds_are_averaged_before_slices(load_fake: Callable[..., Section]) -> None:
    table = exchange_table(load_fake(seeds=(0, 1)).rows)
    assert not table.duplicated(["entry", "slice"]).any()
    assert (table["n_seeds"] == 2).all()


def test_the_leaderboard_has_both_numbers_and_dashes_for_predictions_made_elsewhere(tmp_path: Path) -> None:
    results = make_results(tmp_path / "r", methods=(MCLSTEXP, ELSEWHERE, CONTROLS[0]), slices=["B4", "C2", "C3"])
    report([results], results / "report")
    (path,) = (results / "report" / "tables").glob("*-leaderboard.md")
    text = path.read_text()
    header = [cell.strip() for cell in text.splitlines()[2].strip("|").split("|")]
    at = header.index("patches exchanged: moves by")
    rows = {cells[0].strip(): cells for line in text.splitlines() if len(cells := line.strip("|").split("|")) > at}
    (theirs,) = [cells for name, cells in rows.items() if name.startswith("Theirs")]
    (own,) = [cells for name, cells in rows.items() if name.startswith("mclSTExp")]
    assert [cell.strip() for cell in theirs[at - 1 : at + 1]] == ["–", "–"]
    assert own[at].strip() == f"{math.sqrt(2) * 0.7:.3f}"
    assert text.count("predictions made elsewhere, which cannot be asked") == 1


def test_results_of_an_older_version_have_dashes_and_say_why(tmp_path: Path) -> None:
    results = make_results(tmp_path / "old", methods=(MCLSTEXP, STNET, CONTROLS[0]), slices=["B4", "C2", "C3"])
    pd.read_csv(results / "summary.csv").assign(**dict.fromkeys(COLUMNS)).to_csv(results / "summary.csv", index=False)
    (of,) = load([results])
    made = part(of, Context([of]))
    assert made.lead == ["all entries: undefined, as predictions are constant or slices have a single spot."]
    assert not made.tables
    assert not made.pictures
    report([results], results / "report")
    (path,) = (results / "report" / "tables").glob("*-leaderboard.md")
    assert path.read_text().count("undefined, as predictions are constant") == 1


def test_the_figure_joins_both_numbers_and_marks_the_undefined(load_fake: Callable[..., Section]) -> None:
    of = load_fake()
    by_slice = exchange_table(of.rows)
    board = leaderboard(of.rows, of.entries, of.slices)
    table = board[["label", "method"]].join(over_exchanged_slices(by_slice, board.index))
    table["from_image"] = table["pcc_acg"] - table["exchanged_pcc_acg"]
    with canvas.drawing():
        drawn = image_figure(of, table)
    score, move = drawn.axes
    assert [tick.get_text() for tick in score.get_yticklabels()] == list(of.entries["label"])
    at = list(of.entries["method"]).index("mclstexp")
    exchanged, as_it_is = table[["exchanged_pcc_acg", "pcc_acg"]].iloc[at]
    marked = sorted(x for x, y in marks_of(score) if y == at)
    assert marked == pytest.approx(sorted([exchanged, as_it_is]))
    crossed = {line.get_ydata()[0] for axes in (score, move) for line in axes.lines if line.get_marker() == "x"}
    assert crossed == {list(of.entries["method"]).index("training_mean")}


def test_nothing_finished_no_part(load_fake: Callable[..., Section]) -> None:
    states = {("stnet", name, 0): ("failed", "out of memory") for name in ("B4", "C2", "C3")}
    of = load_fake(methods=(STNET,), states=states)
    assert part(of, Context([of])) is None


def test_the_numbers_are_written_beside_the_page(tmp_path: Path) -> None:
    results = make_results(tmp_path / "r", methods=(MCLSTEXP, STNET, CONTROLS[0]), slices=["B4", "C2", "C3"])
    report([results], results / "report")
    (path,) = (results / "report" / "tables").glob("*-image-entries.csv")
    table = pd.read_csv(path).set_index("method")
    assert table.loc["mclstexp", "from_image"] == pytest.approx(
        table.loc["mclstexp", "pcc_acg"] - table.loc["mclstexp", "exchanged_pcc_acg"]
    )
