"""STnet (He et al. 2020, github.com/bryanhe/ST-Net): an ImageNet DenseNet-121 fine-tuned to a spot's expression.

Spot by spot, from the patch alone: no position and no neighbour enters.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from stbench.errors import UserError
from stbench.method import MethodConfig, Run, TrainingSlide
from stbench.system.precision import float32, no_autocast
from stbench.torch_method import (
    Batch,
    EncoderConfig,
    SpotBatchConfig,
    TestBatch,
    TorchConfig,
    TorchMethod,
    TrainingData,
)
from stbench.training import augment
from stbench.training.encoder_input import note_foreign_input, own_input
from stbench.training.encoders import IMAGENET_MEAN, IMAGENET_STD, Encoder, build_encoder, load_weights
from stbench.training.loop import batches_of_spots

# What the published analysis scripts fix for the authors' own breast sections.
FIXED_MEAN = (0.54, 0.51, 0.68)
FIXED_STD = (0.25, 0.21, 0.16)
PUBLISHED_GENES = 250  # of the published panel, for which its learning rate was chosen


class STNetConfig(EncoderConfig, SpotBatchConfig, TorchConfig):
    """The published command line's settings; "official" below is github.com/bryanhe/ST-Net."""

    encoder: str = Field("densenet121", description="image encoder; official: densenet121")
    epochs: int = Field(50, ge=1, description="official: 50")
    batch_size: int = Field(32, ge=1, description="spots in a training batch; official: 32, the last one kept")
    optimiser: Literal["sgd", "adam", "adamw"] = Field("sgd", description="official: sgd")
    lr: float = Field(1e-6, gt=0, description="official: 1e-6, which belongs to loss_reduction = sum_spots")
    momentum: float = Field(0.9, ge=0, lt=1, description="of sgd; official: 0.9")
    weight_decay: float = Field(0.0, ge=0, description="official: 0")
    loss_reduction: Literal["sum_spots", "mean"] = Field(
        "sum_spots",
        description="squared error summed over a batch's spots and averaged over genes (official), or averaged over"
        " both: then lr 3.2e-5 is the equal of 1e-6",
    )
    lr_scale_genes: bool = Field(
        False, description="multiply the head's learning rate by G / 250, as the loss's mean over genes divides it by G"
    )
    head_init: Literal["zero_mean", "default"] = Field(
        "zero_mean",
        description="head: zero weight and the training targets' mean as bias (official), or torch's default",
    )
    freeze_trunk: bool = Field(
        False, description="train the head alone; the encoder's batch norms stay as they were loaded (STimage)"
    )
    trained_parts: int | None = Field(
        None,
        ge=1,
        description="train only the head and the last so many parts of the encoder (1 of a ResNet is its last stage,"
        " 2 of a DenseNet its last dense block and the norm after it); none: all of it (official)",
    )
    norm: Literal["train", "imagenet", "fixed", "none", "encoder"] = Field(
        "train",
        description="input standardisation per channel: statistics of training patches (official, with any encoder), of"
        " ImageNet, those of the official analysis scripts, none, or as the encoder was trained",
    )
    norm_patches: int = Field(
        384, ge=1, description="training patches, drawn at random, for norm = train; official: 12 batches of 32"
    )
    augment: Literal["d4", "jitter_rot180", "none"] = Field(
        "d4",
        description="training augmentation: the 8 symmetries of the square (official), colour jitter with flip and free"
        " rotation (HisToGene's stand-in for ST-Net), or none",
    )
    tta: Literal["d4", "none"] = Field("d4", description="average predictions over the 8 symmetries (official), or not")
    select: Literal["last", "inner_cv"] = Field(
        "last",
        description="weights after the last epoch, or after the epoch with the lowest error in an inner 4-fold"
        " cross-validation over training patients (official; 5 trainings)",
    )

    @model_validator(mode="after")
    def _one_way_to_fine_tune(self) -> Self:
        if self.freeze_trunk and self.trained_parts is not None:
            raise ValueError(
                f"freeze_trunk = true trains the head alone, trained_parts = {self.trained_parts} parts of the encoder "
                "too: leave one of the two out"
            )
        return self


class STNetwork(nn.Module):
    """Images (B, 3, S, S) in [0, 1] to (B, G): standardise, encode, one linear layer."""

    input_mean: Tensor
    input_std: Tensor

    def __init__(self, encoder: Encoder, n_genes: int) -> None:
        super().__init__()
        self.encoder = encoder.module
        self.head = nn.Linear(encoder.n_features, n_genes)
        self.register_buffer("input_mean", torch.zeros(3))
        self.register_buffer("input_std", torch.ones(3))
        self.frozen: list[nn.Module] = []

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(augment.standardise(images, self.input_mean, self.input_std))
        with no_autocast(features.device):  # spots differ by less than bf16 resolves about the genes' means
            return self.head(float32(features))

    def average_of_symmetries(self, patches: Tensor) -> Tensor:
        """Mean of the outputs for the 8 symmetries of uint8 ``patches``."""
        return torch.stack([self(augment.to_float(image)) for image in augment.symmetries(patches)]).mean(0)

    def freeze(self, parts: Sequence[nn.Module]) -> None:
        """Parts that are not trained; their batch norms keep the statistics that they were loaded with."""
        self.frozen = list(parts)
        for part in self.frozen:
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> STNetwork:
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self


class STNet(TorchMethod):
    name: ClassVar[str] = "stnet"
    title: ClassVar[str] = "STnet"
    Config: ClassVar[type[MethodConfig]] = STNetConfig
    switches: ClassVar[str] = "stbench.methods.switches.stnet:SWITCHES"
    safe_precisions = frozenset({"fp32", "tf32", "bf16"})
    readings: ClassVar[str] = "stbench.methods.readings.stnet:READINGS"
    batching: ClassVar[Literal["spots", "slides"]] = "spots"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "released": {"select": "inner_cv", "padding": "black"},
        "paper": {},  # the text says no more than "DenseNet-121, then fully connected layers"
        "tuned": {"optimiser": "adamw", "lr": 1e-4, "batch_size": 128, "loss_reduction": "mean"},
        "histogene_stmodel": {
            "encoder": "resnet101",
            "optimiser": "adam",
            "lr": 1e-5,
            "loss_reduction": "mean",
            "head_init": "default",
            "norm": "none",
            "augment": "jitter_rot180",
            "tta": "none",
        },
        "quick": {
            "encoder": "test_resnet",  # timm's smallest ResNet: 0.5 million parameters
            "weights": "random",  # so that it runs without a network; every number is labelled
            "input_px": 64,
            "epochs": 15,
            "optimiser": "adamw",
            "lr": 1e-3,
            "loss_reduction": "mean",
        },
        # the demo's windows are small and few: less does, so that all methods fit in minutes
        "quick/demo": {"input_px": 40, "epochs": 8, "lr": 1.5e-3},
    }
    config: STNetConfig

    @property
    def inference_fields(self) -> frozenset[str]:
        # the inner cross-validation chooses an epoch by predictions as they will be made
        return frozenset() if self.config.select == "inner_cv" else frozenset({"tta"})

    def describe(self, data: TrainingData) -> dict[str, Any]:
        return {"n_genes": data.n_genes}

    def network(self, shape: Mapping[str, Any]) -> STNetwork:
        network = STNetwork(
            build_encoder(self.config.encoder, pooling=self.config.pooling, input_px=self.input_px), shape["n_genes"]
        )
        if self.config.freeze_trunk:
            network.freeze([network.encoder])
        elif self.config.trained_parts is not None:
            parts = parts_of(network.encoder)
            if self.config.trained_parts > len(parts):
                raise UserError(
                    f"stnet.trained_parts = {self.config.trained_parts}, and {self.config.encoder} has {len(parts)} "
                    "parts - give fewer, or none for all of it"
                )
            network.freeze(parts[: -self.config.trained_parts])
        return network

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        assert isinstance(network, STNetwork)
        load_weights(network.encoder, self.config.encoder, self.config.weights, run)
        if self.config.head_init == "zero_mean":
            nn.init.zeros_(network.head.weight)
            network.head.bias.data.copy_(data.training_mean(data.target, dtype=torch.float64))
        mean, std = self._input_statistics(data, run)
        network.input_mean.copy_(mean)
        network.input_std.copy_(std)
        given = (mean.tolist(), std.tolist())
        note_foreign_input(run, self.name, self.config.encoder, *given, self.input_px, self.config.pooling, "norm")

    def _input_statistics(self, data: TrainingData, run: Run) -> tuple[Tensor, Tensor]:
        match self.config.norm:
            case "imagenet":
                return torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
            case "fixed":
                return torch.tensor(FIXED_MEAN), torch.tensor(FIXED_STD)
            case "none":
                return torch.zeros(3), torch.ones(3)
            case "encoder":
                own = own_input(self.config.encoder)
                return torch.tensor(own.mean), torch.tensor(own.std)
        generator = run.torch_generator(self.name, "input statistics")
        drawn = torch.randperm(len(data.training_spots), generator=generator)[: self.config.norm_patches]
        return input_statistics(data, data.training_spots[drawn])

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(network, STNetwork)
        predicted = network(self._augmented(batch)) if network.training else self.predict_batch(network, batch)
        squared = (predicted.to(batch.target.dtype) - batch.target).square()  # not in bf16
        summed, mse = squared.sum() / squared.shape[1], squared.mean()
        loss = summed if self.config.loss_reduction == "sum_spots" else mse
        return {"loss": loss, "mse": mse} if network.training else {"loss": loss, "squared_error": summed}

    def _augmented(self, batch: Batch) -> Tensor:
        match self.config.augment:
            case "d4":
                return augment.to_float(augment.flip_and_quarter_turn(batch.patches, batch.generator))
            case "jitter_rot180":
                return augment.jitter_flip_and_rotate(batch.patches, batch.generator)
            case _:
                return augment.to_float(batch.patches)

    def optimiser(self, network: nn.Module, device: torch.device) -> tuple[torch.optim.Optimizer, None]:
        assert isinstance(network, STNetwork)
        config = self.config
        head_lr = config.lr * (network.head.out_features / PUBLISHED_GENES if config.lr_scale_genes else 1)
        groups: list[dict[str, Any]] = [{"params": list(network.head.parameters()), "lr": head_lr}]
        if not config.freeze_trunk:
            groups.append({"params": list(network.encoder.parameters())})
        match config.optimiser:
            case "sgd":
                return torch.optim.SGD(
                    groups, config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
                ), None
            case "adam":
                return torch.optim.Adam(groups, config.lr, weight_decay=config.weight_decay, fused=True), None
            case "adamw":
                return torch.optim.AdamW(groups, config.lr, weight_decay=config.weight_decay, fused=True), None

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        assert isinstance(network, STNetwork)
        if self.config.tta == "d4":
            return network.average_of_symmetries(batch.patches)
        return network(augment.to_float(batch.patches))

    # Epoch choice by inner cross-validation -----------------------------------------------------------------------

    chosen_epoch: int | None = None

    @property
    def epochs(self) -> int:
        return self.chosen_epoch or self.config.epochs

    def fit(self, slides: Sequence[TrainingSlide], run: Run) -> None:
        self.chosen_epoch = None
        if self.config.select == "inner_cv":
            if len({slide.patient for slide in slides}) == 1:
                run.note("stnet: select = inner_cv needs two training patients; with one the last epoch is kept")
            else:
                self.chosen_epoch = choose_epoch(self.config, slides, run)
        super().fit(slides, run)


def parts_of(encoder: nn.Module) -> list[nn.Module]:
    """The direct children of an encoder that hold parameters, first to last; torchvision's DenseNet keeps its in
    ``features``.
    """
    trunk = encoder.get_submodule("features") if hasattr(encoder, "features") else encoder
    parts = [child for child in trunk.children() if any(True for _ in child.parameters())]
    inner = getattr(trunk, "trunk", None)  # of an encoder that pools tokens its own way, which does so last
    return [*parts_of(inner), *parts[1:]] if isinstance(inner, nn.Module) else parts


def input_statistics(data: TrainingData, spots: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel over the pixels of some training patches; (3,) each."""
    n_pixels = 0
    total = torch.zeros(2, 3, dtype=torch.float64, device=data.device)
    for batch in data.batches(spots.split(64)):
        images = augment.to_float(batch.patches).double()
        total += torch.stack([images.sum((0, 2, 3)), images.square().sum((0, 2, 3))])
        n_pixels += images.numel() // 3
    mean, mean_square = (total / n_pixels).cpu()
    return mean.float(), (mean_square - mean.square()).clamp(min=1e-12).sqrt().float()


class _InnerFold(STNet):
    """STnet with some training patients held out, whose error is measured after every epoch."""

    held_out: tuple[str, ...] = ()

    def describe(self, data: TrainingData) -> dict[str, Any]:
        return {**super().describe(data), "held_out": self.held_out}

    def validation_spots(self, data: TrainingData, run: Run) -> Tensor | None:
        of_held_out = torch.tensor([slide.patient in self.held_out for slide in data.slides])
        return torch.nonzero(of_held_out[data.slide.cpu()]).flatten()


def choose_epoch(config: STNetConfig, slides: Sequence[TrainingSlide], run: Run, n_folds: int = 4) -> int:
    """The epoch with the lowest squared error over the held-out patients of all inner folds (official: 4).

    Sorted patients are dealt to the folds in turn. Only training slides are ever looked at.
    """
    patients = sorted({slide.patient for slide in slides})
    if len(patients) < 2:
        raise UserError(
            "stnet.select = inner_cv needs training slides of at least two patients - use --set stnet.select=last"
        )
    errors = torch.zeros(config.epochs, dtype=torch.float64)
    for fold in range(min(n_folds, len(patients))):
        inner = _InnerFold(config.model_copy(update={"select": "last"}))
        inner.held_out = tuple(patients[fold::n_folds])
        folder = run.checkpoint_directory / f"inner-{fold}" if run.checkpoint_directory else None
        inner.fit(slides, dataclasses.replace(run, checkpoint_directory=folder, on_log=None))
        # the history has means over batches: times their number, they are sums over spots
        n_spots = sum(slide.n_spots for slide in slides if slide.patient in inner.held_out)
        n_batches = len(batches_of_spots(torch.arange(n_spots), inner))
        errors += (
            torch.tensor([row["validation_squared_error"] for row in inner.history], dtype=torch.float64) * n_batches
        )
    return int(errors.argmin()) + 1
