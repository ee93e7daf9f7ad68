"""What a trial has to do, and what that asks of a core or a GPU: counted where its method was, else from a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..system.sharing import CUDA_SHARE
from ..system.sharing import USABLE as STEP_SHARE
from .cards import Card
from .cost_table import Rate
from .counted import Counted, spot_bytes

# a prediction is a forward pass, a third of a training step; all are made twice, once with exchanged patches
PREDICTION = 2 / 3
CONTEXT = 600 * 2**20  # bytes of a GPU that CUDA and its libraries take, beside what tensors do; not measured
USABLE = STEP_SHARE["cuda"]  # above it a whole slide's activations are not kept, where that is left to the trial
RESIDENT = CUDA_SHARE  # above it patches come batch by batch


class Work(NamedTuple):
    """Of a trial."""

    train: tuple[int, ...]  # spots of the slides that it trains on
    test: tuple[int, ...]
    n_genes: int
    epochs: int
    batch_size: int | None = None  # of its settings; None where they have none
    checkpointing: str | None = None  # of its settings: on, off, or auto, where the device is too small without

    @property
    def spots(self) -> int:
        """That it trains on."""
        return sum(self.train)

    @property
    def test_spots(self) -> int:
        return sum(self.test)

    @property
    def values(self) -> int:
        """Predicted."""
        return self.test_spots * self.n_genes


@dataclass(frozen=True)
class Effort:
    """What a method asks under one preset, in one precision.

    Parameters
    ----------
    row : Rate
        Of the table.
    counted : Counted or None
        Its counted steps, where there are any.
    card : Card
        The GPU that these are modelled for.
    checkpointed : Counted or None
        The same, with activations computed again in the backward pass.
    tf32_products : bool
        Whether matrix products are in TF32. Those in bf16 are modelled so too.
    """

    row: Rate
    counted: Counted | None
    card: Card
    checkpointed: Counted | None = None
    tf32_products: bool = False

    def fit_s(self, work: Work, on_gpu: bool) -> float:
        """Seconds of training, of one core or a GPU."""
        return work.epochs * self._pass_s(work.train, work, on_gpu)

    def predict_s(self, work: Work, on_gpu: bool) -> float:
        return PREDICTION * self._pass_s(work.test, work, on_gpu)

    def gpu_bytes(self, work: Work) -> int:
        """Memory of a GPU at its peak: a step on the largest slide or batch, resident data, and CUDA's own."""
        steps = self.steps(work)
        if steps is None:
            return int(self.row.gpu_memory_mib * 2**20)
        return self._step_bytes(steps, work) + self._resident(steps, work) + CONTEXT

    def steps(self, work: Work) -> Counted | None:
        """Those that the trial will take, with activations kept or computed again."""
        if self.counted is None or self.checkpointed is None or work.checkpointing not in ("on", "auto"):
            return self.counted
        free = self.card.memory - CONTEXT - self._resident(self.counted, work)
        fits = self._step_bytes(self.counted, work) <= USABLE * free
        return self.counted if fits and work.checkpointing == "auto" else self.checkpointed

    def _step_bytes(self, steps: Counted, work: Work) -> int:
        return steps.peak_bytes(_largest(steps, work), work.n_genes)

    def _resident(self, steps: Counted, work: Work) -> int:
        """What is learnt from: of the last fold too, as what was read stays for the next trial."""
        data = spot_bytes(steps.input_px, work.n_genes)
        resident = data * (work.spots + work.test_spots)
        if resident <= RESIDENT * (self.card.memory - CONTEXT):
            return resident
        return 2 * data * _largest(steps, work)  # a batch is read while another is learnt from

    def _pass_s(self, slides: tuple[int, ...], work: Work, on_gpu: bool) -> float:
        """Of training steps on all spots of ``slides``, once."""
        if not on_gpu:
            return sum(slides) * self.row.core_s
        steps = self.steps(work)
        if steps is None:
            return sum(slides) * self.row.gpu_s

        def seconds(n_spots: int) -> float:
            """Of one batch or slide."""
            return steps.step_s(self.card, n_spots, work.n_genes, self.tf32_products) / steps.accumulate

        if steps.batching == "slides":
            return sum(seconds(n_spots) for n_spots in slides if n_spots)
        full, rest = divmod(sum(slides), _batch(steps, work))
        return full * seconds(_batch(steps, work)) + (seconds(rest) if rest else 0.0)


def _batch(steps: Counted, work: Work) -> int:
    return work.batch_size or steps.typical_spots


def _largest(steps: Counted, work: Work) -> int:
    """Spots of a step that holds most."""
    slides = work.train or work.test
    return max(slides) if steps.batching == "slides" else min(_batch(steps, work), sum(slides))
