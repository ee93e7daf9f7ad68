"""What is known of the data before anything is trained: the audit, the noise ceiling and the slides' thumbnails."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..system.files import read_object, replacing, write_json

if TYPE_CHECKING:
    from ..data.prepared import PreparedDataset
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

from .. import NUMBERS
from ..audit import Audit, audit_name, read_audit, write_audit
from ..data.prepared import PreparedDataset, PreparedSlide
from ..data.splits import Fold
from ..data.thumbnails import INDEX, read_index
from ..dataset import Dataset
from ..scores.ceiling import write_ceiling
from ..system.files import value_digest, writing_to


def write_slides(results: Path, data: PreparedDataset) -> Path:
    """Copy the slides' thumbnails to ``RESULTS/evidence/slides-DATASET/SLICE.jpg``; returns that folder.

    ``slides.json`` beside them: slice to ``file``, ``scale`` (thumbnail pixels per full-resolution pixel) and
    ``spot_diameter`` (full-resolution pixels). Slices that an earlier run of ``results`` put there stay.
    """
    folder = results / "evidence" / f"slides-{data.name}"
    index = folder / INDEX
    slides: dict[str, dict[str, Any]] = read_index(index) if index.is_file() else {}
    for name, slide in data.slides.items():
        file = f"{name}.jpg"
        with replacing(folder / file) as temporary:
            temporary.write_bytes(slide.thumbnail.read_bytes())
        slides[name] = {"file": file, "scale": slide.thumbnail_scale, "spot_diameter": slide.spot_diameter}
    write_json(index, slides)
    return folder


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
        for done, (split, folds_of_split) in enumerate(folds.items()):
            say(done, steps, f"audit of {split}")
            audits.append(_audited(results, data, dataset, split, folds_of_split, leaks or {}))
        say(len(folds), steps, "noise ceiling")
        write_ceiling(results, replace(data, slides=_tested(data)))
        say(len(folds) + 1, steps, "thumbnails")
        write_slides(results, data)
        say(steps, steps, "")
    return audits


def _tested(data: PreparedDataset) -> Mapping[str, PreparedSlide]:
    """The slides that are scored: of a transfer those of the tested dataset."""
    return {name: slide for name, slide in data.slides.items() if data.transfer is None or name in data.expected}


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
    digest = value_digest([NUMBERS, keys, [asdict(fold) for fold in folds], data.target.formula, leaks])
    if made_from.get(name) != digest or not path.is_file():
        write_audit(results, data, folds, split, dataset=dataset, leaks=leaks)
        write_json(record, {**made_from, name: digest})
    return read_audit(path)
