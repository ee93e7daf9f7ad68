"""What a dataset is to the harness: named slices in fold order, their patients, a panel, and how to read each slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from .slides.slide import Slide


@dataclass(frozen=True)
class SlideSource:
    """A slide that is present: ``read()`` does the work, ``files`` and ``parameters`` determine its outcome."""

    id: str
    patient: str
    read: Callable[[], Slide]
    files: tuple[Path, ...] = ()  # every file that the slide's content depends on; hashed into the prepared data's key
    parameters: Mapping[str, Any] = field(default_factory=dict)  # likewise, for what is not in a file (JSON-able)


@dataclass(frozen=True)
class Missing:
    """A slice of the dataset that is not there, and why: which file was looked for, and where."""

    id: str
    reason: str


@runtime_checkable
class Dataset(Protocol):
    """One file in ``datasets/``. Constructed with the place that its data are under; ``None``: none is known.

    A dataset may also declare how its panel was chosen, which the audit prints and otherwise tests: ``panel_source:
    str`` in words, and ``panel_saw_test: bool``, whether expression of slices that are tested was looked at. If the
    panel is made from the slides, ``panel_of(genes)`` makes it from the genes of those that could be read (slice to
    names), and ``panel_notices`` then says what a user must know of it. ``find_all()`` is ``find()`` for a check, which
    must not stop at the first slice whose files are not there; ``listed_panel()`` is the panel, or ``None`` where only
    reading the slides tells it. ``expected_spots`` maps slices to the spots that the published dataset has: where a
    slice has another number, every run and report says so. ``catalogue: Traversable`` is a TOML file
    that says where the data are published (:mod:`stbench.fetching.catalogue`), for ``stbench data fetch``.

    Examples
    --------
    >>> from stbench import registry
    >>> demo = registry.dataset("demo")
    >>> isinstance(demo, Dataset), demo.patch_px
    (True, 64)
    >>> present, missing = demo.find()
    >>> [source.id for source in present], missing
    (['P1a', 'P1b', 'P2a', 'P2b', 'P3a', 'P3b'], [])
    """

    name: str  # as typed on the command line: her2st
    title: str  # as printed: HER2+
    slices: Sequence[str]  # all expected slices, in fold order
    patch_px: int  # side of the square window around a spot, in full-resolution pixels
    how_to_get: str  # where the data come from and where to put them, in one or two sentences
    citation: str

    def __init__(self, root: Path | None = None) -> None: ...

    def patient(self, slice_id: str) -> str:
        """The patient of a slice."""
        ...

    def panel(self) -> list[str]:
        """The genes to predict: symbols, in the order of the prediction's columns."""
        ...

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        """Look for the slices. Reads no counts and no image.

        Returns
        -------
        present : list of SlideSource
            In fold order.
        missing : list of Missing
            The slices whose files are not there, and why.
        """
        ...


OTHER_RELEASE = "where the published dataset has {:,}: another release, or a filtered copy"


def expected_spots(dataset: Dataset) -> Mapping[str, int]:
    """Spots per slice as published, for a dataset that states them (in the attribute ``expected_spots``)."""
    return getattr(dataset, "expected_spots", {})
