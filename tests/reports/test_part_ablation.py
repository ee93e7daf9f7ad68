"""An ablation study in the report: every switch in words, effects against the base, reuse counted, sweeps drawn."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic import Fake, make_results

from stbench.errors import UserError
from stbench.reports.parts.ablation import part
from stbench.reports.parts.ablation.study import study_of, sweep_values, variant_table
from stbench.reports.parts.part import Context
from stbench.reports.published.ablations import published_ablations
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.results.run_record import AblationRecord

SLICES = ["B4", "C2", "C3", "D1"]
LEVEL = {"": 0.23, "k=1": 0.10, "k=400": 0.22, "position_encoding=none": 0.21}
PRESET = {"k": 200, "position_encoding": "learnable"}
CHANGES: list[dict[str, Any]] = [{}, {"k": 1}, {"k": 400}, {"position_encoding": "none"}]


def entry(variant: str, target: str = "spot-log10-cp10k") -> dict[str, Any]:
    named = {"method": "mclstexp", "preset": "published", "variant": variant, "weights": "none", "target": target}
    return {**named, "lowered": ""}


def switch(name: str, answers: str, *variants: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "title": name.replace("-", " ").capitalize(), "answers": answers, "variants": list(variants)}


def variant(name: str, change: str, base: bool = False, reused: bool = False, **more: str) -> dict[str, Any]:
    return {**entry(change, **more), "name": name, "words": f"what {name} is", "base": base, "reused": reused}


STUDY = {
    "method": "mclstexp",
    "base": entry(""),
    "switches": [
        switch(
            "position-encoding",
            "Table S4",
            variant("learnable", "", base=True),
            variant("none", "position_encoding=none"),
        ),
        switch(
            "top-k",
            "Figure S4",
            variant("k = 1", "k=1", reused=True),
            variant("k = 200", "", base=True),
            variant("k = 400", "k=400", reused=True),
        ),
        switch("target", "not in the paper", variant("per gene", "", target="gene-log10-cp10k")),
    ],
}


def test_the_record_of_a_study_is_written_as_it_is_read() -> None:
    assert json.dumps(AblationRecord.model_validate(STUDY).model_dump(mode="json")) == json.dumps(STUDY)


@pytest.fixture
def section(tmp_path: Path) -> Section:
    fakes = [
        Fake("mclstexp", "mclSTExp", level, config=PRESET, changes=changes)
        for changes, level in zip(CHANGES, LEVEL.values(), strict=True)
    ]
    place = make_results(tmp_path / "r", methods=fakes, slices=SLICES, n_genes=5)
    facts = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**facts, "ablation": STUDY}))
    summary = pd.read_csv(place / "summary.csv", dtype=str, keep_default_na=False)
    summary["trained_by"] = np.where(summary["variant"].str.startswith("k="), "the-base", "")
    summary.to_csv(place / "summary.csv", index=False)
    (made,) = load([place])
    rows = made.rows.copy()
    rows["pcc_acg"] = rows["variant"].map(LEVEL) + rows["slice"].map(
        dict(zip(SLICES, (0, 0.02, 0.04, 0.01), strict=True))
    )
    return replace(made, rows=rows)


def test_each_variant_is_compared_with_the_base_on_the_same_slices(section: Section) -> None:
    table = variant_table(section, AblationRecord.model_validate(STUDY)).set_index("variant")
    assert table.loc["none", "pcc_acg_difference"] == pytest.approx(-0.02)
    assert table.loc["k = 1", "pcc_acg_difference"] == pytest.approx(-0.13)
    assert table.loc["none", "pcc_acg_low"] == pytest.approx(-0.02)  # the same on every slice: no spread
    assert np.isnan(table.loc["learnable", "pcc_acg_difference"])
    assert (table.loc[["k = 1", "k = 400"], "reused"] == len(SLICES)).all()
    assert table.loc["none", "reused"] == 0


def test_published_numbers_stand_beside_the_variants_that_they_are_of(section: Section) -> None:
    table = variant_table(section, AblationRecord.model_validate(STUDY)).set_index("variant")
    assert table.loc["none", "pcc_acg_published"] == 0.2105
    assert table.loc["k = 200", "pcc_acg_published"] == 0.2301
    assert np.isnan(table.loc["per gene", "pcc_acg_published"])


def test_a_variant_on_another_target_is_named_and_not_compared(section: Section) -> None:
    row = variant_table(section, AblationRecord.model_validate(STUDY)).set_index("variant").loc["per gene"]
    assert row["entry"] == ""
    assert np.isnan(row["pcc_acg"])
    made = part.part(section, Context([section]))
    assert made is not None
    assert "on target gene-log10-cp10k" in [cell.text for row in made.tables[2].blocks[0] for cell in row]


@pytest.mark.usefixtures("saved_pictures")
def test_the_page_says_in_words_what_changed_in_every_row(section: Section) -> None:
    made = part.part(section, Context([section]))
    assert made is not None
    assert made.lead[0] == "The largest effect: top k, variant k = 1, lowers PCC (ACG) by 0.1300."
    assert any("8 reused a trained model" in sentence for sentence in made.lead)
    words = {row[0].text: row[1].text for table in made.tables for row in table.blocks[0]}
    assert words["none"] == "what none is (position_encoding=none)"
    assert all(text.startswith("what ") for text in words.values())
    assert {picture.name for picture in made.pictures} == {"effects", "sweep-top-k"}


def test_the_sweep_is_drawn_in_the_order_of_its_values(section: Section) -> None:
    table = variant_table(section, AblationRecord.model_validate(STUDY))
    points = part.sweep_points(table[table["switch"] == "top-k"], section.specs)
    assert list(points["at"]) == [1, 200, 400]
    assert part.sweep_points(table[table["switch"] == "position-encoding"], section.specs).empty


def test_a_sweep_is_of_one_setting_that_is_a_number(section: Section) -> None:
    table = pd.DataFrame({"entry": list(section.specs)})

    def values(*changes: dict[str, Any]) -> list[float] | None:
        preset = {**PRESET, "scaled": True}
        specs = {
            entry: replace(spec, config=preset | change, changes=change)
            for (entry, spec), change in zip(section.specs.items(), changes, strict=False)
        }
        return sweep_values(table.iloc[: len(changes)], specs)

    assert values({}, {"k": 1}, {"k": 1e-5}) == [200, 1, 1e-5]
    assert values({}, {"k": 1}, {"k": 2, "scaled": False}) is None
    assert values({}, {"scaled": False}) is None
    assert values({}, {"position_encoding": "none"}) is None
    assert values({}) is None


def test_a_report_without_a_study_has_no_such_part(section: Section) -> None:
    runs = tuple(replace(run, record=run.record.model_copy(update={"ablation": None})) for run in section.runs)
    assert part.part(replace(section, runs=runs), Context([section])) is None


def test_two_studies_are_not_mixed(section: Section) -> None:
    run = section.runs[0]
    other = replace(run, directory=run.directory / "other")
    with pytest.raises(UserError, match="report them apart"):
        study_of(replace(section, runs=(run, other)))


def test_the_supplement_is_complete() -> None:
    table = published_ablations()
    assert table.groupby("answers")["variant"].nunique().to_dict() == {
        "Figure S4": 12,
        "Table S4": 4,
        "Table S5": 3,
        "Table S6": 3,
        "Table S7": 3,
    }
    assert not table.duplicated(["dataset", "answers", "variant", "metric"]).any()
    bad = table[(table["answers"] == "Table S6") & (table["dataset"] == "alex10x") & (table["variant"] != "L2")]
    assert bad["note"].str.contains("treat them as missing").all()
