"""What a format is to manifests and to ``stbench data import``: how it is recognised, what an entry holds, its reading.

An entry describes one slide: ``id``, ``patient``, ``reader``, and the keys of that reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stbench.slides.slide import Slide
from stbench.system.compressed import existing

# reads the slide when it is called, and every file that the slide's content depends on
Opened = tuple[Callable[[], Slide], tuple[Path, ...]]

ALWAYS = ("um_per_px",)  # numbers that an entry of every reader may hold


def nobody(*_: Any) -> None:
    """What files that say nothing say."""


def one_alone(_: Path) -> Sequence[str]:
    """What a path of one slice holds."""
    return ()


def named_files(values: Mapping[str, Any]) -> tuple[Path, ...]:
    """The files that an entry's keys name. Raises ``UserError`` for one that is not there."""
    return tuple(existing(value) for value in values.values() if isinstance(value, Path))


@dataclass(frozen=True)
class Reader:
    """One format.

    Attributes
    ----------
    name : str
        As it stands in a manifest, ``reader = "..."``.
    what : str
        What a path of this format is, for messages: ``"an output folder of Space Ranger"``.
    source : str
        The required path that ``stbench data import PATH`` gives, and by which the format is recognised.
    open : callable
        Takes ``slide_id``, ``patient`` and ``values``, which holds the entry's keys of this reader (paths as ``Path``,
        numbers as ``float``, words as ``str``, switches as ``bool``). Looks for files, and reads none that is large.
        Raises ``UserError`` for what is not there.
    recognises : callable
        ``recognises(path)`` says in words why a path is of this format, or ``None``: a path that it is not sure of is
        not its own. Reads a few bytes at most, and raises nothing.
    patient_of : callable, optional
        ``patient_of(path, slide_id)`` is the patient where the files say whose section it is, else ``None``. Raises
        nothing.
    several : callable, optional
        ``several(path)`` are the names of the slices that ``path`` holds, where one has to be named. Raises nothing.
    refuses : callable, optional
        ``refuses(values)`` says in one line why an import does not take an entry that could be read: where the reader
        would have to choose for its user. ``None`` where it has no objection. May raise ``UserError``, as ``open``.
    other_paths, optional_paths, numbers, words, switches : tuple of str
        Further keys: paths that are required beside ``source``, paths that are not, positive numbers, texts, and
        true or false.
    """

    name: str
    what: str
    source: str
    open: Callable[[str, str, dict[str, Any]], Opened]
    recognises: Callable[[Path], str | None]
    patient_of: Callable[[Path, str], str | None] = nobody
    several: Callable[[Path], Sequence[str]] = one_alone
    refuses: Callable[[dict[str, Any]], str | None] = nobody
    other_paths: tuple[str, ...] = ()
    optional_paths: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()

    @property
    def required_paths(self) -> tuple[str, ...]:
        return (self.source, *self.other_paths)

    @property
    def paths(self) -> tuple[str, ...]:
        return (*self.required_paths, *self.optional_paths)

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys of an entry but ``id``, ``patient`` and ``reader``."""
        return (*self.paths, *self.numbers, *ALWAYS, *self.words, *self.switches)
