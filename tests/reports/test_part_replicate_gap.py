"""The part on replicate sections: differences by hand, who is compared on what, and what is said with few patients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import CONTROLS, METHODS, make_results

from stbench.reports.parts import replicate_gap
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.read import load
from stbench.reports.sections.section import Section
from stbench.reports.tables.markdown import markdown

FEW = (METHODS[0], METHODS[1], CONTROLS[0], CONTROLS[3])
SLICES = ["B4", "B5", "C2", "C3", "C4"]


@pytest.fixture
def load_both(tmp_path: Path) -> Callable[..., list[Section]]:
    """The section under loso and that under lopo of one dataset, with scores of their own."""

    def both(lopo: dict[str, object] | None = None, **changes: object) -> list[Section]:
        settings: dict[str, object] = {"methods": FEW, "slices": SLICES, **changes}
        one = make_results(tmp_path / "loso", split="loso", seed=0, **settings)  # type: ignore[arg-type]
        two = make_results(tmp_path / "lopo", split="lopo", seed=1, **{**settings, **(lopo or {})})  # type: ignore[arg-type]
        return load([one, two])

    return both


def made(sections: list[Section], split: str = "loso") -> Part:
    (section,) = [of for of in sections if of.split == split]
    part = replicate_gap.part(section, Context(sections))
    assert part is not None
    return part


@pytest.mark.usefixtures("saved_pictures")
def test_the_difference_is_paired_by_slice_and_averaged_over_patients(
    load_both: Callable[..., list[Section]],
) -> None:
    sections = load_both()
    gaps = made(sections).frames["gaps.csv"].set_index(["entry", "metric"])
    entry = "stnet/published/imagenet (densenet121-a639ec97)"
    scores = [of.rows[of.rows["entry"] == entry].set_index("slice")["strict_pcc_acg"] for of in sections]
    difference = scores[0] - scores[1]
    expected = (difference[["B4", "B5"]].mean() + difference[["C2", "C3", "C4"]].mean()) / 2
    row = gaps.loc[(entry, "strict_pcc_acg")]
    assert row["difference"] == pytest.approx(expected)
    assert row["with"] - row["without"] == pytest.approx(expected)
    assert row["low"] <= expected <= row["high"]
    assert row["over"] == "patients"


def test_equal_scores_under_both_splits_differ_by_nothing(tmp_path: Path) -> None:
    results = [make_results(tmp_path / split, methods=FEW, slices=SLICES, split=split) for split in ("loso", "lopo")]
    gaps = made(load(results)).frames["gaps.csv"]
    assert (gaps[["difference", "low", "high"]] == 0).all(axis=None)
    assert not np.isclose(gaps["with"], 0).all()


def test_slices_without_replicates_are_left_out_and_said(load_both: Callable[..., list[Section]]) -> None:
    part = made(load_both(slices=[*SLICES, "D1"]))
    assert set(part.frames["gaps.csv"]["n_slices"]) == {5}
    assert any("1 further slice has no replicate in training and is left out" in sentence for sentence in part.lead)


def test_one_patient_with_replicates_is_said_and_the_interval_is_over_its_slices(
    load_both: Callable[..., list[Section]],
) -> None:
    part = made(load_both(slices=["B4", "C2", "C3", "C4"]))
    assert set(part.frames["gaps.csv"]["over"]) == {"slices"}
    assert any(sentence.startswith("Only one patient (C) has replicates here, 3 slices") for sentence in part.lead)
    assert "bootstrap over the slices of the one patient" in markdown(part.tables[0])


def test_an_entry_that_is_unfinished_under_one_split_has_no_difference(
    load_both: Callable[..., list[Section]],
) -> None:
    sections = load_both(lopo={"states": {("mclstexp", "C2", 0): ("failed", "out of memory")}})
    part = made(sections)
    gaps = part.frames["gaps.csv"].set_index(["entry", "metric"])
    row = gaps.loc[("mclstexp/published/imagenet (densenet121-a639ec97)", "strict_pcc_acg")]
    assert np.isnan(row["difference"])
    assert row["n_slices"] == 4
    assert "4/5 slices under both" in markdown(part.tables[0])
    assert "mclSTExp" not in part.lead[0]


def test_a_control_that_was_not_run_without_replicates_is_shown_without_a_value(
    load_both: Callable[..., list[Section]],
) -> None:
    part = made(load_both(lopo={"methods": FEW[:3]}))
    text = markdown(part.tables[0])
    assert "Nearest replicate (0/5 slices under both) | – | – | – |" in text


def test_the_section_without_replicates_points_to_the_other(load_both: Callable[..., list[Section]]) -> None:
    part = made(load_both(), "lopo")
    assert len(part.lead) == 1
    assert "leave one slice out" in part.lead[0]
    assert not part.tables


def test_with_one_split_only_the_reader_is_told_what_to_run(load_fake: Callable[..., Section]) -> None:
    section = load_fake(slices=["B4", "C2", "C3"])
    part = made([section])
    assert part.lead[0].startswith("2 of 3 slices had a section of the same patient in training.")
    assert "--split lopo" in part.lead[0]


def test_without_replicates_there_is_nothing_to_say(load_fake: Callable[..., Section]) -> None:
    section = load_fake(slices=["B4", "C2", "D1"])
    assert replicate_gap.part(section, Context([section])) is None
