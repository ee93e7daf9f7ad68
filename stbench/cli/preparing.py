"""A dataset prepared and split, as the options say, with a bar while it lasts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import UserError
from ..locate import cache_root
from .console import with_bar
from .lists import slice_list, words

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..prepare import PreparedDataset
    from ..splits import Fold


def prepare_slices(opened: Dataset, target: str, slices: str | None) -> PreparedDataset:
    """``opened`` on a target; ``slices`` as it was typed."""
    from ..prepare import prepare

    chosen = slice_list(slices)
    return with_bar("preparing slices", lambda bar: prepare(opened, target, cache_root(), chosen, on_progress=bar))


def notes_of(prepared: PreparedDataset) -> Iterator[str]:
    """What a user must know of the prepared slices."""
    yield from prepared.notices
    for slide in prepared.slides.values():
        yield from slide.notes


def check_split(split: str, folds: int | None) -> None:
    """A ``UserError`` for a ``--split`` that is no list of names, and for ``--folds`` without ``--split kfold``."""
    names = words(split, "--split")
    if folds is not None and "kfold" not in names:
        raise UserError(f"--folds {folds} needs --split kfold, not {split} - leave one of the two out")


def split_folds(split: str, folds: int | None, prepared: PreparedDataset) -> dict[str, list[Fold]]:
    """Every split of ``--split`` to its folds."""
    from ..splits import make_folds

    return {name: list(make_folds(name, prepared.patients, k=folds or 5, seed=0)) for name in words(split, "--split")}
