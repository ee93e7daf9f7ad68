"""A dataset prepared and split, as the options say, with a bar while it lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from ..errors import UserError, unknown
from ..system.locate import cache_root
from .console import with_bar
from .lists import slice_list, words

if TYPE_CHECKING:
    from ..data.prepared import PreparedDataset
    from ..data.splits import Fold
    from ..dataset import Dataset


def require_data(opened: Dataset, slices: str | None, split: str, folds: int | None) -> None:
    """Stop, before anything that takes time, where slices are not there, cannot be read, or are too few for the split.

    ``slices``, ``split`` and ``folds`` as they were typed.
    """
    from ..data.prepare import choose, require_readable

    sources, _ = choose(opened, slice_list(slices))
    split_folds(split, folds, {source.id: source.patient for source in sources})
    require_readable(sources)


def prepare_slices(opened: Dataset, target: str, slices: str | None) -> PreparedDataset:
    """``opened`` on a target; ``slices`` as it was typed."""
    from ..data.prepare import prepare

    chosen = slice_list(slices)
    return with_bar("preparing slices", lambda bar: prepare(opened, target, cache_root(), chosen, on_progress=bar))


def notes_of(prepared: PreparedDataset) -> Iterator[str]:
    """What a user must know of the prepared slices."""
    yield from prepared.notices
    for slide in prepared.slides.values():
        yield from slide.notes


def check_split(split: str, folds: int | None) -> None:
    """A ``UserError`` for a ``--split`` that is no list of splits, and for ``--folds`` without ``--split kfold``."""
    from ..data.splits import SPLITS

    names = words(split, "--split")
    for name in names:
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
    if folds is not None and "kfold" not in names:
        raise UserError(f"--folds {folds} needs --split kfold, not {split} - leave one of the two out")


def split_folds(split: str, folds: int | None, patients: Mapping[str, str]) -> dict[str, list[Fold]]:
    """Every split of ``--split`` to its folds; ``patients``: slice to patient, in fold order."""
    from ..data.splits import make_folds

    return {name: list(make_folds(name, patients, k=folds or 5, seed=0)) for name in words(split, "--split")}
