"""Preparing and splitting a dataset as the options say, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from ..data.splits import SPLITS, make_folds
from ..errors import UserError, unknown
from ..system.locate import cache_root
from .console import with_bar
from .lists import slice_list, words

if TYPE_CHECKING:
    from ..data.prepared import PreparedDataset
    from ..data.splits import Fold
    from ..dataset import Dataset


def require_data(
    opened: Dataset, slices: str | None, split: str, folds: int | None, only_folds: Sequence[str] | None = None
) -> None:
    """Stop, before anything that takes time, if slices are missing, cannot be read, or are too few for the split.

    ``slices``, ``split`` and ``folds`` are as they were typed; ``only_folds`` must be names of the split's folds.
    """
    from ..data.prepare import choose, require_readable

    sources, _ = choose(opened, slice_list(slices))
    named = split_folds(split, folds, {source.id: source.patient for source in sources})
    known = [fold.name for each in named.values() for fold in each]
    for name in only_folds or ():
        if name not in known:
            raise unknown(f"fold of --split {split}", name, known)
    require_readable(sources)


def require_slices(opened: Dataset, slices: str | None, option: str = "--slices") -> None:
    """As :func:`require_data`, of a dataset of which all slices are on one side."""
    from ..data.prepare import choose, require_readable

    require_readable(choose(opened, None if slices is None else words(slices, option))[0])


def prepare_slices(opened: Dataset, target: str, slices: str | None) -> PreparedDataset:
    """Prepare ``opened`` for a target; ``slices`` is as it was typed."""
    from ..data.prepare import prepare

    chosen = slice_list(slices)
    return with_bar("preparing slices", lambda bar: prepare(opened, target, cache_root(), chosen, on_progress=bar))


def notes_of(prepared: PreparedDataset) -> Iterator[str]:
    """What a user must know about the prepared slices."""
    from ..data.physical import unknown_sizes

    yield from prepared.notices
    sizes = unknown_sizes({name: slide.um_per_px for name, slide in prepared.slides.items()})
    if sizes is not None:
        yield sizes
    for slide in prepared.slides.values():
        yield from slide.notes


def check_split(split: str, folds: int | None) -> None:
    """Raise ``UserError`` if ``--split`` is not a list of splits, or if ``--folds`` is given without kfold."""
    names = words(split, "--split")
    for name in names:
        if name not in SPLITS:
            raise unknown("split", name, SPLITS)
    if folds is not None and "kfold" not in names:
        raise UserError(f"--folds {folds} needs --split kfold, not {split} - leave one of the two out")


def split_folds(split: str, folds: int | None, patients: Mapping[str, str]) -> dict[str, list[Fold]]:
    """The folds of every split in ``--split``; ``patients`` maps slices to patients, in fold order."""
    return {name: list(make_folds(name, patients, k=folds or 5, seed=0)) for name in words(split, "--split")}
