"""Methods by encoders: the order is compared encoder by encoder, and only where everybody is complete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from synthetic import Fake, make_results

from stbench.reports.parts import encoder_grid
from stbench.reports.parts.part import Context
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section

TITLES = {"bleep": "BLEEP", "stnet": "STnet", "mclstexp": "mclSTExp"}


def grid(tmp_path: Path, scores: Mapping[tuple[str, str], float], failed: tuple[str, str] | None = None) -> Section:
    """``scores``: (method, encoder) to its PCC on every slice."""
    fakes = [Fake(method, TITLES[method], 0.2, changes={"encoder": encoder}) for method, encoder in scores]
    (section,) = load([make_results(tmp_path / "r", methods=fakes, slices=["B4", "C2"], n_genes=4)])
    rows = section.rows.copy()
    rows["pcc_acg"] = [
        scores[method, variant.removeprefix("encoder=")]
        for method, variant in zip(rows["method"], rows["variant"], strict=True)
    ]
    if failed:
        lost = (rows["method"] == failed[0]) & (rows["variant"] == f"encoder={failed[1]}") & (rows["slice"] == "B4")
        rows.loc[lost, "state"] = "failed"
    return replace(section, rows=rows)


def lead(section: Section) -> str:
    made = encoder_grid.part(section, Context([section]))
    assert made is not None
    return made.lead[0]


SAME = {
    ("bleep", "resnet50"): 0.3, ("stnet", "resnet50"): 0.2, ("mclstexp", "resnet50"): 0.1,
    ("bleep", "vit"): 0.5, ("stnet", "vit"): 0.4, ("mclstexp", "vit"): 0.3,
}  # fmt: skip


def test_an_order_that_stays_is_said_to_stay(tmp_path: Path) -> None:
    assert lead(grid(tmp_path, SAME)) == ("The order of 3 methods by PCC (ACG) is the same under all 2 encoders.")


def test_a_changed_order_comes_with_its_agreement(tmp_path: Path) -> None:
    # one of the three pairs is turned round: tau = (2 - 1) / 3
    said = lead(grid(tmp_path, {**SAME, ("stnet", "vit"): 0.2}))
    assert said.startswith("The order of 3 methods by PCC (ACG) changes with the encoder: BLEEP stays first;")
    assert "is 0.33 on average" in said


def test_the_table_ranks_within_an_encoder(tmp_path: Path) -> None:
    section = grid(tmp_path, {**SAME, ("stnet", "vit"): 0.6})
    made = encoder_grid.part(section, Context([section]))
    assert made is not None
    (table,) = made.tables
    assert table.columns == ("method", "resnet50", "vit")
    cells = {row[0].text: row[1:] for row in table.blocks[0]}
    assert [cell.minor for cell in cells["STnet"]] == ["rank 2", "rank 1"]
    assert [cell.strong for cell in cells["BLEEP"]] == [True, False]


def test_a_method_that_is_not_complete_is_named_and_left_out_of_the_orders(tmp_path: Path) -> None:
    section = grid(tmp_path, SAME, failed=("mclstexp", "vit"))
    made = encoder_grid.part(section, Context([section]))
    assert made is not None
    assert made.lead[0].startswith("The order of 2 methods")
    assert made.lead[1] == "Not complete with every encoder, and left out of the orders: mclSTExp."


@pytest.mark.parametrize("wanted", [("bleep",), ("resnet50",)])
def test_one_method_or_one_encoder_makes_no_grid(tmp_path: Path, wanted: tuple[str]) -> None:
    few = {key: value for key, value in SAME.items() if set(wanted) & set(key)}
    section = grid(tmp_path, few)
    assert encoder_grid.part(section, Context([section])) is None
