"""What must be known of a slice before it is prepared for another dataset's panel and windows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..dataset import SlideSource
from ..errors import UserError, about_slice
from ..slides.checks import validate
from ..system.files import write_json, writing_to
from ..system.wording import shortened
from .source_key import source_key
from .transfer import FEWEST_GENES

VERSION = 1  # raise it whenever what is kept below changes
SHOWN = 3  # gene names that an error shows of each side


@dataclass(frozen=True)
class Measured:
    """Of one slice."""

    genes: frozenset[str]  # that its file lists, whatever their counts
    um_per_px: float | None  # of full resolution; None: unknown


def cached_measured(source: SlideSource, cache: Path) -> Measured:
    """What was measured on a slide, which is read only where ``cache`` does not know it yet."""
    path = cache / "measured" / f"{source_key(source, VERSION)}.json"
    known = _read(path)
    if known is not None:
        return known
    with about_slice(source.id):
        slide = source.read()
        validate(slide)
    found = Measured(frozenset(slide.genes), slide.um_per_px)
    with writing_to(path):
        write_json(path, {"genes": sorted(found.genes), "um_per_px": found.um_per_px})
    return found


def _read(path: Path) -> Measured | None:
    """``None`` where it is not known, or the file is damaged: the slide is read again then."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        size = content["um_per_px"]
        return Measured(frozenset(map(str, content["genes"])), None if size is None else float(size))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def shared_genes(panel: Sequence[str], measured: Iterable[Measured], trained: str, tested: str) -> tuple[str, ...]:
    """The genes of ``panel``, in its order, that every one of the slides lists.

    Parameters
    ----------
    panel : sequence of str
        Of the training dataset.
    measured : iterable of Measured
        Of the tested slices: one at least.
    trained, tested : str
        What messages call the two datasets.

    Raises
    ------
    UserError
        If they are fewer than ``FEWEST_GENES``; the message shows names of both sides.
    """
    slides = list(measured)
    everywhere = frozenset.intersection(*(slide.genes for slide in slides))
    shared = tuple(gene for gene in panel if gene in everywhere)
    if len(shared) < min(FEWEST_GENES, len(panel)) or not shared:
        theirs = shortened(sorted(everywhere), SHOWN) if everywhere else "no gene that all of them list"
        raise UserError(
            f"{len(shared)} of the {len(panel)} genes of {trained} were measured on every tested slice of {tested}, "
            f"and at least {FEWEST_GENES} are needed ({trained} has {shortened(list(panel), SHOWN)}; {tested} has "
            f"{theirs}) - use the same kind of gene names in both, or choose slices that measured them"
        )
    return shared
