"""The paper's claims are decided by the numbers, refuted when they cannot hold any more, and else left open."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import METHODS, make_results

from stbench.reports.parts import claims
from stbench.reports.parts.part import Context
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section

SIX = METHODS


def with_scores(section: Section, change: Callable[[pd.DataFrame], None]) -> Section:
    rows = section.rows.copy()
    change(rows)
    return replace(section, rows=rows)


def verdicts(section: Section) -> dict[str, Any]:
    table = claims.claim_table(section)
    return {row.claim: (row.ours, row.holds) for row in table.itertuples()}


@pytest.fixture
def cscc(tmp_path: Path) -> Section:
    """All twelve slices; a method's PCC is the same on each: mclSTExp 0.4, BLEEP 0.3, the others less."""
    (section,) = load([make_results(tmp_path / "r", methods=SIX, dataset="cscc", n_genes=5)])
    level = {"mclstexp": 0.4, "bleep": 0.3, "thitogene": 0.2, "hist2st": 0.15, "histogene": 0.1, "stnet": 0.05}

    def set_levels(rows: pd.DataFrame) -> None:
        rows["pcc_acg"] = rows["method"].map(level)
        rows["pcc_heg"] = rows["method"].map(level) * 1.1
        rows.loc[(rows["method"] == "mclstexp") & (rows["slice"] == "P10_ST_rep3"), "pcc_acg"] = 0.41

    return with_scores(section, set_levels)


def test_claims_that_the_numbers_bear_out_hold(cscc: Section) -> None:
    found = verdicts(cscc)
    assert found["mclSTExp has the highest PCC (ACG) on all 12 slices"] == ("12 of 12 slices, 6 methods", 1.0)
    gain, holds = found["PCC (ACG): gain of mclSTExp over BLEEP"]
    mean = (11 * 0.4 + 0.41) / 12
    assert gain == f"{mean / 0.3 - 1:+.2%}"
    assert holds == 1.0
    assert found["the largest gain is on P10_ST_rep3"][1] == 1.0


def test_a_claim_on_all_slices_is_refuted_by_one(cscc: Section) -> None:
    def lose_one(rows: pd.DataFrame) -> None:
        rows.loc[(rows["method"] == "stnet") & (rows["slice"] == "P2_ST_rep1"), "pcc_acg"] = 0.9

    found = verdicts(with_scores(cscc, lose_one))
    assert found["mclSTExp has the highest PCC (ACG) on all 12 slices"] == ("11 of 12 slices, 6 methods", 0.0)


def test_too_few_slices_decide_nothing_that_they_cannot_refute(tmp_path: Path) -> None:
    few = make_results(tmp_path / "r", methods=SIX, slices=["B4", "C2"], n_genes=5)
    (section,) = load([few])

    def mclstexp_wins(rows: pd.DataFrame) -> None:
        rows["pcc_acg"] = rows["method"].map(lambda name: 0.5 if name == "mclstexp" else 0.1)

    ours, holds = verdicts(with_scores(section, mclstexp_wins))["mclSTExp has the highest PCC (ACG) on 26 of 32 slices"]
    assert ours == "2 of 2 slices, 6 methods"
    assert math.isnan(holds)


def test_claims_of_leave_one_slice_out_are_not_checked_under_another_split(tmp_path: Path) -> None:
    (section,) = load([make_results(tmp_path / "r", methods=SIX, split="lopo", slices=["B4", "C2"], n_genes=5)])
    assert claims.claim_table(section).empty
    assert claims.part(section, Context([section], compare_paper=True)) is None


def test_published_numbers_stand_beside_ours_with_the_difference_and_their_flaws(cscc: Section) -> None:
    table = claims.difference_table(cscc).set_index(["entry", "metric"])
    entry = next(name for name in cscc.entries.index if name.startswith("bleep"))
    row = table.loc[(entry, "pcc_acg")]
    assert row["published"] == 0.2449
    assert row["difference"] == pytest.approx(0.3 - 0.2449)
    made = claims.part(cscc, Context([cscc], compare_paper=True))
    assert made is not None
    assert "Of 4 claims of the paper about cSCC, 4 hold here, 0 do not" in made.lead[0]
    notes = [note for table in made.tables for note in table.notes]
    assert any("not on one scale" in note for note in notes)


def test_nothing_is_compared_unless_asked(cscc: Section) -> None:
    assert claims.part(cscc, Context([cscc])) is None


def test_other_settings_than_the_published_are_told_before_a_claim_is_called_refuted(
    cscc: Section, tmp_path: Path
) -> None:
    published = claims.part(cscc, Context([cscc], compare_paper=True))
    assert published is not None
    assert not any("other settings" in sentence for sentence in published.lead)
    quick = (replace(SIX[0], preset="quick", weights="random"), *SIX[1:])
    (section,) = load([make_results(tmp_path / "quick", methods=quick, dataset="cscc", n_genes=5)])
    made = claims.part(section, Context([section], compare_paper=True))
    assert made is not None
    assert any("(preset quick, random encoder weights): what does not hold here" in said for said in made.lead)
