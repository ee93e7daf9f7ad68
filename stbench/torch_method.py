"""The base of every torch method: a network, a loss and a config become a :class:`stbench.method.Method`.

A method is written by subclassing :class:`TorchMethod`, as those in ``methods/`` are. The loop, the device, mixed
precision, batches, checkpoints and resuming are in :mod:`stbench.training`, written once.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from .errors import UserError, reason_of
from .method import MethodConfig, Needs, Run, TestSlide, TrainingSlide
from .system.files import read_object, reading_tensors, replacing, value_digest, write_json
from .system.precision import Precision, autocast, tf32_flags
from .training.batches import Batch, TestBatch, TrainingData, test_batches
from .training.config import EncoderConfig, SpotBatchConfig, TorchConfig
from .training.device import resolve_device, seeded
from .training.loop import train
from .training.patch_bank import PatchBank
from .training.pretrained import weights_label

__all__ = ["Batch", "EncoderConfig", "SpotBatchConfig", "TestBatch", "TorchConfig", "TorchMethod", "TrainingData"]


TRAIN_AGAIN = "restore it, or train again"


class TorchMethod(ABC):
    """Implements :class:`stbench.method.Method` for whoever gives a network and a loss.

    To be given: the class attributes, :meth:`describe`, :meth:`network`, :meth:`loss`, :meth:`optimiser`,
    :meth:`predict_batch`. May be given: :meth:`start`, :meth:`finish`, :meth:`slide_constants`,
    :meth:`validation_spots` and the training options.

    Random numbers: ``batch.generator`` for augmentation, torch's global generators (seeded by the loop) for dropout,
    ``run.torch_generator(name)`` elsewhere; nothing else, or resuming is not exact.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["method", "control"]] = "method"
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    batching: ClassVar[Literal["spots", "slides"]]  # what one training step sees: a batch of spots, or a whole slide
    safe_precisions: ClassVar[frozenset[Precision]] = frozenset(
        {"fp32"}
    )  # see training/precision.py: measured by tests
    switches: ClassVar[str] = ""  # where its ablation switches stand, "package.module:NAME" (stbench/switches.py)

    @property
    def inference_fields(self) -> frozenset[str]:
        """Settings that, under this config, nothing but prediction looks at."""
        return frozenset()

    def __init__(self, config: Any) -> None:
        self.config = config
        self.trained: nn.Module | None = None  # the network after fit or load, on the device, in eval mode
        self.shape: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []  # of the last fit, one row per epoch
        self.extras: dict[str, Tensor] = {}  # what finish stores beside the weights, e.g. retrieval keys
        self.precision: Precision = "fp32"  # of the last fit; predictions are made in it too
        self._label: str | None = None

    # What a method gives ------------------------------------------------------------------------------------------

    @abstractmethod
    def describe(self, data: TrainingData) -> dict[str, Any]:
        """The facts that the network's shape depends on (``{"n_genes": data.n_genes}``): JSON-able, it is saved."""

    @abstractmethod
    def network(self, shape: Mapping[str, Any]) -> nn.Module:
        """A new network of that shape, on the CPU, randomly initialised from torch's global generator; loads no file.

        All that is learnt must be in its state dict (persistent buffers).
        """

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:  # noqa: B027 - may be left as it is
        """Prepare the new network, still on the CPU: pretrained weights, initial values that depend on the data.

        What is computed from the data may look at ``data.training_spots`` alone.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Scalars on the device: the objective under ``"loss"``, and whatever else is to stand in the history.

        Called inside autocast where the precision is bf16: what must not be, the method knows
        (:func:`stbench.system.precision.no_autocast`). Called on validation batches too, with the network in eval mode
        and without gradients: augment only where ``network.training``. Nothing in it may wait for the device
        (``.item()``, ``.cpu()``, ``if tensor:``, boolean masks).
        """

    @abstractmethod
    def optimiser(
        self, network: nn.Module, device: torch.device
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        """The optimiser (``fused=device.type == "cuda"``) and, if there is one, a schedule stepped once per epoch."""

    @abstractmethod
    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        """(B, G) on the target's scale. The network is in eval mode, under inference mode and the run's precision."""

    def finish(self, network: nn.Module, data: TrainingData, run: Run) -> None:  # noqa: B027 - may be left as it is
        """After training, with the final network in eval mode, without gradients, in the run's precision.

        May store tensors in ``self.extras`` (``data.batches(groups)`` gives the training spots in any order).
        """

    def slide_constants(self, slide: TestSlide) -> dict[str, Tensor]:
        """What does not change from epoch to epoch (e.g. the neighbour graph): CPU tensors, computed once per slide.

        Available as ``batch.constants``, on the device, where ``batching`` is "slides".
        """
        return {}

    def validation_spots(self, data: TrainingData, run: Run) -> Tensor | None:
        """Indices (int64, CPU) of training spots to leave out of training: whole slides where ``batching`` is "slides".

        Where given, the weights of the epoch with the lowest mean validation loss are kept, else those of the last.
        """
        return None

    @property
    def epochs(self) -> int:
        return int(self.config.epochs)

    @property
    def batch_size(self) -> int:
        """Spots in a training batch, where ``batching`` is "spots"."""
        return int(self.config.batch_size)

    @property
    def predict_batch_size(self) -> int:
        """Spots in a batch at prediction, where ``batching`` is "spots"."""
        return 128

    @property
    def drop_last(self) -> bool:
        """Leave out an epoch's last batch (in validation too) where it is not full."""
        return False

    @property
    def accumulate(self) -> int:
        """Batches whose losses are averaged (mean of the batches' losses) before each optimiser step."""
        return 1

    @property
    def reshuffle(self) -> bool:
        """Whether every epoch has an order of its own; else all have the first one's."""
        return True

    @property
    def cuts_windows(self) -> bool:
        """Whether the method has cut the slides' windows to the size that it wants before :meth:`fit` sees them."""
        return False

    # What the harness uses ----------------------------------------------------------------------------------------

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
        """Learn from ``slides``; goes on from the checkpoint in ``run.checkpoint_directory`` where there is one.

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
        data = TrainingData(slides, bank)
        held_out = self.validation_spots(data, run)
        if held_out is not None:
            data.hold_out(held_out)
        self.shape = self.describe(data)
        self.extras = {}
        with seeded(device, run.derive_seed(self.name, "network")), tf32_flags(self.precision):
            network = self.network(self.shape)
            self.start(network, data, run)
            self._to_device(network, device)
            if self.batching == "slides":
                data.constants = tuple(self._constants(slide, device) for slide in slides)
            self.history = train(self, network, data, run, self._identity(data, run))
            self.trained = network
            with torch.no_grad(), autocast(device, self.precision):
                self.finish(network, data, run)

    def predict(self, slide: TestSlide) -> np.ndarray:
        """(n_spots, n_genes) float32 on the target's scale."""
        network, device = self._network_and_device()
        padding = self.config.padding
        bank = PatchBank([slide], self.config.patch_px, self.input_px, device, resident=False, padding=padding)
        size = self.predict_batch_size if self.batching == "spots" else None
        constants = self._constants(slide, device) if self.batching == "slides" else {}
        with torch.inference_mode(), tf32_flags(self.precision), autocast(device, self.precision):
            parts = [self.predict_batch(network, batch).float() for batch in test_batches(slide, bank, size, constants)]
            return torch.cat(parts).cpu().numpy()

    def reconfigure(self, config: Any, run: Run) -> None:
        """Predict under another config from now on; it differs from this one's in ``inference_fields`` alone."""
        self.config = config

    def save(self, directory: Path) -> None:
        """``config.json``, ``shape.json``, ``weights.safetensors`` and, where there is more, ``extras.safetensors``."""
        network, _ = self._network_and_device()
        facts = {
            "method": self.name,
            "shape": self.shape,
            "precision": self.precision,
            "weights_label": self.weights_label,
        }
        write_json(directory / "config.json", self.config.model_dump(mode="json"))
        write_json(directory / "shape.json", facts)
        _save_tensors(directory / "weights.safetensors", network.state_dict())
        if self.extras:
            _save_tensors(directory / "extras.safetensors", self.extras)

    @classmethod
    def load(cls, directory: Path, device: str = "cpu") -> Self:
        """The method as it was saved, on ``device``.

        Raises
        ------
        UserError
            If files are missing, damaged or another method's.
        """
        directory = Path(directory)
        for file in ("config.json", "shape.json", "weights.safetensors"):
            if not (directory / file).is_file():
                raise UserError(
                    f"{directory} is not a saved {cls.name} model: it has no {file} - give a trial's model folder"
                )
        facts = read_object(directory / "shape.json", TRAIN_AGAIN)
        absent = [name for name in ("method", "shape", "precision", "weights_label") if name not in facts]
        if absent:
            raise UserError(f"{directory / 'shape.json'} does not say {', '.join(absent)} - {TRAIN_AGAIN}")
        if facts["method"] != cls.name:
            raise UserError(f"{directory} holds a {facts['method']} model, not {cls.name}")
        try:
            method = cls(cls.Config(**read_object(directory / "config.json", TRAIN_AGAIN)))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{directory / 'config.json'} is not a valid {cls.name} config: {where}: {first['msg']}"
            ) from error
        at = torch.device(resolve_device(device))
        method.shape, method.precision, method._label = facts["shape"], facts["precision"], facts["weights_label"]
        with seeded(at, 0):
            network = method.network(method.shape)
        weights = _load_tensors(directory / "weights.safetensors")
        try:
            network.load_state_dict(weights)
        except RuntimeError as error:
            reason = reason_of(error)
            raise UserError(
                f"{directory / 'weights.safetensors'} does not fit {cls.name} as its config has it: {reason}"
            ) from error
        method._to_device(network, at)
        method.trained = network.eval()
        if (directory / "extras.safetensors").is_file():
            extras = _load_tensors(directory / "extras.safetensors")
            method.extras = {name: value.to(at) for name, value in extras.items()}
        return method

    def _network_and_device(self) -> tuple[nn.Module, torch.device]:
        if self.trained is None:
            raise UserError(f"{self.name} has not been trained - call fit first, or load a saved model")
        return self.trained, next(self.trained.parameters()).device

    def _to_device(self, network: nn.Module, device: torch.device) -> None:
        network.to(device)
        # as the patches are: convolutions are faster so, and other layers do not mind
        network.to(memory_format=torch.channels_last)
        if self.config.compile:
            network.compile()

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
                "config": self.config.model_dump(mode="json"),
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


def _save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        save_file({name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}, temporary)


def _load_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    with reading_tensors(path):
        return load_file(path)
