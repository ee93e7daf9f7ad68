"""What the audit of the data found before training: whether something other than the methods makes the numbers good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from stbench.audit import Audit, Finding, audit_name, read_audit
from stbench.audit.leaks import declared
from stbench.audit.patients import DISJOINT, REPLICATES
from stbench.audit.pretraining import exposure
from stbench.audit.record import SAME_PATIENT, VERDICTS
from stbench.audit.scale import normalisation
from stbench.data.targets import TARGETS

from ..sections.section import Section
from ..sections.trial_files import evidence
from ..tables.table import Cell, Table
from ..words.headline import leaks_of
from ..words.protocol import caption
from .part import Context, Part

TITLE = "Can the split be believed?"
OF_THE_SECTION = (
    "encoders",
    "normalisation",
    "test-expression",
)  # these depend on the methods and the target: made here, not read


def part(section: Section, context: Context) -> Part:
    """Findings by gravity, then what was looked for in vain; where no audit was written, that it was not."""
    name = audit_name(section.dataset, section.split, section.target)
    audits = [read_audit(path) for path in evidence(section, name)]
    if not audits:
        missing = (
            "These data were not audited: the results hold no audit of this split, so copies, smoothed labels and a "
            "panel that saw the test slices are not excluded. "
            f"'stbench audit --dataset {section.dataset} --split {section.split}' looks for them."
        )
        return Part("audit", TITLE, [missing])
    findings = _by_gravity([*_gravest(audits), *_of_the_section(section)])
    found = [finding for finding in findings if finding.verdict != "ok"]
    clean = [finding for finding in findings if finding.verdict == "ok"]
    lead = [_patients(audits, findings), _summary(findings)]
    if len(audits) > 1:
        lead.append(
            f"{len(audits)} runs were audited apart and the gravest finding of each kind is shown; copies between "
            "slices of different runs were not looked for."
        )
    tables = [_table(section, "found", "what the audit found", found)] if found else []
    tables += [_table(section, "clean", "what was looked for and not found", clean)] if clean else []
    frame = pd.DataFrame([asdict(finding) | {"examples": "; ".join(finding.examples)} for finding in findings])
    return Part("audit", TITLE, lead, tables, frames={"findings.csv": frame})


def _gravest(audits: Sequence[Audit]) -> list[Finding]:
    """One finding for each check: of several runs' the gravest, then that of the greatest count."""
    best: dict[str, Finding] = {}
    for finding in (finding for audit in audits for finding in audit.findings):
        held = best.get(finding.check)
        if held is None or (VERDICTS.index(finding.verdict), finding.count) > (
            VERDICTS.index(held.verdict),
            held.count,
        ):
            best[finding.check] = finding
    return [finding for finding in best.values() if finding.check not in OF_THE_SECTION]


def _of_the_section(section: Section) -> list[Finding]:
    """The checks on what a section's own methods and target are; a run's record may be of another target or older."""
    encoders = dict(zip(section.entries["label"], section.entries["weights"], strict=True))
    target = TARGETS.get(section.target)
    leaks = declared(leaks_of(section), int((section.entries["kind"] == "method").sum()))
    return [leaks, exposure(encoders), *([] if target is None else [normalisation(target)])]


def _by_gravity(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: -VERDICTS.index(finding.verdict))


def _patients(audits: Sequence[Audit], findings: Sequence[Finding]) -> str:
    """Whether patients are on both sides of a fold, and which slices are of one patient."""
    sides = " and ".join(dict.fromkeys(REPLICATES if audit.same_patient.count else DISJOINT for audit in audits))
    shared = next(finding for finding in findings if finding.check == SAME_PATIENT)
    where = f", for {shared.count} of {shared.of} test slices" if shared.count else ""
    return f"{sides[0].upper()}{sides[1:]}{where}: {shared.reason[0].lower()}{shared.reason[1:]}"


def _summary(findings: Sequence[Finding]) -> str:
    number = {verdict: sum(finding.verdict == verdict for finding in findings) for verdict in VERDICTS}
    leaks = [finding.title for finding in findings if finding.verdict == "leak"]
    first = (
        f"What test slices hold reaches the training side: {'; '.join(leaks).lower()}."
        if leaks
        else f"Of {len(findings)} things looked for before training, none gives a test slice's labels away."
    )
    others = [
        f"{number[verdict]} {verdict if number[verdict] == 1 else verdict + 's'}"
        for verdict in ("warning", "note")
        if number[verdict]
    ]
    return f"{first} {' and '.join(others)} below." if others else first


def _table(section: Section, name: str, what: str, findings: Sequence[Finding]) -> Table:
    rows = tuple(
        (
            Cell(finding.title, VERDICTS.index(finding.verdict), tags=(finding.verdict,)),
            Cell(f"{finding.count:,} of {finding.of:,}", float(finding.count)),
            Cell(finding.reason, finding.check, minor="; ".join(finding.examples)),
        )
        for finding in findings
    )
    columns = ("looked for", "found", "why it matters, how it was looked for; where it was found")
    return Table(name, caption(section, what), columns, (rows,), text_columns=frozenset({0, 2}))
