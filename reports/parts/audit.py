"""What the audit of the data found before training: whether something other than the methods makes the numbers good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from stbench.audit import Audit, Finding, audit_name, read_audit
from stbench.audit.leaks import declared
from stbench.audit.pretraining import exposure
from stbench.audit.record import VERDICTS
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
    for one in (found for audit in audits for found in audit.findings):
        held = best.get(one.check)
        if held is None or (VERDICTS.index(one.verdict), one.count) > (VERDICTS.index(held.verdict), held.count):
            best[one.check] = one
    return [one for one in best.values() if one.check not in OF_THE_SECTION]


def _of_the_section(section: Section) -> list[Finding]:
    """The checks on what a section's own methods and target are; a run's record may be of another target or older."""
    encoders = dict(zip(section.entries["label"], section.entries["weights"], strict=True))
    target = TARGETS.get(section.target)
    leaks = declared(leaks_of(section), int((section.entries["kind"] == "method").sum()))
    return [leaks, exposure(encoders), *([] if target is None else [normalisation(target)])]


def _by_gravity(findings: Sequence[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: -VERDICTS.index(one.verdict))


def _patients(audits: Sequence[Audit], findings: Sequence[Finding]) -> str:
    """The badge in words, and which slices are of one patient."""
    # whom test expression reaches is a finding of its own, and another in every run
    badges = " and ".join(dict.fromkeys(audit.badge.split("; ")[0] for audit in audits))
    shared = next(one for one in findings if one.check == "same-patient")
    where = f", for {shared.count} of {shared.of} test slices" if shared.count else ""
    return f"{badges[0].upper()}{badges[1:]}{where}: {shared.reason[0].lower()}{shared.reason[1:]}"


def _summary(findings: Sequence[Finding]) -> str:
    number = {verdict: sum(one.verdict == verdict for one in findings) for verdict in VERDICTS}
    leaks = [one.title for one in findings if one.verdict == "leak"]
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
