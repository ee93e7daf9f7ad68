"""A method that lacks a slice is ranked on the slices that it shares with the others, and only there."""

import pytest
from synthetic import CONTROLS, METHODS, STNET

from stbench.reports.parts.common_trials import part
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.section import Section

MEAN, COLOUR = CONTROLS[0], CONTROLS[4]
FAILED = {("mclstexp", "C2", 0): ("failed", "out of memory")}


def made(section: Section) -> Part | None:
    return part(section, Context([section]))


def test_nothing_is_said_where_every_method_finished_every_trial(load_fake) -> None:
    assert made(load_fake()) is None


def test_a_control_that_lacks_a_slice_takes_none_from_the_methods(load_fake) -> None:
    assert made(load_fake(states={("colour_ridge", "C2", 0): ("skipped", "no replicate")})) is None


def test_a_method_that_lacks_a_slice_is_ranked_on_the_others(load_fake) -> None:
    section = load_fake(methods=(*METHODS[:3], MEAN, COLOUR), slices=["B4", "C2", "C3", "C4"], states=FAILED)
    found = made(section)
    assert found is not None
    assert found.lead[0].startswith("mclSTExp is first of 3 methods by strict PCC (ACG): 0.")
    assert found.lead[0].endswith("on the 3 of 4 slices that all of them finished.")
    (table,) = found.tables
    assert table.columns[:4] == ("method", "rank", "slices", "trials used")
    assert table.columns[-1] == "MAE"  # one report, one run: no column for it
    shown = {row[0].text: (row[1].text, row[2].text, row[3].text) for row in table.blocks[0]}
    assert shown["mclSTExp"] == ("1", "3/4", "3 of 3")
    assert shown["STnet"][1:] == ("4/4", "3 of 4")
    stnet = section.rows.query("method == 'stnet' and slice != 'C2'")["strict_pcc_acg"].mean()
    (cell,) = [row[4] for row in table.blocks[0] if row[0].text == "STnet"]
    assert cell.value == pytest.approx(stnet)


def test_a_single_method_that_can_be_ranked_is_no_ranking(load_fake) -> None:
    states = {("mclstexp", name, 0): ("failed", "x") for name in ("B4", "C2", "C3")}
    assert made(load_fake(methods=(METHODS[0], STNET, MEAN), states=states)) is None
