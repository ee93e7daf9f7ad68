"""The one training loop of all torch methods, with its history, and exact resuming.

Within an epoch nothing waits for the device: batches are indexed on it, losses are summed on it, and it is asked for
them once, at the epoch's end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from ..errors import Interrupted, UserError
from ..method import Run
from ..system.precision import autocast
from . import checkpoint
from .batches import Batch, TrainingData
from .checkpoint import Checkpoints, TrainingState
from .compiling import Losses, Place, Steps
from .patch_bank import Group

PROGRESS_S = 0.2


class Trainable(Protocol):
    """What the loop asks of a method; :class:`.hooks.TorchHooks` says what each member means."""

    name: ClassVar[str]
    batching: ClassVar[Literal["spots", "slides"]]

    @property
    def epochs(self) -> int: ...

    @property
    def batch_size(self) -> int: ...

    @property
    def drop_last(self) -> bool: ...

    @property
    def accumulate(self) -> int: ...

    @property
    def reshuffle(self) -> bool: ...

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]: ...

    def optimiser(
        self, network: nn.Module, device: torch.device
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]: ...


def train(
    method: Trainable, network: nn.Module, data: TrainingData, run: Run, identity: str, compiling: Steps
) -> list[dict[str, float]]:
    """Train ``network``, on ``data.device``, by the method's loss and optimiser; it is left in eval mode.

    The returned history has one row per epoch: ``epoch``, the mean over batches of what the loss returns,
    ``validation_...`` likewise, and ``seconds``. ``run.log`` is told each as it comes; not again on resuming.
    With the same seed, data and number of threads an interrupted training ends with the same weights as an
    uninterrupted one, bit for bit on a CPU where ``compiling`` compiles nothing.

    Raises ``Interrupted`` when ``run.check_interrupt()`` says so, once a checkpoint is written; ``UserError`` when the
    loss is not finite.
    """
    device, epochs = data.device, method.epochs
    torch.manual_seed(run.derive_seed(method.name, "training"))
    optimiser, scheduler = method.optimiser(network, device)
    generator = torch.Generator(device=device).manual_seed(run.derive_seed(method.name, "augmentation"))
    state = TrainingState(network, optimiser, scheduler, generator, compiling=compiling)
    checkpoints = Checkpoints(run, identity)
    saved = checkpoints.read()
    if saved is not None:
        state.restore(saved)
        del saved

    validation = _validation_groups(method, data)
    while state.epoch <= epochs:
        groups = _training_groups(method, data, run, state.epoch)
        train_epoch(method, state, groups, data, run, checkpoints)
        started = time.monotonic()
        row: dict[str, Any] = {"epoch": state.epoch} | _means(state.sums, len(groups))
        if validation:
            row |= _validate(method, network, validation, data, run)
            if row["validation_loss"] < state.best_loss:
                state.best_loss = row["validation_loss"]
                state.best_weights = {name: value.detach().clone() for name, value in network.state_dict().items()}
        for name in ("loss", "validation_loss"):
            if not math.isfinite(row.get(name, 0.0)):
                raise UserError(
                    f"{method.name}: the {name.replace('_', ' ')} is {row[name]} in epoch {state.epoch} -"
                    f" lower the learning rate (--set {method.name}.lr=...)"
                    f"{'' if run.precision == 'fp32' else ', or use --precision fp32'}"
                )
        row["seconds"] = state.seconds + time.monotonic() - started
        if scheduler is not None:
            scheduler.step()
        state.epoch, state.step, state.seconds, state.sums = state.epoch + 1, 0, 0.0, {}
        run.log(**row)
        state.history.append(row)
        if state.epoch > epochs:
            checkpoints.write(state)
        elif run.check_interrupt():
            raise _interrupted(method, f"after epoch {state.epoch - 1} of {epochs}", state, run, checkpoints)
        elif checkpoints.due(checkpoint.EPOCH_CHECKPOINT_S):
            checkpoints.write(state)
    if state.best_weights is not None:
        network.load_state_dict(state.best_weights)
    network.eval()
    return state.history


def train_epoch(
    method: Trainable,
    state: TrainingState,
    groups: Sequence[Group],
    data: TrainingData,
    run: Run,
    checkpoints: Checkpoints,
) -> None:
    """The rest of the running epoch: ``groups`` are all its batches, ``state.step`` optimiser steps of it are done."""
    size, epochs = method.accumulate, method.epochs
    steps = math.ceil(len(groups) / size)
    first = state.step * size
    start, told = time.monotonic() - state.seconds, 0.0
    state.network.train()
    state.compiling.between(_place(state, steps, epochs))
    for i, batch in enumerate(data.batches(groups[first:], state.generator, state.epoch), start=first):
        in_step = min(size, len(groups) - i // size * size)  # an epoch's last step may have fewer batches
        learn = partial(_gradients, method, state.network, batch, run, in_step)
        losses = state.compiling.gradients(learn, batch.n_spots, state.generator)
        in_double = torch.stack([value.detach() for value in losses.values()]).double()
        for name, value in zip(losses, in_double.unbind(), strict=True):
            state.sums[name] = state.sums[name] + value if name in state.sums else value
        if (i + 1) % size and i + 1 < len(groups):
            continue
        state.optimiser.step()
        state.optimiser.zero_grad(set_to_none=True)
        state.step += 1
        state.compiling.between(_place(state, steps, epochs))
        now = time.monotonic()
        state.seconds = now - start
        if now - told >= PROGRESS_S or state.step == steps:
            told = now
            run.progress((state.epoch - 1) * steps + state.step, epochs * steps, f"epoch {state.epoch}/{epochs}")
        if state.step == steps:
            return  # the caller saves what it makes of the epoch
        if run.check_interrupt():
            where = f"in epoch {state.epoch} of {epochs}, after step {state.step} of {steps}"
            raise _interrupted(method, where, state, run, checkpoints)
        if not state.compiling.is_timing and checkpoints.due(checkpoint.STEP_CHECKPOINT_S):
            checkpoints.write(state)


def _place(state: TrainingState, steps: int, epochs: int) -> Place:
    return Place(state.step, steps, left=(epochs - state.epoch + 1) * steps - state.step)


def _gradients(method: Trainable, network: nn.Module, batch: Batch, run: Run, in_step: int) -> Losses:
    """The losses of one of a step's ``in_step`` batches; their gradients are added to the parameters'."""
    with autocast(batch.device, run.precision):
        losses = method.loss(network, batch)
    (losses["loss"] / in_step).backward()
    return losses


def _interrupted(
    method: Trainable, where: str, state: TrainingState, run: Run, checkpoints: Checkpoints
) -> Interrupted:
    """Save, and the exception to raise."""
    checkpoints.write(state)
    kept = (
        "the same command goes on from there" if checkpoints.path else "nothing was saved: no checkpoint folder is set"
    )
    return run.interrupted(f"{method.name} was interrupted {where}; {kept}")


def _validate(
    method: Trainable, network: nn.Module, groups: Sequence[Group], data: TrainingData, run: Run
) -> dict[str, float]:
    network.eval()
    sums: dict[str, Tensor] = {}
    with torch.inference_mode():
        for batch in data.batches(groups):
            with autocast(data.device, run.precision):
                losses = method.loss(network, batch)
            for name, value in losses.items():
                sums[name] = sums[name] + value.double() if name in sums else value.double()
    return {f"validation_{name}": value for name, value in _means(sums, len(groups)).items()}


def _training_groups(method: Trainable, data: TrainingData, run: Run, epoch: int) -> list[Group]:
    """An epoch's batches, in an order that depends on the seed and the epoch alone."""
    generator = run.torch_generator(method.name, "order", epoch if method.reshuffle else 1)
    if method.batching == "slides":
        slides = _slides_of(data, data.training_spots)
        return [slides[i] for i in torch.randperm(len(slides), generator=generator)]
    order = torch.randperm(len(data.training_spots), generator=generator)
    return batches_of_spots(data.training_spots[order], method)


def _validation_groups(method: Trainable, data: TrainingData) -> list[Group]:
    if data.validation_spots is None:
        return []
    if method.batching == "slides":
        return _slides_of(data, data.validation_spots)
    return batches_of_spots(data.validation_spots, method)


def _slides_of(data: TrainingData, spots: Tensor) -> list[Group]:
    """The slides whose first spot is among ``spots``."""
    chosen = torch.isin(torch.tensor(data.offsets[:-1]), spots).tolist()
    return [slide for slide, is_chosen in zip(data.whole_slides(), chosen, strict=True) if is_chosen]


def batches_of_spots(spots: Tensor, method: Trainable) -> list[Group]:
    """``spots`` in batches, in their order. With ``drop_last`` an incomplete one is left out, unless it is alone.

    A single spot that would be left for the last batch joins the batch before: batch normalisation fails on it where
    the images are small, and a contrastive loss learns nothing from it.
    """
    batches = list(spots.split(method.batch_size))
    left_over = len(spots) % method.batch_size
    if left_over and len(batches) > 1:
        if method.drop_last:
            del batches[-1]
        elif left_over == 1:
            batches[-2:] = [torch.cat(batches[-2:])]
    return list(batches)


def _means(sums: dict[str, Tensor], n: int) -> dict[str, float]:
    values = torch.stack(list(sums.values())).tolist()  # the epoch's one wait for the device
    return {name: value / n for name, value in zip(sums, values, strict=True)}
