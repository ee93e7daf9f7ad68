"""The part of the report that puts the readings of a method side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic import METHODS, Fake, change_specs, make_results

from stbench.reports.parts.part import Context, Part
from stbench.reports.parts.readings import part, readings_scores, readings_table
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.markdown import markdown
from stbench.reports.words.warnings import badges, warnings

TARGETS = ("spot-log10-cp10k", "gene-log10-cp10k")
MCLSTEXP, STNET = METHODS[0], METHODS[1]
CONFIGS = {
    "published": {"k": 200, "distance": "l2", "epochs": 1},
    "released": {"k": 200, "distance": "l1", "epochs": 1},
    "paper": {"k": 200, "distance": "l2", "epochs": 1},
}
SCORES = {"published": 0.2, "released": 0.3, "paper": 0.2}  # against the truth on the first target
LEAK = "keys attend to the test slice"


def readings_of(method: Fake, presets: tuple[str, ...] = ("published", "released", "paper")) -> list[Fake]:
    return [replace(method, preset=preset) for preset in presets]


def results(
    place: Path,
    methods: list[Fake],
    target: str = TARGETS[0],
    scores: Mapping[str, float] = SCORES,
    leak: Mapping[str, str] | None = None,
    **settings: Any,
) -> Path:
    """Results with the trials' specs and scores on both targets, on the second a tenth lower, by slice 0, ±0.01."""
    directory = make_results(place, methods, target=target, slices=["B4", "C2", "C3"], **settings)
    rows = pd.read_csv(directory / "summary.csv")
    rows["leak"] = rows["preset"].map(leak or {}).fillna("")
    rows.to_csv(directory / "summary.csv", index=False)
    change_specs(directory, lambda spec: replace(spec, config=CONFIGS[spec.preset]))
    for row in rows.itertuples():
        if row.state != "finished":
            continue
        own = scores[row.preset] + {"B4": 0.0, "C2": 0.01, "C3": -0.01}[row.slice]
        table = pd.DataFrame({"slice": row.slice, "target": TARGETS, "pcc_acg": [own, own - 0.1]})
        for name in ("pcc_heg", "strict_pcc_acg", "strict_pcc_heg"):
            table[name] = table["pcc_acg"]
        table.to_csv(directory / "trials" / row.key / "targets.csv", index=False)
    return directory


def table_of(sections: list[Section], of: int = 0) -> pd.DataFrame:
    return readings_table(readings_scores(sections[of], Context(sections)))


def made(sections: list[Section], of: int = 0) -> Part:
    found = part(sections[of], Context(sections))
    assert found is not None
    return found


def test_each_reading_stands_with_its_score_change_and_the_settings_that_differ(tmp_path: Path) -> None:
    table = table_of(load([results(tmp_path / "r", readings_of(MCLSTEXP))])).set_index("preset")
    assert table["pcc_acg"].to_dict() == pytest.approx({"published": 0.2, "released": 0.3, "paper": 0.2})
    assert table["change"].to_dict() == pytest.approx({"published": 0.0, "released": 0.1, "paper": 0.0})
    assert table.loc["released", "differs"] == {"distance": ("l2", "l1")}
    assert table.loc["paper", "differs"] == {}


def test_readings_that_learned_another_target_are_compared_with_the_same_truth(tmp_path: Path) -> None:
    first = results(tmp_path / "a", readings_of(MCLSTEXP, ("published",)))
    second = results(tmp_path / "b", readings_of(MCLSTEXP, ("released",)), target=TARGETS[1])
    sections = load([first, second])
    by_target = {section.target: place for place, section in enumerate(sections)}
    for target, level in zip(TARGETS, (0.3, 0.2), strict=True):
        table = table_of(sections, by_target[target]).set_index("preset")
        assert table.loc["released", "pcc_acg"] == pytest.approx(level)
        assert table.loc["released", "change"] == pytest.approx(0.1)
        assert table.loc["released", "learned"] == TARGETS[1]
        assert table.loc["released", "differs"] == {"target": TARGETS, "distance": ("l2", "l1")}


def test_the_change_is_over_the_slices_that_both_have(tmp_path: Path) -> None:
    methods = [*readings_of(MCLSTEXP, ("published",))]
    first = results(tmp_path / "a", methods, states={("mclstexp", "C3", 0): ("failed", "no memory")})
    second = results(tmp_path / "b", readings_of(MCLSTEXP, ("released",)))
    table = table_of(load([first, second])).set_index("preset")
    assert table.loc["published", "n_slices"] == 2
    assert table.loc["released", "n_slices"] == 3
    assert table.loc["released", "n_common"] == 2
    assert table.loc["released", "change"] == pytest.approx(0.1)
    assert "on 2 slices" in markdown(made(load([first, second])).tables[0])


@pytest.mark.usefixtures("saved_pictures")
def test_the_lead_says_who_changes_most_and_for_whom_nothing_differs(tmp_path: Path) -> None:
    found = made(load([results(tmp_path / "r", [*readings_of(MCLSTEXP), *readings_of(STNET)])]))
    text = " ".join(found.lead)
    assert "Read as released instead of published, mclSTExp's PCC (ACG) changes most: by +0.1000, to 0.3000." in text
    assert "No setting differs from the recommended ones in mclSTExp (paper), STnet (paper)" in text
    assert "the 2 methods' recommended readings lie within 0.0000" in text
    shown = markdown(found.tables[0])
    assert "distance: l2 → l1" in shown
    assert found.frames["readings.csv"]["differs"].tolist().count("none") == 4  # both published and both paper
    (picture,) = found.pictures
    assert picture.forms["svg"]


def test_without_the_recommended_reading_nothing_is_called_a_change(tmp_path: Path) -> None:
    found = made(load([results(tmp_path / "r", readings_of(MCLSTEXP, ("released", "paper")))]))
    assert "No reading can be compared with the recommended one yet" in found.lead[0]
    assert "not known" in markdown(found.tables[0])


@pytest.mark.parametrize("presets", [("published",), ("released",), ("published", "quick")])
def test_one_reading_is_nothing_to_compare(tmp_path: Path, presets: tuple[str, ...]) -> None:
    methods = readings_of(MCLSTEXP, presets)
    directory = make_results(tmp_path / "r", methods, slices=["B4", "C2", "C3"])
    sections = load([directory])
    assert part(sections[0], Context(sections)) is None


def test_readings_of_different_methods_are_not_one_methods(tmp_path: Path) -> None:
    methods = [*readings_of(MCLSTEXP, ("published",)), *readings_of(STNET, ("released",))]
    sections = load([results(tmp_path / "r", methods)])
    assert part(sections[0], Context(sections)) is None


def test_a_leaking_reading_is_named_by_badge_warning_and_tag_and_never_best(tmp_path: Path) -> None:
    from stbench.reports.numbers.means import leaderboard

    (section,) = load([results(tmp_path / "r", readings_of(MCLSTEXP), leak={"released": LEAK})])
    (label,) = section.entries.loc[section.entries["preset"] == "released", "label"]
    assert "leak" in label
    assert (f"test expression reaches {label}", "warn") in badges(section)
    board = leaderboard(section.rows, section.entries, section.slices)
    assert any(LEAK in text and "not ranked" in text for text in warnings(section, board))
    best = board.index[board["pcc_acg_best"]]
    assert all(board.loc[entry, "preset"] != "released" for entry in best)
    assert len(best)
    assert any(LEAK in text for text in made([section]).lead)


def test_where_every_method_leaks_the_headline_says_why_none_is_best(tmp_path: Path) -> None:
    from stbench.reports.numbers.means import leaderboard
    from stbench.reports.words.headline import headline

    (section,) = load([results(tmp_path / "r", readings_of(MCLSTEXP, ("released",)), leak={"released": LEAK})])
    told = headline(section, leaderboard(section.rows, section.entries, section.slices))
    assert told[0].startswith("Every method here is shown the expression that it predicts, so none is called best")


def test_changes_that_all_readings_share_stand_once_below_the_table(tmp_path: Path) -> None:
    cut = [replace(method, changes={"epochs": 1}) for method in readings_of(MCLSTEXP)]
    (table,) = made(load([results(tmp_path / "r", cut)])).tables
    assert "Changed under each reading alike: mclSTExp: epochs=1." in table.notes
    assert markdown(table).count("epochs=1") == 1
