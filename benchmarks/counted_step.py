"""One training step of a published method, counted: as the harness runs it, and as plain PyTorch does."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from counting import Count, Operation
from plain_step import Opened, configured, plain_loss, ready_images

from stbench.method import Run
from stbench.training.as_on_gpu import META, as_on_gpu
from stbench.training.batches import TrainingData
from stbench.training.checkpoint import Checkpoints, TrainingState
from stbench.training.loop import train_epoch
from stbench.training.patch_bank import Group, PatchBank
from stbench.training.step_memory import shapes_of_a_slide

WINDOW = 224  # side of a dataset's windows, in pixels


@dataclass(frozen=True)
class Step:
    """What is counted: a method under a preset, on a batch (of whole-slide methods, a slide) of so many spots."""

    method: str
    preset: str
    n_spots: int
    n_genes: int
    checkpointing: bool = False  # whether activations are computed again in the backward pass

    def __str__(self) -> str:
        names = (self.method, self.preset, self.n_spots, self.n_genes)
        return "/".join(map(str, names)) + ("/checkpointing" if self.checkpointing else "")


@dataclass(frozen=True)
class Counts:
    """Of one step of the optimiser: for BLEEP four batches."""

    operations: Counter[Operation]
    peak_bytes: int  # weights, gradients, the optimiser's state and all that a step makes; patches of two steps
    spots: int  # that are learnt from

    @property
    def n(self) -> int:
        return self.operations.total()

    @property
    def flops(self) -> int:
        return sum(operation.flops * times for operation, times in self.operations.items())

    @property
    def n_bytes(self) -> int:
        return sum(operation.n_bytes * times for operation, times in self.operations.items())


def harness(step: Step) -> Counts:
    """The step in the harness's own loop: patches looked up, augmentation, objective, backward, sums, optimiser."""
    return _counted(step, _harness_steps)


def bare(step: Step) -> Counts:
    """The same network, objective and optimiser and nothing else, images ready on the device."""
    return _counted(step, _bare_steps)


Steps = Callable[[int], None]


def _counted(step: Step, prepare: Callable[[Opened], Steps]) -> Counts:
    """The second step of an epoch: the first makes the optimiser's state."""
    found: list[Counter[Operation]] = []
    with as_on_gpu(), Count() as count:
        start = _opened(step)
        count.peak_bytes = count.live_bytes  # of the steps: reading patches took more than that for a while

        def stepped(*_: object) -> None:
            found.append(count.operations)
            count.operations = Counter()

        start.optimiser.register_step_post_hook(stepped)
        prepare(start)(2)
    return Counts(found[1], count.peak_bytes, step.n_spots * start.method.accumulate)


def _opened(step: Step) -> Opened:
    """Without its starting values, which do not change what a step costs."""
    checkpointing = "on" if step.checkpointing else "off"
    method = configured(
        step.method, step.preset, {"batch_size": step.n_spots, "activation_checkpointing": checkpointing}
    )
    slides = [shapes_of_a_slide(step.n_spots, step.n_genes, WINDOW, i) for i in range(2 * method.accumulate)]
    sides = method.config.patch_px, method.input_px
    method.shape = method.describe(TrainingData(slides, PatchBank(slides, *sides, resident=False)))
    data = TrainingData(slides, PatchBank(slides, *sides, META, resident=True))
    with META:
        network = method.network(method.shape)
    network.to(memory_format=torch.channels_last).train()
    if method.batching == "slides":
        groups: list[Group] = list(data.whole_slides())
        data.constants = tuple(
            {name: value.to(META) for name, value in method.slide_constants(slide).items()} for slide in slides
        )
    else:
        groups = list(torch.arange(data.n_spots).split(step.n_spots))
    optimiser, _ = method.optimiser(network, META)
    return Opened(method, network, data, optimiser, groups)


def _harness_steps(start: Opened) -> Steps:
    run = Run()
    generator = torch.Generator()  # of the CPU: there is none of this device, and no value is drawn

    def steps(n: int) -> None:
        state = TrainingState(start.network, start.optimiser, None, generator)
        groups = start.groups[: n * start.method.accumulate]
        train_epoch(start.method, state, groups, start.data, run, Checkpoints(run, ""))

    return steps


def _bare_steps(start: Opened) -> Steps:
    copies = getattr(start.method.config, "copies", 0)
    ready = []
    for batch in start.data.batches(start.groups[:1], torch.Generator()):
        images = ready_images(start.method, batch)
        ready.append(([images, *(images.clone() for _ in range(copies))], batch))

    endless = itertools.cycle(ready)

    def steps(n: int) -> None:
        for _ in range(n):
            for views, batch in (next(endless) for _ in range(start.method.accumulate)):
                loss = plain_loss(start.method, start.network, views, batch)
                (loss / start.method.accumulate).backward()
            start.optimiser.step()
            start.optimiser.zero_grad(set_to_none=True)

    return steps
