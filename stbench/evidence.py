"""What is known of the data before anything is trained: the audit, the noise ceiling and the slides' thumbnails."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from . import __version__
from .audit import Audit, audit_name, read_audit, write_audit
from .ceiling import write_ceiling
from .dataset import Dataset
from .files import read_object, value_digest, write_json, writing_to
from .prepare import PreparedDataset
from .splits import Fold
from .thumbnails import write_slides

MADE_FROM = "made-from.json"  # evidence file to a digest of what it was made from


def write_evidence(
    results: Path,
    data: PreparedDataset,
    dataset: Dataset,
    folds: Mapping[str, Sequence[Fold]],
    on_progress: Callable[[int, int, str], None] | None = None,
    leaks: Mapping[str, str] | None = None,
) -> list[Audit]:
    """Write ``results/evidence/`` and return the audit of each split; what was made from the same data stays.

    ``dataset``: what ``data`` was prepared from; ``folds``: split to its folds; ``leaks``: as in
    :func:`stbench.audit.audit`.
    """
    steps = len(folds) + 2
    say = on_progress or (lambda done, total, text: None)
    with writing_to(results):
        (results / "evidence").mkdir(parents=True, exist_ok=True)
        audits = []
        for done, (split, some) in enumerate(folds.items()):
            say(done, steps, f"audit of {split}")
            audits.append(_audited(results, data, dataset, split, some, leaks or {}))
        say(len(folds), steps, "noise ceiling")
        write_ceiling(results, data)
        say(len(folds) + 1, steps, "thumbnails")
        write_slides(results, data)
        say(steps, steps, "")
    return audits


def _audited(
    results: Path,
    data: PreparedDataset,
    dataset: Dataset,
    split: str,
    folds: Sequence[Fold],
    leaks: Mapping[str, str],
) -> Audit:
    name = audit_name(data.name, split, data.target.name)
    path, record = results / "evidence" / name, results / "evidence" / MADE_FROM
    made_from = read_object(record) if record.is_file() else {}
    keys = {slide.id: slide.key for slide in data.slides.values()}
    digest = value_digest([__version__, keys, [asdict(fold) for fold in folds], data.target.formula, leaks])
    if made_from.get(name) != digest or not path.is_file():
        write_audit(results, data, folds, split, dataset=dataset, leaks=leaks)
        write_json(record, {**made_from, name: digest})
    return read_audit(path)
