"""The base of every torch method: a network, a loss and a config become a :class:`stbench.method.Method`.

A method is written by subclassing :class:`TorchMethod`, as those in ``methods/`` are. The loop, the device, mixed
precision, batches, checkpoints and resuming are in :mod:`stbench.training`, written once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from .errors import UserError, first_problem, reason_of
from .method import Needs, Run, TestSlide, TrainingSlide
from .system.files import value_digest
from .system.precision import Precision, autocast, tf32_flags
from .system.sharing import workers_on_device
from .system.wording import amount
from .training.batches import Batch, TestBatch, TrainingData, test_batches
from .training.compile_record import CompileRecord
from .training.compiling import CompiledSteps, MeasuredSteps, Steps
from .training.config import EncoderConfig, SpotBatchConfig, TorchConfig
from .training.device import resolve_device, seeded
from .training.hooks import TorchHooks
from .training.loop import train
from .training.patch_bank import PatchBank
from .training.pretrained import weights_label
from .training.saved import CONFIG, WEIGHTS, SavedMethod

__all__ = ["Batch", "EncoderConfig", "SpotBatchConfig", "TestBatch", "TorchConfig", "TorchMethod", "TrainingData"]


class TorchMethod(TorchHooks):
    """Implements :class:`stbench.method.Method` for whoever gives a network and a loss.

    :class:`stbench.training.hooks.TorchHooks` says what each of these does. To be given: the class attributes,
    ``describe``, ``network``, ``loss``, ``optimiser``, ``predict_batch``. May be given: ``start``, ``finish``,
    ``slide_constants``, ``validation_spots`` and the training options.

    Random numbers: ``batch.generator`` for augmentation, torch's global generators (seeded by the loop) for dropout,
    ``run.torch_generator(name)`` elsewhere; nothing else, or resuming is not exact.
    """

    def __init__(self, config: Any) -> None:
        self.config = config
        self.trained: nn.Module | None = None  # the network after fit or load, on the device, in eval mode
        self.shape: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []  # of the last fit, one row per epoch
        self.extras: dict[str, Tensor] = {}  # what finish stores beside the weights, e.g. retrieval keys
        self.precision: Precision = "fp32"  # of the last fit; predictions are made in it too
        self.execution: dict[str, Any] = {}  # how the last fit was computed, where that changes no number
        self.compiled: CompileRecord | None = None  # what came of compiling in the last fit; None: it was not asked for
        self._label: str | None = None

    @property
    def needs(self) -> Needs:
        return Needs(whole_slide=self.batching == "slides")

    @property
    def weights_label(self) -> str:
        if self._label is None:
            config = self.config
            self._label = weights_label(config.encoder, config.weights) if isinstance(config, EncoderConfig) else "none"
        return self._label

    @property
    def n_parameters(self) -> int | None:
        """Trainable and frozen parameters of the network; ``None`` before there is one."""
        return sum(p.numel() for p in self.trained.parameters()) if self.trained is not None else None

    @property
    def input_px(self) -> int:
        """Side S of the image that the network sees."""
        return int(self.config.input_px or self.config.patch_px)

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        """Learn from slides; goes on from the checkpoint in ``run.checkpoint_directory`` if there is one.

        Parameters
        ----------
        slides : sequence of TrainingSlide
            At least one.
        run : Run
            Device, precision and seed to train with, and whom to tell what happens.

        Raises
        ------
        Interrupted
            After its state was saved.
        UserError
            If there is no slide, or the method cannot be trained on these.
        """
        if not slides:
            raise UserError(f"{self.name} has no slide to learn from - a fold needs at least one training slide")
        device = torch.device(resolve_device(run.device))
        self.precision = run.precision
        note = None if self.cuts_windows else run.note
        bank = PatchBank(slides, self.config.patch_px, self.input_px, device, note=note, padding=self.config.padding)
        if bank.crowded_out:
            where = "this GPU" if device.type == "cuda" else "this machine"
            run.note(
                f"patches are read anew in every epoch: {workers_on_device()} workers share {where}, and"
                f" {amount(bank.n_bytes)} of patches are more than one may keep in its memory; the numbers are the same"
            )
        data = TrainingData(slides, bank)
        held_out = self.validation_spots(data, run)
        if held_out is not None:
            data.hold_out(held_out)
        self.shape = self.describe(data)
        self.extras, self.execution = {}, {}
        with seeded(device, run.derive_seed(self.name, "network")), tf32_flags(self.precision):
            network = self.network(self.shape)
            self.start(network, data, run)
            self._to_device(network, device)
            if self.batching == "slides":
                data.constants = tuple(self._constants(slide, device) for slide in slides)
            compiling = self._compiling(network, device, run)
            self.history = train(self, network, data, run, self._identity(data, run), compiling)
            self.compiled = compiling.record
            self.trained = network
            with torch.no_grad(), autocast(device, self.precision):
                self.finish(network, data, run)

    def predict(self, slide: TestSlide) -> np.ndarray:
        """Predict a slide.

        Parameters
        ----------
        slide : TestSlide
            Without expression.

        Returns
        -------
        ndarray of shape (n_spots, n_genes)
            float32, on the target's scale.

        Raises
        ------
        UserError
            If the method has not been trained.
        """
        network, device = self._network_and_device()
        padding = self.config.padding
        bank = PatchBank([slide], self.config.patch_px, self.input_px, device, resident=False, padding=padding)
        size = self.predict_batch_size if self.batching == "spots" else None
        constants = self._constants(slide, device) if self.batching == "slides" else {}
        with torch.inference_mode(), tf32_flags(self.precision), autocast(device, self.precision):
            parts = [self.predict_batch(network, batch).float() for batch in test_batches(slide, bank, size, constants)]
            return torch.cat(parts).cpu().numpy()

    def reconfigure(self, config: Any, run: Run) -> None:
        """Predict under another config from now on.

        Parameters
        ----------
        config : MethodConfig
            It differs from the present one in ``inference_fields`` alone.
        run : Run
            Whom to tell what happens.
        """
        self.config = config

    def save(self, directory: Path) -> None:
        """Write ``config.json``, ``shape.json``, ``weights.safetensors`` and, if there are extras, theirs.

        Parameters
        ----------
        directory : Path
            An existing folder, which is empty.

        Raises
        ------
        UserError
            If the method has not been trained.
        """
        network, _ = self._network_and_device()
        SavedMethod(
            method=self.name,
            config=self.config.model_dump(mode="json"),
            shape=self.shape,
            precision=self.precision,
            weights_label=self.weights_label,
            weights=network.state_dict(),
            extras=self.extras,
        ).write(directory)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        """The method as it was saved.

        Parameters
        ----------
        directory : Path
            A trial's ``model/``.
        device : str, default="cpu"
            Where it is to predict.

        Returns
        -------
        TorchMethod
            Trained.

        Raises
        ------
        UserError
            If files are missing, damaged or another method's.
        """
        directory = Path(directory)
        saved = SavedMethod.read(directory, cls.name)
        try:
            method = cls(cls.Config(**saved.config))
        except ValidationError as error:
            raise UserError(f"{directory / CONFIG} is not a valid {cls.name} config: {first_problem(error)}") from error
        at = torch.device(resolve_device(device))
        method.shape, method.precision, method._label = saved.shape, saved.precision, saved.weights_label
        with seeded(at, 0):
            network = method.network(method.shape)
        try:
            network.load_state_dict(saved.weights)
        except RuntimeError as error:
            raise UserError(
                f"{directory / WEIGHTS} does not fit {cls.name} as its config has it: {reason_of(error)}"
            ) from error
        method._to_device(network, at)
        method.trained = network.eval()
        method.extras = {name: value.to(at) for name, value in saved.extras.items()}
        return method

    def _network_and_device(self) -> tuple[nn.Module, torch.device]:
        if self.trained is None:
            raise UserError(f"{self.name} has not been trained - call fit first, or load a saved model")
        return self.trained, next(self.trained.parameters()).device

    def _to_device(self, network: nn.Module, device: torch.device) -> None:
        network.to(device)
        # as the patches are: convolutions are faster so, and other layers do not mind
        network.to(memory_format=torch.channels_last)

    def _compiling(self, network: nn.Module, device: torch.device, run: Run) -> Steps:
        """How a training's steps are computed, as ``config.compile`` asks: "auto" measures on a GPU alone."""
        asked = self.config.compile
        if asked == "auto" and device.type == "cuda":
            return MeasuredSteps(network, device, self.name, run.note, whole_slides=self.batching == "slides")
        if asked == "auto":
            return Steps(CompileRecord(choice="eager", why="on_cpu"))
        return CompiledSteps(network, device, self.name) if asked else Steps()

    def _constants(self, slide: TestSlide, device: torch.device) -> dict[str, Tensor]:
        return {name: value.to(device) for name, value in self.slide_constants(slide).items()}

    def _identity(self, data: TrainingData, run: Run) -> str:
        """A digest of what the outcome of training depends on: a checkpoint of another identity is not continued."""
        slides = [
            {"id": slide.id, "n_spots": slide.n_spots, "target": hashlib.blake2b(slide.target.tobytes()).hexdigest()}
            for slide in data.slides
        ]
        return value_digest(
            {
                "method": self.name,
                "config": self.config.model_dump(mode="json", exclude=set(self.execution_fields)),
                "epochs": self.epochs,
                "weights": self.weights_label,
                "shape": self.shape,
                "slides": slides,
                "seed": run.seed,
                "precision": run.precision,
                "device": data.device.type,
                "torch": torch.__version__,
            }
        )
