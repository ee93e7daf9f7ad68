"""What a torch method gives: its network and its loss, and what it may say of how they are trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ..method import MethodConfig, Run, TestSlide
from ..system.precision import Precision
from .batches import Batch, TestBatch, TrainingData


class TorchHooks(ABC):
    """What :class:`stbench.torch_method.TorchMethod` leaves to the method: the abstract ones it must give."""

    config: Any
    name: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Literal["method", "control"]] = "method"
    Config: ClassVar[type[MethodConfig]]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]]
    batching: ClassVar[Literal["spots", "slides"]]  # what one training step sees: a batch of spots, or a whole slide
    # as tests measured: see training/precision.py
    safe_precisions: ClassVar[frozenset[Precision]] = frozenset({"fp32"})
    # settings that change how a training is computed and none of its numbers: no part of a trial's key
    execution_fields: ClassVar[frozenset[str]] = frozenset()
    switches: ClassVar[str] = ""  # where its ablation switches stand, "package.module:NAME" (stbench/switches.py)

    @property
    def inference_fields(self) -> frozenset[str]:
        """Settings that, under this config, nothing but prediction looks at."""
        return frozenset()

    @abstractmethod
    def describe(self, data: TrainingData) -> dict[str, Any]:
        """Facts that the network's shape depends on.

        Parameters
        ----------
        data : TrainingData
            The training slides.

        Returns
        -------
        dict of str to object
            JSON-able, as it is saved: ``{"n_genes": data.n_genes}``.
        """

    @abstractmethod
    def network(self, shape: Mapping[str, Any]) -> nn.Module:
        """A new network, randomly initialised from torch's global generator; no file is read.

        Parameters
        ----------
        shape : mapping of str to object
            As :meth:`describe` gave it.

        Returns
        -------
        torch.nn.Module
            On the CPU. All that is learnt must be in its state dict (persistent buffers).
        """

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:  # noqa: B027 - may be left as it is
        """Prepare the new network: pretrained weights, initial values that depend on the data.

        Parameters
        ----------
        network : torch.nn.Module
            As :meth:`network` gave it, still on the CPU; changed in place.
        data : TrainingData
            The training slides. What is computed from them may look at ``data.training_spots`` alone.
        run : Run
            Seeds, and whom to tell what happens.
        """

    @abstractmethod
    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """The objective on a batch.

        Parameters
        ----------
        network : torch.nn.Module
            In training mode; on validation batches in eval mode and without gradients: augment only where
            ``network.training``.
        batch : Batch
            B spots, or a whole slide.

        Returns
        -------
        dict of str to Tensor
            Scalars on the device: the objective under ``"loss"``, and whatever else is to stand in the history.

        Notes
        -----
        Called inside autocast if the precision is bf16: what must not be, the method knows
        (:func:`stbench.system.precision.no_autocast`). Nothing in it may wait for the device (``.item()``, ``.cpu()``,
        ``if tensor:``, boolean masks).
        """

    @abstractmethod
    def optimiser(
        self, network: nn.Module, device: torch.device
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        """What trains the network.

        Parameters
        ----------
        network : torch.nn.Module
            On the device.
        device : torch.device
            CPU or GPU. ``fused=True`` makes a step in one pass over the weights on either; torch then rounds
            otherwise, in the last bits.

        Returns
        -------
        optimiser : torch.optim.Optimizer
            Over the parameters that learn.
        schedule : torch.optim.lr_scheduler.LRScheduler or None
            Stepped once per epoch.
        """

    @abstractmethod
    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        """Predict a batch.

        Parameters
        ----------
        network : torch.nn.Module
            In eval mode, under inference mode and the run's precision.
        batch : TestBatch
            B spots, or a whole slide.

        Returns
        -------
        Tensor of shape (B, G)
            On the target's scale, in the batch's order.
        """

    def finish(self, network: nn.Module, data: TrainingData, run: Run) -> None:  # noqa: B027 - may be left as it is
        """Compute what is kept beside the network, in ``self.extras``: retrieval keys, say.

        Parameters
        ----------
        network : torch.nn.Module
            As it was trained, in eval mode, without gradients and in the run's precision.
        data : TrainingData
            The training slides; ``data.batches(groups)`` gives their spots in any order.
        run : Run
            Seeds, and whom to tell what happens.
        """

    def slide_constants(self, slide: TestSlide) -> dict[str, Tensor]:
        """What does not change from epoch to epoch, such as the graph of neighbours: computed once per slide.

        Parameters
        ----------
        slide : TestSlide
            A training slide too, of which only this may be looked at.

        Returns
        -------
        dict of str to Tensor
            On the CPU. If ``batching`` is "slides", the slide's batches have them as ``constants``, on the device.
        """
        return {}

    def validation_spots(self, data: TrainingData, run: Run) -> Tensor | None:
        """Training spots to leave out of training.

        Parameters
        ----------
        data : TrainingData
            The training slides.
        run : Run
            Seeds, and whom to tell what happens.

        Returns
        -------
        Tensor of shape (n_held_out,) or None
            int64 indices on the CPU; those of whole slides if ``batching`` is "slides". The weights of the epoch with
            the lowest mean validation loss are kept; with ``None``, those of the last epoch.
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
