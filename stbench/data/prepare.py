"""Prepared data: patches, counts, positions and target of every slide, cut once, kept on disk, shared by all trials.

Each slide is one directory in the cache, named by a hash of everything that determines it (the content of the source
files, the window, the padding rule, the panel, the layout's version). It is written under a temporary name and renamed,
under a lock, so two processes may prepare at once; when it is opened every file is checked against its recorded digest,
and an entry that is truncated or altered is made again, with a notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..dataset import OTHER_RELEASE, Dataset, Missing, SlideSource, expected_spots
from ..errors import UserError, unknown
from .cache import cached_entry, open_entry
from .physical import patch_um_of
from .prepared import PreparedDataset, PreparedSlide
from .targets import target


def prepare(
    dataset: Dataset,
    target_name: str,
    cache: Path,
    slices: Sequence[str] | None = None,
    keys: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> PreparedDataset:
    """Open the prepared slides of ``dataset``, making those that are not in ``cache`` yet.

    ``slices`` chooses some of those present; ``keys`` (slice to key) says which prepared content is wanted: a planned
    trial never runs on data that changed since it was planned. Raises ``UserError`` when no slice can be used.
    """
    chosen_target = target(target_name)
    sources, missing = choose(dataset, slices)
    panel = dataset.panel()
    prepared: dict[str, PreparedSlide] = {}
    notices: list[str] = list(getattr(dataset, "panel_notices", ()))
    published = expected_spots(dataset)
    for position, source in enumerate(sources):
        if on_progress is not None:
            on_progress(position, len(sources), source.id)
        wanted = (keys or {}).get(source.id)
        entry = cached_entry(dataset, source, panel, cache, wanted, notices)
        prepared[source.id] = open_entry(entry, chosen_target, panel, source, notices)
    if on_progress is not None:
        on_progress(len(sources), len(sources), "")
    notices += [
        f"{name} has {slide.n_spots:,} spots, {OTHER_RELEASE.format(published[name])}"
        for name, slide in prepared.items()
        if slide.n_spots != published.get(name, slide.n_spots)
    ]
    return PreparedDataset(
        name=dataset.name,
        title=dataset.title,
        target=chosen_target,
        genes=tuple(panel),
        patch_px=dataset.patch_px,
        patch_um=patch_um_of(dataset),
        slides=prepared,
        expected=tuple(dataset.slices),
        missing=tuple(missing),
        notices=tuple(notices),
        panel_source=getattr(dataset, "panel_source", ""),
        panel_saw_test=getattr(dataset, "panel_saw_test", None),
    )


def choose(dataset: Dataset, slices: Sequence[str] | None) -> tuple[list[SlideSource], list[Missing]]:
    """The slices to use, all that are present or those of ``slices``, and those that are missing; reads no content.

    Raises ``UserError`` for a slice that is unknown or not there, and where there is none.
    """
    sources, missing = dataset.find()
    if slices is not None:
        for name in slices:
            if name not in dataset.slices:
                raise unknown(f"slice of {dataset.name}", name, dataset.slices)
        absent = {gone.id: gone.reason for gone in missing}
        for name in slices:
            if name in absent:
                raise UserError(f"slice {name} of {dataset.name} is not there: {absent[name]} - {dataset.how_to_get}")
        sources = [source for source in sources if source.id in set(slices)]
    if not sources:
        reason = f" ({missing[0].id}: {missing[0].reason})" if missing else ""
        raise UserError(
            f"no slice of {dataset.name} was found{reason} - {dataset.how_to_get}; "
            "name the folder with --data DIR or STBENCH_DATA, and see 'stbench data list'"
        )
    return sources, missing


def require_readable(sources: Iterable[SlideSource]) -> None:
    """``UserError`` for a file of a slice that is gone, or that may not be read; costs nothing."""
    for source in sources:
        for path in source.files:
            try:
                with open(path, "rb") as handle:
                    handle.read(1)
            except OSError as error:
                raise UserError(
                    f"{path} of slice {source.id} cannot be read ({error.strerror or error}) - restore it, or see "
                    "'stbench data list'"
                ) from error
