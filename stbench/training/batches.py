"""What a torch method is handed of its slides: the training set as tensors, and batches of it on the device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..method import TestSlide, TrainingSlide
from .patch_bank import Group, PatchBank


@dataclass(frozen=True)
class TestBatch:
    """Spots whose expression is to be predicted; B spots, every tensor on the device.

    Where the method works on whole slides the batch is the slide, in the slide's order.
    """

    __test__: ClassVar[bool] = False  # not a test case, whatever pytest thinks of the name

    patches: Tensor  # (B, 3, S, S) uint8 RGB, channels-last in memory; S = the config's input_px
    array_xy: Tensor  # (B, 2) int64: array column, array row
    pixel_xy: Tensor  # (B, 2) float32: pixel centre x, y at full resolution
    constants: Mapping[str, Tensor]  # of the slide, from the method's slide_constants; empty in batches of spots

    @property
    def n_spots(self) -> int:
        return len(self.patches)

    @property
    def device(self) -> torch.device:
        return self.patches.device


@dataclass(frozen=True)
class Batch(TestBatch):
    """Spots to learn from. The patches are not augmented yet: a method's ``loss`` does that, with ``generator``."""

    target: Tensor  # (B, G) float32
    counts: Tensor  # (B, G) int32: raw counts of the panel
    total_counts: Tensor  # (B,) int64: raw counts over all genes
    slide: Tensor  # (B,) int64: index of the training slide
    spot: Tensor  # (B,) int64: index in the concatenated training set
    generator: torch.Generator  # on the device; its state is part of a checkpoint
    epoch: int  # counted from 1; 0 outside training


class TrainingData:
    """The training slides one after the other as tensors on the device, and their patches in a :class:`PatchBank`.

    N spots of all slides, G genes. Slide i's spots are ``offsets[i]`` to ``offsets[i + 1]``.
    """

    def __init__(self, slides: Sequence[TrainingSlide], bank: PatchBank) -> None:
        self.slides: tuple[TrainingSlide, ...] = tuple(slides)
        self.genes: tuple[str, ...] = slides[0].genes
        self.bank = bank
        self.device = bank.device
        n_spots = [slide.n_spots for slide in slides]
        self.offsets: tuple[int, ...] = (0, *np.cumsum(n_spots).tolist())
        self.target = self._join([slide.target for slide in slides], torch.float32)  # (N, G)
        self.counts = self._join([slide.counts for slide in slides], torch.int32)  # (N, G)
        self.total_counts = self._join([slide.total_counts for slide in slides], torch.int64)  # (N,)
        self.array_xy = self._join([slide.array_xy for slide in slides], torch.int64)  # (N, 2)
        self.pixel_xy = self._join([slide.pixel_xy for slide in slides], torch.float32)  # (N, 2)
        self.slide = self._join([np.full(n, i) for i, n in enumerate(n_spots)], torch.int64)  # (N,)
        self.training_spots = torch.arange(self.n_spots)  # int64, CPU: those that training steps see
        self.validation_spots: Tensor | None = None  # int64, CPU: the others, where the method holds some out
        self.constants: tuple[Mapping[str, Tensor], ...] = tuple({} for _ in slides)
        self._spots = torch.arange(self.n_spots, device=self.device)
        # in one table, of which a batch's rows are taken at once
        self._numbers = torch.cat([self.array_xy, self.total_counts[:, None], self.slide[:, None]], dim=1)

    def _join(self, parts: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.concatenate(parts)).to(self.device, dtype)

    @property
    def n_spots(self) -> int:
        return self.offsets[-1]

    @property
    def n_slides(self) -> int:
        return len(self.slides)

    @property
    def n_genes(self) -> int:
        return len(self.genes)

    def hold_out(self, spots: Tensor) -> None:
        """Keep ``spots`` (int64, CPU) out of training, for validation."""
        training = self.training_spots[~torch.isin(self.training_spots, spots)]
        if not len(spots) or not len(training):
            raise UserError(f"of {self.n_spots} training spots {len(spots)} would be held out - more spots are needed")
        self.training_spots, self.validation_spots = training, spots

    def training_mean(self, values: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """(G,) means of ``values`` (N, G) over the spots that training steps see, summed in ``dtype``."""
        return values[self.training_spots.to(self.device)].mean(dim=0, dtype=dtype)

    def whole_slides(self) -> list[slice]:
        """The slides as groups for :meth:`batches`."""
        return [slice(start, stop) for start, stop in zip(self.offsets[:-1], self.offsets[1:], strict=True)]

    def batches(
        self, groups: Sequence[Group], generator: torch.Generator | None = None, epoch: int = 0
    ) -> Iterator[Batch]:
        """One :class:`Batch` per group: an int64 CPU tensor of spot indices, or the ``slice`` of one whole slide.

        No host synchronisation. Patches that are not resident on the device are read ahead by one batch.
        """
        if generator is None:
            generator = torch.Generator(device=self.device).manual_seed(0)
        slide_at = {start: constants for start, constants in zip(self.offsets, self.constants, strict=False)}
        for group, patches in self.bank.stream(groups):
            numbers = self._numbers[group]
            yield Batch(
                patches=patches,
                array_xy=numbers[:, :2],
                pixel_xy=self.pixel_xy[group],
                constants=slide_at.get(group.start, {}) if isinstance(group, slice) else {},
                target=self.target[group],
                counts=self.counts[group],
                total_counts=numbers[:, 2],
                slide=numbers[:, 3],
                spot=self._spots[group] if isinstance(group, slice) else group,
                generator=generator,
                epoch=epoch,
            )


def test_batches(
    slide: TestSlide,
    bank: PatchBank,
    batch_size: int | None,
    constants: Mapping[str, Tensor],
) -> Iterator[TestBatch]:
    """A test slide in its own order, ``batch_size`` spots at a time, or whole where that is ``None``."""
    size = batch_size or slide.n_spots
    groups: list[Group] = [slice(start, min(start + size, slide.n_spots)) for start in range(0, slide.n_spots, size)]
    array_xy = torch.from_numpy(np.array(slide.array_xy)).to(bank.device, torch.int64)
    pixel_xy = torch.from_numpy(np.array(slide.pixel_xy)).to(bank.device, torch.float32)
    for group, patches in bank.stream(groups):
        yield TestBatch(patches, array_xy[group], pixel_xy[group], constants)
