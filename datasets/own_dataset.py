"""A dataset of the user's own sections, made of entries: one per slide, as a manifest or an import describes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from stbench.dataset import Missing, SlideSource
from stbench.errors import UserError, about_slice
from stbench.slides.gene_names import mismatch
from stbench.slides.slide import Slide
from stbench.system.locate import MANIFEST
from stbench.system.user_paths import unset_variables
from stbench.system.wording import shortened

from .readers.reader import ALWAYS
from .readers.table import READERS

# A panel of common genes is refused below these numbers, and said below the last share, of the smallest slide's genes.
FEWEST_COMMON, LEAST_SHARE, NOTABLE_SHARE = 10, 0.01, 0.5
NOT_OF_READERS = ("id", "patient", "reader", *ALWAYS)  # keys of an entry that its reader is not handed
STATED = "um_per_px of its entry"
OTHER_SCALE = 0.02  # share by which a stated pixel size may differ from the reader's own before that is said


class OwnDataset:
    """A dataset made of entries, one per slide: what a manifest, a file or a folder is turned into."""

    def __init__(
        self,
        name: str,
        title: str,
        patch_px: int,
        panel: Sequence[str] | None,
        entries: Sequence[Mapping[str, Any]],
        origin: Path,
        citation: str = "",
    ) -> None:
        """``panel=None``: genes common to all slides. Each entry holds id, patient, reader and the reader's keys."""
        self.name = name
        self.title = title
        self.patch_px = patch_px
        self.slices: Sequence[str] = tuple(entry["id"] for entry in entries)
        self.entries = tuple(entries)
        self.how_to_get = f"the paths of the sections stand in {origin}"
        self.citation = citation
        self._panel = None if panel is None else list(panel)
        self.panel_notices: list[str] = []  # known once the slides were read
        # a list of the user's own may come from anywhere
        self.panel_source = "genes common to all slides, by their names" if panel is None else ""
        self.panel_saw_test = False if panel is None else None
        self._patients = {entry["id"]: entry["patient"] for entry in entries}
        self._sources: list[SlideSource] = []
        self._faults: dict[str, UserError] = {}  # slices whose files are not there
        for entry in entries:
            try:
                self._sources.append(source_of(entry))
            except UserError as error:
                fault = _moved(entry, origin) or error
                self._faults[entry["id"]] = fault
                self._sources.append(SlideSource(entry["id"], entry["patient"], partial(_refuse, fault)))

    def patient(self, slice_id: str) -> str:
        return self._patients[slice_id]

    def panel(self) -> list[str]:
        """Without a list of its own: genes common to all slides, in the order of the first."""
        if self._panel is None:
            genes = {}
            for source in self.find()[0]:
                with about_slice(source.id):
                    genes[source.id] = source.read().genes
            self._panel = self.panel_of(genes)
        return list(self._panel)

    def listed_panel(self) -> list[str] | None:
        """The panel where it is a list of the user's own; ``None`` where slides must be read to know it."""
        return None if self._panel is None else list(self._panel)

    def panel_of(self, genes: Mapping[str, Sequence[str]]) -> list[str]:
        """The panel, where ``genes`` are those of its slices, or of those among them that could be read.

        Raises ``UserError`` where hardly any gene is common to all of them.
        """
        if self._panel is not None:
            return list(self._panel)
        found, self.panel_notices = common_genes(self.name, genes)
        self.panel_source = f"the {len(found):,} genes common to all {len(genes)} slides, by their names"
        return found

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        """All of them: a path that leads nowhere is refused, not passed over."""
        for name, error in self._faults.items():
            with about_slice(name):
                raise error
        return list(self._sources), []

    def find_all(self) -> tuple[list[SlideSource], list[Missing]]:
        """As :meth:`find`, for a check that is to see every slice: reading one whose files are not there raises."""
        return list(self._sources), []


def common_genes(name: str, genes: Mapping[str, Sequence[str]]) -> tuple[list[str], list[str]]:
    """Genes that all slices list, in the order of the first; and what a user must know of their number."""
    slices = list(genes)
    shared = set(genes[slices[0]]).intersection(*(genes[one] for one in slices[1:]))
    smallest = min(slices, key=lambda one: len(genes[one]))
    n_smallest = len(genes[smallest])
    numbers = shortened([f"{one} {len(genes[one]):,}" for one in slices], 6)
    if len(shared) < max(min(FEWEST_COMMON, n_smallest), LEAST_SHARE * n_smallest):
        how_many = "no gene" if not shared else f"only {len(shared)} gene{'s' if len(shared) > 1 else ''}"
        odd = min(slices, key=lambda one: sum(len(set(genes[one]) & set(genes[other])) for other in slices))
        others = max((one for one in slices if one != odd), key=lambda one: len(genes[one]), default=odd)
        why = mismatch(genes[odd], genes[others], odd, others)
        raise UserError(
            f"the sections of {name} have {how_many} in common (they list: {numbers}) - {why}, or give a panel"
        )
    notices = []
    if len(shared) < NOTABLE_SHARE * n_smallest:
        notices.append(
            f'panel = "all" are the {len(shared):,} genes common to all {len(slices)} slices, '
            f"{100 * len(shared) / n_smallest:.0f} % of those of {smallest} (they list: {numbers})"
        )
    return [gene for gene in genes[slices[0]] if gene in shared], notices


def _refuse(error: UserError) -> Slide:
    raise error


def _moved(entry: Mapping[str, Any], manifest: Path) -> UserError | None:
    """What to say where a path of an entry leads nowhere, as after a move."""
    gone = next(((key, path) for key, path in entry.items() if isinstance(path, Path) and not path.exists()), None)
    if gone is None:
        return None
    key, path = gone
    again = ", or import the section again with --replace" if manifest.name == MANIFEST else ""
    return UserError(f"{path} does not exist{unset_variables(path)} - correct {key} in {manifest}{again}")


def source_of(entry: Mapping[str, Any]) -> SlideSource:
    """The slide that an entry describes. Raises ``UserError`` for files that are not there."""
    name, patient = entry["id"], entry["patient"]
    values = {key: value for key, value in entry.items() if key not in NOT_OF_READERS}
    read, files = READERS[entry["reader"]].open(name, patient, values)
    if "um_per_px" in entry:
        read = partial(_with_pixel_size, read, entry["um_per_px"])
    parameters = {key: value for key, value in entry.items() if not isinstance(value, Path)}
    return SlideSource(name, patient, read, files, parameters)


def _with_pixel_size(read: Callable[[], Slide], um_per_px: float) -> Slide:
    """The slide with the pixel size that its entry states, which counts more than what its reader makes of it."""
    slide = read()
    if slide.um_per_px is None or abs(slide.um_per_px / um_per_px - 1) <= OTHER_SCALE:
        return replace(slide, um_per_px=um_per_px, um_per_px_from=STATED)
    note = (
        f"{slide.id}: a pixel is {um_per_px:.4g} µm wide, as its entry states (um_per_px); by its files it would be "
        f"{slide.um_per_px:.4g} µm"
    )
    return replace(slide, um_per_px=um_per_px, um_per_px_from=STATED, notes=(*slide.notes, note))
