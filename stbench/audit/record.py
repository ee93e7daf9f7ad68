"""What an audit found, and its file."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import UserError
from ..system.files import read_json

Verdict = Literal["ok", "note", "warning", "leak"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
AT_MOST = 5  # examples of a finding
SAME_PATIENT = "same-patient"  # the check that every audit makes


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    ``verdict``: ``leak`` (what a test slice holds reaches the training side), ``warning`` (the numbers mean less than
    they seem to), ``note`` (for a reader to know), ``ok``. ``count`` of ``of`` things have it; ``reason`` is one
    sentence on why it matters or how it was looked for.
    """

    check: str  # short name: identical-patches
    title: str  # Identical patches on both sides of a fold
    verdict: Verdict
    count: int
    of: int
    reason: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Audit:
    """All findings on one dataset under one split. ``badge``: ``replicates in training`` or ``patient-disjoint``, and
    whom test expression reaches.
    """

    dataset: str
    split: str
    badge: str
    findings: tuple[Finding, ...]

    @property
    def same_patient(self) -> Finding:
        """Whether, and where, a fold trains on slices of a test slice's patient."""
        return next(found for found in self.findings if found.check == SAME_PATIENT)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_audit(path: Path) -> Audit:
    """The audit in a file of :func:`stbench.audit.write_audit`. Raises ``UserError`` where it holds something else."""
    content = read_json(path)
    try:
        findings = tuple(
            Finding(**{**found, "examples": tuple(map(str, found["examples"]))}) for found in content["findings"]
        )
        strange = [found.verdict for found in findings if found.verdict not in VERDICTS]
        if strange:
            raise ValueError(f"the verdict '{strange[0]}'")
        if SAME_PATIENT not in {found.check for found in findings}:
            raise ValueError(f"no finding '{SAME_PATIENT}'")
        return Audit(content["dataset"], content["split"], content["badge"], findings)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not an audit that this version wrote ({error}) - delete it to have it made again"
        ) from error


def some(examples: list[str]) -> tuple[str, ...]:
    """The first few in alphabetical order, and how many more there are."""
    ordered = sorted(examples)
    more = [f"and {len(ordered) - AT_MOST} more"] if len(ordered) > AT_MOST else []
    return (*ordered[:AT_MOST], *more)
