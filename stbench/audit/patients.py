"""Whether a patient has slices on both sides of a fold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..data.splits import Fold
from ..system.wording import listed
from .record import SAME_PATIENT, Finding, some

REPLICATES, DISJOINT = "replicates in training", "patient-disjoint"


def badge(folds: Sequence[Fold]) -> str:
    """``patient-disjoint`` where no fold trains on a slice of a test slice's patient."""
    return REPLICATES if any(fold.same_patient for fold in folds) else DISJOINT


def replicates(patients: Mapping[str, str], folds: Sequence[Fold]) -> Finding:
    """Test slices whose patient also has training slices in their fold."""
    with_replicates = {
        name: same
        for fold in folds
        for name in fold.test
        if (same := [other for other in fold.same_patient if patients[other] == patients[name]])
    }
    consequence = (
        "Trained on a neighbouring section of the same tissue, a method is tested on a known patient, not on a new one"
        if with_replicates
        else "No fold trains on a slice of a patient on whom it tests"
    )
    return Finding(
        SAME_PATIENT,
        "Slices of one patient on both sides of a fold",
        "warning" if with_replicates else "ok",
        len(with_replicates),
        sum(len(fold.test) for fold in folds),
        f"{consequence}; {who(patients)}.",
        some([f"{name} is tested after training on {', '.join(same)}" for name, same in with_replicates.items()]),
    )


def who(patients: Mapping[str, str]) -> str:
    """Which slices are whose: "C2 and C3 are one patient (C); B4 (B) is alone"."""
    slices: dict[str, list[str]] = {}
    for name, patient in patients.items():
        slices.setdefault(patient, []).append(name)
    together = [f"{listed(names)} are one patient ({patient})" for patient, names in slices.items() if len(names) > 1]
    alone = [
        names[0] if names[0] == patient else f"{names[0]} ({patient})"
        for patient, names in slices.items()
        if len(names) == 1
    ]
    if alone:
        together.append(f"{listed(alone)} {'is' if len(alone) == 1 else 'are each'} alone")
    return "; ".join(together)
