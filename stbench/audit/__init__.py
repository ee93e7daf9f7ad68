"""What could make a benchmark's numbers better than the methods: looked for before anything is trained.

Nothing here trains or predicts. Each module answers one question about the prepared slides and the folds, and gives
:class:`Finding` records: what was looked for, how often it was found, and why it matters, in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..data.prepared import PreparedDataset
from ..data.splits import Fold
from ..dataset import Dataset
from ..system.files import write_json
from . import leaks as leaking
from .expression import nearly_empty, repeated_rows, smoothed
from .panel import origin, ranks_if_needed
from .patients import badge, replicates
from .pictures import examine
from .pretraining import exposure
from .record import Audit, Finding, read_audit
from .scale import absent, normalisation, unequal
from .sides import Sides

__all__ = ["Audit", "Finding", "audit", "audit_name", "read_audit", "write_audit"]


def audit(
    data: PreparedDataset,
    folds: Sequence[Fold],
    split: str,
    encoders: Mapping[str, str] | None = None,
    ranks: Mapping[str, np.ndarray] | None = None,
    leaks: Mapping[str, str] | None = None,
) -> Audit:
    """Look for everything that this package knows of, in the slides of ``data`` as ``folds`` divide them.

    ``encoders``: a method's title to its weights label (:attr:`stbench.method.Method.weights_label`); without it
    nothing is said of pretraining. ``ranks``: :func:`stbench.audit.panel.variance_ranks`, needed only to test a panel
    whose origin the dataset does not declare. ``leaks``: who is shown the expression of its test slices, by the name in
    tables, to what is done with it (:attr:`stbench.method.Needs.leak`).
    """
    sides = Sides.of(folds)
    slides = {name: slide for name, slide in data.slides.items() if name in sides.slices}
    patches, copies = examine(slides, sides)
    rows, same_rows = repeated_rows(slides, sides)
    leaks = leaks or {}
    findings = [
        *([leaking.declared(leaks, len(leaks))] if leaks else []),
        replicates(data.patients, folds),
        *patches,
        rows,
        sides.repeated_sections(slides, [*copies, *same_rows]),
        smoothed(slides),
        origin(data, ranks),
        normalisation(data.target),
        *([exposure(encoders)] if encoders else []),
        nearly_empty(slides),
        unequal(slides),
        absent(data),
    ]
    badges = filter(None, (badge(folds), leaking.badge(leaks)))
    return Audit(data.name, split, "; ".join(badges), tuple(findings))


def audit_name(dataset: str, split: str, target: str) -> str:
    """Name of the audit's file in ``RESULTS/evidence``."""
    return f"audit-{dataset}-{split}-{target}.json"


def write_audit(
    results: Path,
    data: PreparedDataset,
    folds: Sequence[Fold],
    split: str,
    encoders: Mapping[str, str] | None = None,
    dataset: Dataset | None = None,
    leaks: Mapping[str, str] | None = None,
) -> Path:
    """Audit and write ``RESULTS/evidence/audit-<dataset>-<split>-<target>.json``; its path.

    ``dataset``: the one that ``data`` was prepared from. Its slides are read again only where the origin of the panel
    is not declared and has to be tested.
    """
    path = Path(results) / "evidence" / audit_name(data.name, split, data.target.name)
    write_json(path, audit(data, folds, split, encoders, ranks_if_needed(data, dataset), leaks).to_json())
    return path
