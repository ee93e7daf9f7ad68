"""Cost: medians over trials, and a front that nothing beats in both quality and time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from drawn import marks_of
from synthetic import CONTROLS, METHODS, make_results

from stbench.reports.figures import canvas
from stbench.reports.parts import cost
from stbench.reports.parts.part import Context
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section


@pytest.fixture
def section(tmp_path: Path) -> Section:
    """Three methods and an oracle: (PCC, seconds) = A (0.3, 100), B (0.2, 10), C (0.1, 50), oracle (0.9, 1)."""
    chosen = (METHODS[0], METHODS[1], METHODS[2], CONTROLS[1])
    (made,) = load([make_results(tmp_path / "r", methods=chosen, slices=["B4", "C2"], n_genes=5)])
    rows = made.rows.copy()
    values = {"mclstexp": (0.3, 100.0), "stnet": (0.2, 10.0), "histogene": (0.1, 50.0), "depth_oracle": (0.9, 1.0)}
    rows["pcc_acg"] = rows["method"].map(lambda name: values[name][0])
    rows["fit_s"] = rows["method"].map(lambda name: values[name][1])
    return replace(made, rows=rows)


def test_the_front_holds_what_nothing_beats_in_both(section: Section) -> None:
    table = cost.cost_table(section).set_index("method")
    assert table["on_front"].to_dict() == {"mclstexp": True, "stnet": True, "histogene": False, "depth_oracle": False}
    assert table.loc["mclstexp", "fit_s"] == 100.0


@pytest.mark.usefixtures("saved_pictures")
def test_the_finding_names_the_best_and_the_best_that_is_faster(section: Section) -> None:
    made = cost.part(section, Context([section]))
    assert made is not None
    assert made.lead[0] == (
        "mclSTExp has the highest PCC (ACG), 0.3000, for 100 s a fold. The best of what trains faster is STnet: "
        "0.2000, 67% of it, for 10 s a fold."
    )


def test_the_figure_draws_each_entry_at_its_time_and_score(section: Section) -> None:
    table = cost.cost_table(section)
    with canvas.drawing():
        figure = cost.pareto_figure(section, table)
    assert set(marks_of(figure.axes[0])) == {(100.0, 0.3), (10.0, 0.2), (50.0, 0.1), (1.0, 0.9)}
    assert figure.axes[0].get_xscale() == "log"


def test_nothing_is_said_where_no_time_was_recorded(section: Section) -> None:
    rows = section.rows.assign(fit_s=float("nan"))
    assert cost.part(replace(section, rows=rows), Context([section])) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.025, "25 ms"), (3.14, "3.1 s"), (59.6, "60 s"), (119.0, "119 s"), (600.0, "10.0 min"), (7200.0, "2.0 h")],
)
def test_durations_are_in_a_unit_that_fits(seconds: float, words: str) -> None:
    assert cost.duration(seconds) == words
    assert cost.duration(float("nan")) == "–"
