"""What a reader found beside a slide, and what the checks say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .image import SlideImage

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class OffTissue:
    """Barcodes of a matrix of spots under tissue that the table of positions places off it."""

    n: int
    of: int
    counts: str  # name of the file
    positions: str


@dataclass(frozen=True)
class Evidence:
    """What a reader found beside a slide that says whether its parts belong together."""

    pictures: tuple[SlideImage, ...] = ()  # smaller ones of the same section
    off_tissue: OffTissue | None = None


NOTHING = Evidence()


@dataclass(frozen=True)
class Finding:
    severity: Literal["error", "notice"]
    text: str
