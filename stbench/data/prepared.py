"""Prepared slides and datasets, as methods and scores are handed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..dataset import Missing
from ..method import LeakedSlide, OracleSlide, TestSlide, TrainingSlide
from ..slides.content import with_content
from ..system.mapped import require_whole
from .targets import Target
from .transfer import Transfer

PADDING = 255  # a window that crosses the image's border is filled with white, and counted

PADDING_RULE = "parts of a window outside the image are white (255), or black where a method's padding says so"


@dataclass(frozen=True)
class PreparedSlide:
    """One slide as trials use it. Arrays are read-only; ``patches`` is memory-mapped."""

    id: str
    patient: str
    genes: tuple[str, ...]
    patches: np.ndarray  # (n_spots, patch_px, patch_px, 3) uint8, or a TiledPatches, which is read like one
    patches_digest: str  # of their file, which was compared when it was opened
    counts: np.ndarray  # (n_spots, n_genes) int32, panel genes
    total_counts: np.ndarray  # (n_spots,) int64, all genes of the slide
    n_measured: int  # how many genes these are
    target: np.ndarray  # (n_spots, n_genes) float32
    array_xy: np.ndarray  # (n_spots, 2) int64
    pixel_xy: np.ndarray  # (n_spots, 2) float64, full resolution
    spot_ids: tuple[str, ...]
    labels: tuple[str | None, ...] | None
    um_per_px: float | None
    image_level: str  # full, hires or lowres
    thumbnail: Path  # the whole image as a small JPEG
    thumbnail_scale: float  # its pixels per full-resolution pixel
    spot_diameter: float  # full-resolution pixels
    n_padded: int
    margins: np.ndarray | None  # (n_spots, 4) int64: pixels of a patch left, above, right, below the image; None: none
    notes: tuple[str, ...]
    key: str
    window_px: float | None = (
        None  # full-resolution pixels that a side of its windows covers; None: as many as a patch's
    )

    @property
    def n_spots(self) -> int:
        return len(self.counts)

    @property
    def window_side(self) -> float:
        """Full-resolution pixels that a side of its windows covers, resampled or not."""
        return float(self.patches.shape[1]) if self.window_px is None else self.window_px

    def on_genes(self, genes: tuple[str, ...], target: Target) -> PreparedSlide:
        """The same slide with some of its genes, in their order; its target is computed of these alone."""
        place = {gene: number for number, gene in enumerate(self.genes)}
        counts = np.ascontiguousarray(self.counts[:, [place[gene] for gene in genes]])
        values = target(counts, self.total_counts, self.n_measured)
        for array in (counts, values):
            array.flags.writeable = False
        return replace(self, genes=genes, counts=counts, target=values)

    def for_training(self) -> TrainingSlide:
        slide = TrainingSlide(
            *self._image_side(),
            margins=self.margins,
            genes=self.genes,
            target=self.target,
            counts=self.counts,
            total_counts=self.total_counts,
        )
        return with_content(slide, self.patches_digest)

    def for_test(self, oracle: bool = False) -> TestSlide:
        """What a method may see when it predicts; an oracle control also sees the spots' total counts."""
        if oracle:
            seen = OracleSlide(*self._image_side(), margins=self.margins, total_counts=self.total_counts)
            return with_content(seen, self.patches_digest)
        return with_content(TestSlide(*self._image_side(), margins=self.margins), self.patches_digest)

    def for_leak(self, place: int) -> LeakedSlide:
        """For a method that declares a leak: what is to be predicted, and how many training slides stand before."""
        slide = LeakedSlide(*self._image_side(), margins=self.margins, truth=self.for_training(), place=place)
        return with_content(slide, self.patches_digest)

    def _image_side(self) -> tuple[str, str, np.ndarray, np.ndarray, np.ndarray, float | None]:
        require_whole(self.patches)
        return self.id, self.patient, self.patches, self.array_xy, self.pixel_xy, self.um_per_px

    def facts(self) -> dict[str, Any]:
        """What reports print about the slide (JSON-able)."""
        return {
            "patient": self.patient,
            "n_spots": self.n_spots,
            "n_padded": self.n_padded,
            "image_level": self.image_level,
            "um_per_px": self.um_per_px,
            "window_px": self.window_px,
            "notes": list(self.notes),
            "key": self.key,
        }


@dataclass(frozen=True)
class PreparedDataset:
    """The slides of one dataset on one target, in fold order."""

    name: str
    title: str
    target: Target
    genes: tuple[str, ...]
    patch_px: int  # side of a patch
    slides: Mapping[str, PreparedSlide]
    expected: tuple[str, ...]
    missing: tuple[Missing, ...]
    notices: tuple[str, ...] = ()
    panel_source: str = ""  # how the panel was chosen, in words; empty: the dataset does not declare it
    patch_um: float | None = None  # side of the windows, which were resampled to patches; None: they have patch_px px
    panel_saw_test: bool | None = None  # whether expression of slices that are tested was looked at; None: not declared
    transfer: Transfer | None = None  # of two datasets, one trained on and one tested; None: it is one dataset

    @cached_property
    def patients(self) -> dict[str, str]:
        """Slice to patient, in fold order."""
        return {name: slide.patient for name, slide in self.slides.items()}

    def on_genes(self, genes: tuple[str, ...]) -> PreparedDataset:
        """The same slides with some of their genes, in their order."""
        if genes == self.genes:
            return self
        slides = {name: slide.on_genes(genes, self.target) for name, slide in self.slides.items()}
        return replace(self, genes=genes, slides=slides)

    def coverage(self) -> str:
        """``6/32``: how many of the dataset's slices these are."""
        return f"{len(self.slides)}/{len(self.expected)}"
