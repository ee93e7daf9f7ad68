"""The audit's part says first whose slices were in training, and then what was found, the gravest first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from stbench.audit import Audit, Finding
from stbench.errors import UserError
from stbench.reports.parts import audit
from stbench.reports.parts.part import Context, Part
from stbench.reports.sections.section import Run, Section
from stbench.reports.tables.markdown import markdown
from stbench.system.files import write_json

WHO = "Trained on a neighbour, a method knows the patient; C2 and C3 are one patient (C); B4 (B) is alone."
FINDINGS = (
    Finding("same-patient", "One patient on both sides", "warning", 2, 3, WHO, ("C2 after C3", "C3 after C2")),
    Finding("identical-patches", "Identical patches", "leak", 4, 900, "They were compared by digest.", ("B4 = C2",)),
    Finding("smoothed-labels", "Smoothed labels", "ok", 0, 3, "Neighbours differ as counting makes them differ."),
    Finding("normalisation", "A target that pools spots", "note", 1, 1, "Of another target."),
)


@pytest.fixture
def load_fake(load_own_fake: Callable[..., Section]) -> Callable[..., Section]:
    """Audits are written into the directory."""
    return load_own_fake


def _audited(section: Section, *findings: Finding, badge: str = "replicates in training") -> Section:
    for run in section.runs:
        path = run.directory / "evidence" / f"audit-{section.name}.json"
        write_json(path, Audit(section.dataset, section.split, badge, findings).to_json())
    return section


def _part(section: Section) -> Part:
    return audit.part(section, Context([section]))


def test_the_badge_and_the_patients_come_first(load_fake: Callable[..., Section]) -> None:
    made = _part(_audited(load_fake(), *FINDINGS))
    assert made.lead[0] == f"Replicates in training, for 2 of 3 test slices: t{WHO[1:]}"
    assert made.lead[1] == "What test slices hold reaches the training side: identical patches. 1 warning below."


def test_findings_stand_by_gravity_and_what_was_not_found_apart(load_fake: Callable[..., Section]) -> None:
    made = _part(_audited(load_fake(), *FINDINGS))
    found, clean = made.tables
    assert [row[0].tags for row in found.blocks[0]] == [("leak",), ("warning",)]
    assert clean.blocks[0][0][0].text == "Smoothed labels"
    title, count, reason = found.blocks[0][0]
    assert (title.text, count.text) == ("Identical patches", "4 of 900")
    assert (reason.text, reason.minor) == ("They were compared by digest.", "B4 = C2")
    assert "4 of 900" in markdown(found)
    assert list(made.frames["findings.csv"]["verdict"][:2]) == ["leak", "warning"]


def test_clean_slices_are_called_so(load_fake: Callable[..., Section]) -> None:
    calm = Finding("same-patient", "One patient on both sides", "ok", 0, 3, "No fold does; B4 (B) is alone.")
    made = _part(_audited(load_fake(), calm, badge="patient-disjoint"))
    assert made.lead[0] == "Patient-disjoint: no fold does; B4 (B) is alone."
    assert made.lead[1] == "Of 4 things looked for before training, none gives a test slice's labels away."


def test_encoders_and_target_are_those_of_the_section(load_fake: Callable[..., Section]) -> None:
    table = _part(_audited(load_fake(), *FINDINGS)).frames["findings.csv"].set_index("check")
    assert "STnet: imagenet (densenet121-a639ec97) - ImageNet holds photographs" in table.loc["encoders", "examples"]
    assert table.loc["normalisation", "verdict"] == "ok"
    assert "spot-log10-cp10k" in table.loc["normalisation", "reason"]


def test_of_two_runs_the_gravest_finding_counts(load_fake: Callable[..., Section], tmp_path: Path) -> None:
    section = _audited(load_fake(), *FINDINGS)
    other = Run(tmp_path / "other", {})
    calm = Finding("identical-patches", "Identical patches", "ok", 0, 900, "They were compared by digest.")
    write_json(
        other.directory / "evidence" / f"audit-{section.name}.json",
        Audit(section.dataset, section.split, "replicates in training", (FINDINGS[0], calm)).to_json(),
    )
    made = _part(replace(section, runs=(other, *section.runs)))
    assert made.frames["findings.csv"].set_index("check").loc["identical-patches", "count"] == 4
    assert made.lead[2].startswith("2 runs were audited apart")


def test_whether_patients_are_on_both_sides_is_read_from_the_finding_and_not_from_words(
    load_fake: Callable[..., Section],
) -> None:
    made = _part(_audited(load_fake(), *FINDINGS, badge="worded; in another way"))
    assert made.lead[0].startswith("Replicates in training, for 2 of 3 test slices")


def test_an_audit_that_did_not_look_at_patients_is_refused(load_fake: Callable[..., Section]) -> None:
    with pytest.raises(UserError, match="no finding 'same-patient'"):
        _part(_audited(load_fake(), *FINDINGS[1:]))


def test_results_without_an_audit_say_so(load_fake: Callable[..., Section]) -> None:
    made = _part(load_fake())
    assert made.lead[0].startswith("These data were not audited")
    assert "stbench audit --dataset her2st --split loso" in made.lead[0]
    assert not made.tables


def test_a_damaged_audit_is_one_line(load_fake: Callable[..., Section]) -> None:
    section = load_fake()
    write_json(section.runs[0].directory / "evidence" / "audit-her2st-loso-spot-log10-cp10k.json", {"findings": 3})
    with pytest.raises(UserError, match="is not an audit that this version wrote"):
        _part(section)
