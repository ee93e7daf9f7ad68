"""A dataset that is trained on and one that is tested, prepared alike and joined: to trials they are one dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from ..dataset import Dataset
from ..errors import UserError
from ..system.wording import shortened
from .dataset_view import DatasetView
from .panel import Panel, WithPanel
from .prepare import prepare
from .prepared import PreparedDataset, PreparedSlide
from .transfer import Transfer, training_name

NAMED_GENES = 10  # of those that are missing, in a notice


class WindowsOfAnother(DatasetView):
    """A dataset whose patches are those that models of another dataset take; all else is its own."""

    def __init__(self, dataset: Dataset, patch_px: int, patch_um: float | None) -> None:
        super().__init__(dataset)
        self.patch_px, self.patch_um = patch_px, patch_um


class OnSharedGenes(WithPanel):
    """A dataset on the genes that it shares with another; messages call it by its own name."""

    def __init__(self, dataset: Dataset, panel: Panel) -> None:
        super().__init__(dataset, panel)
        self.name, self.title = dataset.name, dataset.title


@dataclass(frozen=True)
class Side:
    """One of the two datasets, and which of its slices take part."""

    dataset: Dataset
    slices: Sequence[str] | None = None  # None: all that are present
    keys: Mapping[str, str] | None = None  # slice to the key that its prepared content must have

    def prepare(
        self, panel: Panel, target: str, cache: Path, on_progress: Callable[[int, int, str], None] | None = None
    ) -> PreparedDataset:
        """Its slices on the genes of ``panel``."""
        view = OnSharedGenes(self.dataset, panel)  # a Dataset by what it passes on
        return prepare(view, target, cache, slices=self.slices, keys=self.keys, on_progress=on_progress)


def join(
    trained: PreparedDataset | None,
    tested: PreparedDataset,
    transfer: Transfer,
    panel: Panel,
    notices: Sequence[str] = (),
) -> PreparedDataset:
    """Both as one, the training slices under names that say whose they are.

    Parameters
    ----------
    trained : PreparedDataset or None
        ``None``: the training slices are not at hand.
    tested : PreparedDataset
        On the same genes and target, its patches of the same side.
    transfer : Transfer
        What becomes of its name, title and facts.
    panel : Panel
        The shared genes, and how they came about.
    notices : sequence of str
        What a reader must know of the two together.

    Raises
    ------
    UserError
        If a tested slice is a training slice under another name, or is called like one.
    """
    theirs = {} if trained is None else {slide.id: slide for slide in _renamed(trained.slides, transfer.trained)}
    for name in theirs.keys() & tested.slides.keys():
        raise UserError(f"slice {name} of {tested.title} is called like a training slice - rename it")
    refuse_trained_on(theirs, tested.slides, transfer)
    own = (*notices, *(() if trained is None else trained.notices), *tested.notices)
    return replace(
        tested,
        name=transfer.name,
        title=transfer.title,
        slides=theirs | dict(tested.slides),
        notices=tuple(dict.fromkeys(own)),
        panel_source=panel.source,
        panel_saw_test=panel.saw_test,
        patch_um=tested.patch_um if trained is None or trained.patch_um == tested.patch_um else None,
        transfer=transfer,
    )


def _renamed(slides: Mapping[str, PreparedSlide], dataset: str) -> Iterable[PreparedSlide]:
    for name, slide in slides.items():
        new = training_name(dataset, name)
        about = f"{name}: "  # in front of what is told of a slide
        notes = tuple(f"{new}: {note.removeprefix(about)}" if note.startswith(about) else note for note in slide.notes)
        yield replace(slide, id=new, patient=training_name(dataset, slide.patient), notes=notes)


def refuse_trained_on(
    trained: Mapping[str, PreparedSlide], tested: Mapping[str, PreparedSlide], transfer: Transfer
) -> None:
    """``UserError`` where a tested slice has the counts of a training slice at the same places, whatever its name."""
    known = {_content(slide): name for name, slide in trained.items()}
    for name, slide in tested.items():
        twin = known.get(_content(slide))
        if twin is not None:
            raise UserError(
                f"slice {name} of {transfer.tested_title} is the training slice {twin} (the same counts at the same "
                "places): its score would be one of learning by heart - leave it out"
            )


def _content(slide: PreparedSlide) -> tuple[bytes, bytes]:
    """What a slide is, in whatever order its spots stand, whatever it is called and however large its windows are."""
    order = np.lexsort((slide.total_counts, slide.pixel_xy[:, 1], slide.pixel_xy[:, 0]))
    return slide.total_counts[order].tobytes(), slide.pixel_xy[order].tobytes()


def physical_side(windows: Mapping[str, tuple[float, float | None]]) -> float | None:
    """Side in µm of the windows that were trained on, to a tenth; ``None`` where the size of a pixel is not known.

    ``windows``: training slice to the full-resolution pixels of a window's side, and µm per pixel. Where slices differ,
    as sections of HER2+ do, it is the median.
    """
    sides = [px * um for px, um in windows.values() if um is not None]
    return round(median(sides), 1) if sides and len(sides) == len(windows) else None


def windows_in_words(
    transfer: Transfer, side_um: float | None, patch_px: int, unknown: Sequence[str], own_size: bool = False
) -> str:
    """How wide the windows of the tested slices are, for those who read their scores.

    ``unknown``: the slices whose pixels have no known size; ``own_size``: a method cuts windows of a size in µm itself.
    """
    if side_um is not None:
        return (
            f"windows of the tested slices are {side_um:g} µm wide, as those trained on, resampled to {patch_px} px "
            "where a pixel has another size"
        )
    plain = f"windows of the tested slices are {patch_px} full-resolution pixels wide"
    if own_size:
        return f"{plain}: a method takes windows of its own size in µm from them"
    return (
        f"{plain}, as those of {transfer.trained_title} in pixels: whether they show as much tissue cannot be told, as "
        f"the size of a pixel is not known in {shortened(list(unknown), NAMED_GENES)}"
    )


def shared_panel(transfer: Transfer, genes: tuple[str, ...]) -> Panel:
    """The shared genes as a panel, which says what is missing. No expression of a tested slice was looked at."""
    title = f"genes of {transfer.trained_title} measured on {transfer.tested_title}"
    source = f"the {len(genes)} of {transfer.n_panel} genes of {transfer.trained_title} that every tested slice lists"
    return Panel(transfer.name, title, source, False, genes)


def genes_in_words(transfer: Transfer) -> str:
    """``771 of the 785 genes of HER2+ were measured on Alex+10x and are scored; missing: A, B``"""
    told = (
        f"{transfer.n_shared} of the {transfer.n_panel} genes of {transfer.trained_title} were measured on every "
        f"tested slice of {transfer.tested_title} and are scored"
    )
    return f"{told}; missing: {shortened(transfer.missing, NAMED_GENES)}" if transfer.missing else told
