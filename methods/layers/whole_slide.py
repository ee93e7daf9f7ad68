"""What the methods that take a whole slide at once share: settings, pixels, array positions."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from stbench.errors import UserError
from stbench.method import Run, TestSlide, TrainingSlide
from stbench.system.precision import float32, no_autocast
from stbench.torch_method import Batch, TorchConfig, TorchMethod
from stbench.training.augment import flip_and_quarter_turn, standardise
from stbench.training.batches import TestBatch, TrainingData
from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD
from stbench.training.windows import AnySlide, central_windows

from .checkpointing import ActivationCheckpointing, Parts, checkpoint_activations, wants_checkpointing
from .pixels import on_device

log = logging.getLogger("stbench")

UNTRAINED_SHARE = 0.05  # of a slide's spots at array positions that training did not see, above which it is said
KEPT_PIXELS = 512 * 2**20  # bytes of training slides' pixels that a CPU does not make anew in every epoch
PREDICTED_AT_ONCE = 256  # patches that are embedded together at prediction; their number changes no value


class WholeSlideConfig(TorchConfig):
    """Settings of HisToGene, Hist2ST and THItoGene; the first value named is what their published code does."""

    patch_px: int = Field(112, ge=2, description="side of the window around a spot, in full-resolution pixels")
    patch_um: float | None = Field(
        None,
        gt=0,
        description="side of the window in micrometres, where patch_px is its upper bound; none as published: sections "
        "of different resolution then show different areas",
    )
    pixel_scale: Literal["raw255", "unit", "imagenet"] = Field(
        "raw255",
        description="pixels as the network takes them: 0..255 as published, 0..1, or ImageNet's standardisation. "
        "It sets how much image and position weigh against each other at the start of training",
    )
    n_pos: int = Field(
        64, ge=1, description="rows of the tables of array positions; more where a training slide needs them"
    )
    position_std: float = Field(
        1.0,
        ge=0,
        description="initial standard deviation of the tables of array positions; 1 as published, where positions "
        "outweigh THItoGene's capsules a hundredfold at the start",
    )
    positions: Literal["learnt", "none"] = Field(
        "learnt", description="learnt tables of array positions as published, or none: their rows are and stay zero"
    )
    augment: Literal["none", "d4"] = Field(
        "none", description="none as published, or a random flip and quarter turn of every patch"
    )
    start_at_mean: bool = Field(
        False,
        description="set the gene head's initial bias to each gene's mean over the training spots, which saves many "
        "epochs; random as published",
    )
    activation_checkpointing: ActivationCheckpointing = Field(
        "auto",
        description="compute activations again in the backward pass, with the same numbers, rather than keep them: on, "
        "off, or auto: where a step on the largest slide would not fit into the device's memory otherwise",
    )
    validation_slides: int = Field(
        0,
        ge=0,
        description="training slides held out, whose loss chooses the epoch; 0 as published: the last epoch is kept",
    )


class WholeSlideNetwork(Parts):
    """What such networks have in common: tables of array positions, and a head that ends in a linear layer to genes."""

    x_embedding: nn.Embedding
    y_embedding: nn.Embedding
    blocks: nn.Sequential
    head: nn.Sequential

    def attended(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens ``(..., n_spots, width)`` after the Transformer's blocks, each a part of its own."""
        for block in self.blocks:
            tokens = self.part(block, tokens)
        return tokens

    def genes(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states ``(..., n_spots, width)`` -> ``(..., n_spots, n_genes)``: the head, in float32 under every
        precision, as spots may differ by less than bf16 resolves about the genes' means.
        """
        with no_autocast(hidden.device):
            return self.head(float32(hidden))


class WholeSlideMethod(TorchMethod):
    """A method whose training step is a whole slide and whose network knows spots by their array position."""

    batching: ClassVar[Literal["slides"]] = "slides"
    execution_fields: ClassVar[frozenset[str]] = frozenset({"activation_checkpointing"})

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._kept_pixels: dict[int, torch.Tensor] | None = None  # of training slides, by their index, while it is fit

    @abstractmethod
    def build(self, shape: Mapping[str, Any]) -> WholeSlideNetwork:
        """:meth:`network`, whose activations are kept."""

    def network(self, shape: Mapping[str, Any]) -> nn.Module:
        network = self.build(shape)
        checkpoint_activations(network, self.config.activation_checkpointing == "on")
        return network

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        cut = [self._field_of_view(slide) for slide in slides]
        if self.cuts_windows:
            self._note_windows(slides, cut, run)
        self._kept_pixels = {}
        try:
            super().fit(cut, run)
        finally:
            self._kept_pixels = None

    def predict(self, slide: TestSlide) -> np.ndarray:
        return super().predict(self._field_of_view(slide))

    @property
    def cuts_windows(self) -> bool:
        return self.config.patch_um is not None

    def _note_windows(self, slides: Sequence[TrainingSlide], cut: Sequence[TrainingSlide], run: Run) -> None:
        """How many of the dataset's pixels are used: it depends on each slide's resolution."""
        used, whole = ({slide.patches.shape[1] for slide in given} for given in (cut, slides))
        run.note(
            f"{self.name}.patch_um = {self.config.patch_um:g}: the central {_range(used)} px of the dataset's windows "
            f"of {_range(whole)} px are used, resized to {self.input_px} px"
        )

    def _field_of_view(self, slide: AnySlide) -> AnySlide:
        """The slide with windows of ``patch_um`` micrometres, to the next even number of pixels."""
        if self.config.patch_um is None:
            return slide
        if slide.um_per_px is None:
            raise UserError(
                f"slide {slide.id} has no known resolution - leave {self.name}.patch_um out, or give um_per_px"
            )
        side = 2 * round(self.config.patch_um / slide.um_per_px / 2)
        window = slide.patches.shape[1]
        if side > min(window, self.config.patch_px):
            raise UserError(
                f"{self.name}.patch_um = {self.config.patch_um:g} is {side} px on slide {slide.id}, more than"
                f" patch_px = {self.config.patch_px} or its windows of {window} px - lower it, or raise patch_px"
            )
        return central_windows(slide, side)

    def describe(self, data: TrainingData) -> dict[str, Any]:
        largest = max((int(slide.array_xy.max()) for slide in data.slides if slide.n_spots), default=0)
        xy = np.concatenate([slide.array_xy for slide in data.slides])[data.training_spots.cpu().numpy()]
        return {
            "n_genes": data.n_genes,
            "n_positions": max(self.config.n_pos, largest + 1),
            "trained_positions": [sorted({int(at) for at in axis}) for axis in xy.T],  # of x, of y
        }

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        rows = self.shape["n_positions"]
        if rows > self.config.n_pos:
            run.note(f"array positions reach {rows - 1}: the position tables have {rows} rows, not {self.config.n_pos}")
        assert isinstance(network, WholeSlideNetwork)
        on = wants_checkpointing(self, data, run)
        checkpoint_activations(network, on)
        self.execution["activation_checkpointing"] = "on" if on else "off"
        with torch.no_grad():
            for table in (network.x_embedding, network.y_embedding):
                table.weight.mul_(self.config.position_std if self.config.positions == "learnt" else 0)
                table.requires_grad_(self.config.positions == "learnt")
            if self.config.start_at_mean:
                network.head[-1].get_parameter("bias").copy_(data.training_mean(data.target))

    def positions(self, slide: TestSlide) -> torch.Tensor:
        """(n_spots, 2) int64: rows of the position tables. A test slide may reach beyond every training slide and the
        tables: such spots take the last row, which is logged, as it is where many rows were never trained.
        """
        xy = np.asarray(slide.array_xy)
        if len(xy) and xy.min() < 0:
            raise UserError(
                f"slide {slide.id} has the array position {xy.min()} - {self.name} needs positions from 0 on:"
                " renumber them"
            )
        last = self.shape["n_positions"] - 1
        if self.config.positions == "learnt" and not isinstance(slide, TrainingSlide):
            self._warn_of_untrained(slide, xy, last)
        return torch.from_numpy(np.minimum(xy, last).astype(np.int64))

    def _warn_of_untrained(self, slide: TestSlide, xy: np.ndarray, last: int) -> None:
        """Random values stand in rows of the tables that no training spot took."""
        beyond = int((xy > last).any(axis=1).sum())
        if beyond:
            log.warning(
                "%s: %d of %d spots of slide %s lie beyond array position %d, the position tables' last: they take its"
                " row; raise n_pos",
                *(self.name, beyond, slide.n_spots, slide.id, last),
            )
        trained = self.shape.get("trained_positions")  # a model that an older version saved does not tell
        if trained is None or not len(xy):
            return
        rows = np.minimum(xy, last)
        known = [np.isin(rows[:, axis], positions) for axis, positions in enumerate(trained)]
        untrained = int((~known[0] | ~known[1]).sum())
        if untrained > UNTRAINED_SHARE * slide.n_spots:
            spans = " and ".join(
                f"{axis} {positions[0]} to {positions[-1]}" for axis, positions in zip("xy", trained, strict=True)
            )
            log.warning(
                "%s: %d of %d spots of slide %s are at array positions that no training spot had (those are %s): what"
                " the position adds to their prediction was never trained",
                *(self.name, untrained, slide.n_spots, slide.id, spans),
            )

    def slide_constants(self, slide: TestSlide) -> dict[str, torch.Tensor]:
        return {"positions": self.positions(slide)}

    def validation_spots(self, data: TrainingData, run: Run) -> torch.Tensor | None:
        """The spots of the held-out training slides, drawn by the run's seed; ``None`` where there are none."""
        wanted = self.config.validation_slides
        if wanted == 0:
            return None
        if wanted >= data.n_slides:
            raise UserError(
                f"{self.name}.validation_slides = {wanted} leaves none of {data.n_slides} training slides to learn from"
                " - lower it"
            )
        drawn = run.numpy_generator(self.name, "validation").permutation(data.n_slides)[:wanted]
        run.note(f"validation slides, held out of training: {', '.join(data.slides[i].id for i in sorted(drawn))}")
        return torch.cat([torch.arange(data.offsets[i], data.offsets[i + 1]) for i in sorted(drawn)])

    def pixels(self, patches: torch.Tensor) -> torch.Tensor:
        """``(n, 3, rows, columns)`` uint8 -> float32 on the configured scale, **columns before rows** as published."""
        turned = patches.transpose(-1, -2).to(torch.float32, memory_format=torch.channels_last)
        if self.config.pixel_scale == "raw255":
            return turned
        if self.config.pixel_scale == "unit":
            return turned.div_(255)
        return standardise(turned.div_(255), *on_device((IMAGENET_MEAN, IMAGENET_STD), turned.device))

    def training_pixels(self, network: nn.Module, batch: Batch) -> torch.Tensor:
        """The batch's pixels; augmented if configured, while the network is in training mode. Not to be written to."""
        if self.config.augment == "d4" and network.training:
            return self.pixels(flip_and_quarter_turn(batch.patches, batch.generator))
        kept = self._kept_pixels
        if kept is None or batch.device.type != "cpu":  # a GPU makes them at once, and has other use for its memory
            return self.pixels(batch.patches)
        slide = int(batch.slide[0])
        if slide in kept:
            return kept[slide]
        pixels = self.pixels(batch.patches)
        if pixels.nbytes + sum(other.nbytes for other in kept.values()) <= KEPT_PIXELS:
            kept[slide] = pixels
        return pixels

    def in_parts(self, embed: Callable[[torch.Tensor], torch.Tensor], batch: TestBatch) -> torch.Tensor:
        """``embed`` of a test slide's pixels, a bounded number of patches at a time."""
        return torch.cat([embed(self.pixels(part)) for part in batch.patches.split(PREDICTED_AT_ONCE)])

    def optimiser(
        self, network: nn.Module, device: torch.device
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        return torch.optim.Adam(network.parameters(), lr=self.config.lr, fused=True), None


def _range(sizes: set[int]) -> str:
    """``84``, ``84 to 90``"""
    low, high = min(sizes), max(sizes)
    return f"{low}" if low == high else f"{low} to {high}"
