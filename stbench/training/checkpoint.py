"""The state of a training, and the file that it goes on from."""

from __future__ import annotations

import math
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..method import Run
from ..system.files import replacing
from .compiling import Steps
from .device import generator_states, restore_generators

# A checkpoint is written at an epoch's end after at least this many seconds, within an epoch after at least the second
# number, and never so often that writing takes more than the given share of the time.
EPOCH_CHECKPOINT_S = 5.0
STEP_CHECKPOINT_S = 60.0
CHECKPOINT_SHARE = 0.02

# of a checkpoint
PARTS = frozenset(("network", "optimiser", "scheduler", "generator", "generator_cpu", "generator_cuda"))
PARTS |= {"epoch", "step", "seconds", "sums", "best_loss", "best_weights", "history", "compiling"}


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
    compiling: Steps = field(default_factory=Steps)  # how its steps are computed

    def to_dict(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            **generator_states(self.generator),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "sums": self.sums,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
            "history": self.history,
            "compiling": self.compiling.to_dict(),
        }

    def restore(self, saved: dict[str, Any]) -> None:
        self.network.load_state_dict(saved["network"])
        self.optimiser.load_state_dict(saved["optimiser"])
        if self.scheduler is not None:
            self.scheduler.load_state_dict(saved["scheduler"])
        restore_generators(self.generator, saved)
        device = self.generator.device
        self.epoch, self.step, self.seconds = saved["epoch"], saved["step"], saved["seconds"]
        self.sums = {name: value.to(device) for name, value in saved["sums"].items()}
        self.best_loss = saved["best_loss"]
        if saved["best_weights"] is not None:
            self.best_weights = {name: value.to(device) for name, value in saved["best_weights"].items()}
        self.history = saved["history"]
        self.compiling.restore(saved["compiling"])


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
