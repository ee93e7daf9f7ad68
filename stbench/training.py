"""The one training loop of all torch methods: device, precision, seeds, history, checkpoints and exact resuming.

Within an epoch nothing waits for the device: batches are indexed on it, losses are summed on it, and it is asked for
them once, at the epoch's end.
"""

from __future__ import annotations

import contextlib
import math
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .batches import TrainingData
from .errors import Interrupted, UserError, unknown
from .files import replacing
from .method import Run
from .patch_bank import Group
from .precision import autocast

if TYPE_CHECKING:
    from .torch_method import TorchMethod

# A checkpoint is written at an epoch's end after at least this many seconds, within an epoch after at least the second
# number, and never so often that writing takes more than the given share of the time.
EPOCH_CHECKPOINT_S = 5.0
STEP_CHECKPOINT_S = 60.0
CHECKPOINT_SHARE = 0.02
PROGRESS_S = 0.2
# of a checkpoint
PARTS = frozenset(("network", "optimiser", "scheduler", "generator", "generator_cpu", "generator_cuda"))
PARTS |= {"epoch", "step", "seconds", "sums", "best_loss", "best_weights", "history"}


def resolve_device(name: str) -> str:
    """A torch device string from ``auto`` (a GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise unknown("device", name, ["auto", "cpu", "cuda", "cuda:0"]) from error
    if device.type not in ("cpu", "cuda"):
        raise UserError(
            f"device '{name}' is not supported: exact resuming is tested on cpu and cuda - use --device cpu or cuda"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"device '{name}' was asked for, and torch {torch.__version__} finds no CUDA GPU - use --device cpu or auto"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device '{name}' was asked for, and this machine has {torch.cuda.device_count()} GPU(s), counted from 0"
        )
    if device.type == "cuda" and device.index is None:
        return f"cuda:{torch.cuda.current_device()}"
    return str(device)


@contextlib.contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """Torch's global generators start from ``seed`` inside, and are as they were outside."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@dataclass
class TrainingState:
    """All that the rest of a training depends on. What :meth:`to_dict` holds is a checkpoint."""

    network: nn.Module
    optimiser: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler | None
    generator: torch.Generator  # of the augmentation, on the device
    epoch: int = 1  # the running one
    step: int = 0  # optimiser steps done in it
    seconds: float = 0.0  # spent in it
    sums: dict[str, Tensor] = field(default_factory=dict)  # of the losses of its batches
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "generator": self.generator.get_state(),
            "generator_cpu": torch.get_rng_state(),
            "generator_cuda": self._cuda_generator(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "sums": self.sums,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "history": self.history,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        self.generator.set_state(saved["generator"])
        torch.set_rng_state(saved["generator_cpu"])
        if self.generator.device.type == "cuda":
            torch.cuda.set_rng_state(saved["generator_cuda"], self.generator.device)
        device = self.generator.device
        self.epoch, self.step, self.seconds = saved["epoch"], saved["step"], saved["seconds"]
        self.sums = {name: value.to(device) for name, value in saved["sums"].items()}
        self.best_loss = saved["best_loss"]
        if saved["best_weights"] is not None:
            self.best_weights = {name: value.to(device) for name, value in saved["best_weights"].items()}
        self.history = saved["history"]

    def _cuda_generator(self) -> Tensor | None:
        return torch.cuda.get_rng_state(self.generator.device) if self.generator.device.type == "cuda" else None


class Checkpoints:
    """The checkpoint file of one training. ``identity`` is a digest of all that determines the training's outcome."""

    def __init__(self, run: Run, identity: str) -> None:
        self.path: Path | None = None
        if run.checkpoint_directory is not None:
            self.path = Path(run.checkpoint_directory) / "training.pt"
        self.identity = identity
        self.run = run
        self.written = time.monotonic()
        self.cost = 0.0  # seconds that the last one took

    def due(self, seconds: float) -> bool:
        """Whether so much time has passed that another is worth its cost. Writing one changes no number."""
        waited = time.monotonic() - self.written
        return self.path is not None and waited >= max(seconds, self.cost / CHECKPOINT_SHARE)

    def write(self, state: TrainingState) -> None:
        if self.path is None:
            return
        start = time.monotonic()
        # torch given a path hides the system's error; given a file it raises its own from it
        with replacing(self.path) as temporary, open(temporary, "wb") as file:
            torch.save({"identity": self.identity, **state.to_dict()}, file)
        self.written = time.monotonic()
        self.cost = self.written - start

    def read(self) -> dict[str, Any] | None:
        """The saved state; ``None``, and a note in the run, where it is damaged or belongs to another training."""
        if self.path is None or not self.path.exists():
            return None
        try:
            with zipfile.ZipFile(self.path) as archive:  # torch.load does not compare the checksums, zipfile does
                damaged = archive.testzip()
            if damaged is not None:
                raise ValueError(f"the checksum of {damaged} is wrong")
            saved: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)
            identity = saved["identity"]
            absent = [] if identity != self.identity else PARTS.difference(saved)
            if absent:
                raise ValueError(f"it has no {', '.join(sorted(absent))}")
        except Exception as error:  # noqa: BLE001 - whatever a damaged archive raises, training starts again and says so
            self.run.note(
                f"the checkpoint could not be read ({type(error).__name__}: {error}); training started from the start"
            )
            return None
        if identity != self.identity:
            self.run.note(
                "the checkpoint was of other settings, data or library versions; training started from the start"
            )
            return None
        return saved


def train(
    method: TorchMethod, network: nn.Module, data: TrainingData, run: Run, identity: str
) -> list[dict[str, float]]:
    """Train ``network``, on ``data.device``, by the method's loss and optimiser; it is left in eval mode.

    The returned history has a row an epoch: ``epoch``, the mean over batches of what the loss returns,
    ``validation_...`` likewise, and ``seconds``. ``run.log`` is told each as it comes; not again on resuming.
    With the same seed, data and number of threads an interrupted training ends with the same weights as an
    uninterrupted one, bit for bit on a CPU.

    Raises ``Interrupted`` when ``run.check_interrupt()`` says so, once a checkpoint is written; ``UserError`` when the
    loss is not finite.
    """
    device, epochs = data.device, method.epochs
    torch.manual_seed(run.derive_seed(method.name, "training"))
    optimiser, scheduler = method.optimiser(network, device)
    generator = torch.Generator(device=device).manual_seed(run.derive_seed(method.name, "augmentation"))
    state = TrainingState(network, optimiser, scheduler, generator)
    checkpoints = Checkpoints(run, identity)
    saved = checkpoints.read()
    if saved is not None:
        state.restore(saved)
        del saved

    validation = _validation_groups(method, data)
    while state.epoch <= epochs:
        groups = _training_groups(method, data, run, state.epoch)
        _train_epoch(method, state, groups, data, run, checkpoints)
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
        elif checkpoints.due(EPOCH_CHECKPOINT_S):
            checkpoints.write(state)
    if state.best_weights is not None:
        network.load_state_dict(state.best_weights)
    network.eval()
    return state.history


def _train_epoch(
    method: TorchMethod,
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
    for i, batch in enumerate(data.batches(groups[first:], state.generator, state.epoch), start=first):
        in_step = min(size, len(groups) - i // size * size)  # an epoch's last step may have fewer batches
        with autocast(data.device, run.precision):
            losses = method.loss(state.network, batch)
        (losses["loss"] / in_step).backward()
        for name, value in losses.items():
            detached = value.detach().double()
            state.sums[name] = state.sums[name] + detached if name in state.sums else detached
        if (i + 1) % size and i + 1 < len(groups):
            continue
        state.optimiser.step()
        state.optimiser.zero_grad(set_to_none=True)
        state.step += 1
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
        if checkpoints.due(STEP_CHECKPOINT_S):
            checkpoints.write(state)


def _interrupted(
    method: TorchMethod, where: str, state: TrainingState, run: Run, checkpoints: Checkpoints
) -> Interrupted:
    """Save, and the exception to raise."""
    checkpoints.write(state)
    kept = (
        "the same command goes on from there" if checkpoints.path else "nothing was saved: no checkpoint folder is set"
    )
    return run.interrupted(f"{method.name} was interrupted {where}; {kept}")


def _validate(
    method: TorchMethod, network: nn.Module, groups: Sequence[Group], data: TrainingData, run: Run
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


def _training_groups(method: TorchMethod, data: TrainingData, run: Run, epoch: int) -> list[Group]:
    """An epoch's batches, in an order that depends on the seed and the epoch alone."""
    generator = run.torch_generator(method.name, "order", epoch if method.reshuffle else 1)
    if method.batching == "slides":
        slides = _slides_of(data, data.training_spots)
        return [slides[i] for i in torch.randperm(len(slides), generator=generator)]
    order = torch.randperm(len(data.training_spots), generator=generator)
    return batches_of_spots(data.training_spots[order], method)


def _validation_groups(method: TorchMethod, data: TrainingData) -> list[Group]:
    if data.validation_spots is None:
        return []
    if method.batching == "slides":
        return _slides_of(data, data.validation_spots)
    return batches_of_spots(data.validation_spots, method)


def _slides_of(data: TrainingData, spots: Tensor) -> list[Group]:
    """The slides whose first spot is among ``spots``."""
    chosen = torch.isin(torch.tensor(data.offsets[:-1]), spots).tolist()
    return [slide for slide, is_chosen in zip(data.whole_slides(), chosen, strict=True) if is_chosen]


def batches_of_spots(spots: Tensor, method: TorchMethod) -> list[Group]:
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
