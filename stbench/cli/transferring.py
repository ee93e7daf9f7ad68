"""Preparing two datasets as one, trained on the one and tested on the other: ``run --test-dataset``, ``evaluate``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from .. import registry
from ..errors import UserError
from ..system.locate import cache_root, data_root
from .console import of_each, out, say_once, with_bar
from .lists import words
from .preparing import notes_of

if TYPE_CHECKING:
    from ..data.panel import Panel
    from ..data.prepared import PreparedDataset, PreparedSlide
    from ..data.transfer import Transfer
    from ..dataset import Dataset, SlideSource
    from ..trials.spec import DataSpec


SUMS_DIFFER = (
    "the target divides by a spot's sum over the panel: on tested slices, and in training controls, over the shared "
    "genes; in training the models over their whole panel"
)


@dataclass(frozen=True, kw_only=True)
class TestedOptions:
    """The dataset that is tested, as it was typed."""

    dataset: str
    slices: str | None
    data: Path | None
    slices_option: str = "--slices"  # its name in errors

    @property
    def root(self) -> Path | None:
        return data_root(self.data)

    @cached_property
    def opened(self) -> Dataset:
        return registry.dataset(self.dataset, self.root)

    @property
    def origin(self) -> str:
        """What the registry finds it by, from wherever."""
        return registry.dataset_origin(self.dataset, self.root)

    @property
    def sources(self) -> list[SlideSource]:
        """The slices that are tested. Raises ``UserError`` where there is none, or one cannot be read."""
        from ..data.prepare import choose, require_readable

        chosen = None if self.slices is None else words(self.slices, self.slices_option)
        sources = choose(self.opened, chosen)[0]
        require_readable(sources)
        return sources


@dataclass(frozen=True, kw_only=True)
class TrainedSide:
    """What is trained on, by a run or by models that exist."""

    name: str  # of the dataset, as results have it
    title: str
    genes: tuple[str, ...]  # its panel
    patch_px: int
    patch_um: float | None  # side of its windows; None: patch_px full-resolution pixels
    own_size: bool  # whether a method cuts windows of a size in micrometres itself
    dataset: Dataset | None  # None: the training slices are not at hand
    origin: str = ""
    root: Path | None = None
    slices: Sequence[str] | None = None  # that are trained on; None: all that are present
    windows: Mapping[str, tuple[float, float | None]] | None = None  # of the models; None: as slides are prepared


@dataclass(frozen=True)
class Joined:
    """Both datasets as trials use them."""

    prepared: PreparedDataset
    data_spec: DataSpec
    panel: Panel

    @property
    def training_slices(self) -> tuple[str, ...]:
        return tuple(name for name in self.prepared.slides if name not in self.tested_slices)

    @property
    def tested_slices(self) -> tuple[str, ...]:
        assert self.data_spec.tested is not None
        return self.data_spec.tested.slices


def refuse_itself(trained: str, origin: str, tested: TestedOptions) -> None:
    """``UserError`` where the tested dataset is the one that was trained on."""
    if tested.opened.name == trained or (origin and tested.origin == origin):
        raise UserError(
            f"{tested.opened.title} is the dataset that is trained on: its slices would be known from training - test "
            "on another dataset; 'stbench run --split' holds slices of one dataset out"
        )


def join_datasets(trained: TrainedSide, tested: TestedOptions, target: str) -> Joined:
    """Prepare both on the genes that they share, and print what they are in a few lines."""
    from ..data import joining
    from ..data.measured import cached_measured, shared_genes
    from ..data.transfer import Transfer, training_name
    from ..trials.spec import DataSpec, TestedSpec

    sources, cache = tested.sources, cache_root()
    measured = of_each("looking at genes of", sources, lambda source: cached_measured(source, cache))
    genes = shared_genes(trained.genes, measured.values(), trained.title, tested.opened.title)
    transfer = Transfer(
        trained=trained.name,
        trained_title=trained.title,
        tested=tested.opened.name,
        tested_title=tested.opened.title,
        n_panel=len(trained.genes),
        missing=tuple(gene for gene in trained.genes if gene not in set(genes)),
        trained_here=trained.dataset is not None,
    )
    panel = joining.shared_panel(transfer, genes)
    theirs = None
    if trained.dataset is not None:
        side = joining.Side(trained.dataset, trained.slices)
        theirs = with_bar("preparing training slices", lambda bar: side.prepare(panel, target, cache, bar))
    windows = trained.windows or _windows({} if theirs is None else theirs.slides)
    sizes = {training_name(trained.name, name): um for name, (_, um) in windows.items()}
    sizes |= {name: slide.um_per_px for name, slide in measured.items()}
    unknown = [name for name, um in sizes.items() if um is None]
    patch_um = None
    if trained.patch_um is not None and trained.windows is None:
        patch_um = trained.patch_um  # as it was asked for: a slice without a known pixel size is refused
    elif not trained.own_size and not unknown:
        patch_um = trained.patch_um or joining.physical_side(windows)
    names = tuple(source.id for source in sources)
    view = joining.WindowsOfAnother(tested.opened, trained.patch_px, patch_um)
    own = with_bar("preparing tested slices", lambda bar: joining.Side(view, names).prepare(panel, target, cache, bar))
    notices = [
        joining.genes_in_words(transfer),
        joining.windows_in_words(transfer, patch_um, trained.patch_px, unknown, trained.own_size),
    ]
    if transfer.missing and trained.windows is not None and "over the panel" in own.target.formula:
        notices.append(SUMS_DIFFER)
    prepared = joining.join(theirs, own, transfer, panel, notices)
    say_once(notes_of(prepared))
    _say(prepared, transfer, names)
    of_training = {} if theirs is None else theirs.slides
    keys = {training_name(trained.name, name): slide.key for name, slide in of_training.items()}
    data_spec = DataSpec(
        dataset=trained.origin if theirs is not None else "",
        name=prepared.name,
        root=None if trained.root is None else str(trained.root),
        cache=str(cache),
        target=target,
        keys=keys | {name: slide.key for name, slide in own.slides.items()},
        patch_um=trained.patch_um,
        panel=panel.digest,
        tested=TestedSpec(
            dataset=tested.origin,
            root=None if tested.root is None else str(tested.root),
            slices=names,
            patch_px=trained.patch_px,
            patch_um=patch_um,
            transfer=transfer,
        ),
    )
    return Joined(prepared, data_spec, panel)


def _windows(slides: Mapping[str, PreparedSlide]) -> dict[str, tuple[float, float | None]]:
    return {name: (slide.window_side, slide.um_per_px) for name, slide in slides.items()}


def _say(prepared: PreparedDataset, transfer: Transfer, tested: Sequence[str]) -> None:
    n_training = len(prepared.slides) - len(tested)
    trained = f"{n_training} slices" if transfer.trained_here else "slices that are not at hand"
    out.print(
        f"trained on {trained} of {transfer.trained_title}, tested on {len(tested)}/{len(prepared.expected)} of "
        f"{transfer.tested_title}, {sum(prepared.slides[name].n_spots for name in tested):,} spots; "
        f"{transfer.n_shared} of {transfer.n_panel} genes shared; target {prepared.target.name}: "
        f"{prepared.target.formula}",
        soft_wrap=True,
    )
