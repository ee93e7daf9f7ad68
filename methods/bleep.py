"""BLEEP (Xie et al. 2023): patches and expression in one space, learnt with soft targets, and retrieval there.

A test patch's expression is the plain average of the expression of its nearest training spots. Source: the released
code and its maintainers' answers; where they differ, the fields of :class:`BLEEPConfig` say who does what.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from stbench.errors import UserError
from stbench.method import Run
from stbench.torch_method import (
    Batch,
    EncoderConfig,
    SpotBatchConfig,
    TestBatch,
    TorchConfig,
    TorchMethod,
    TrainingData,
)
from stbench.training.encoder_input import note_foreign_input
from stbench.training.encoders import build_encoder, load_weights

from .layers.contrastive import ProjectionHead, TemperatureForm, logits, matched, one_hot_loss, soft_loss, soft_targets
from .layers.pixels import Augmentation, PixelScale, encoder_input, input_at_test, scaling
from .layers.retrieval import Distance, Weighting, diagnose, note_neighbours, retrieve

# published state_dict name -> name here; the image encoder's own names are timm's and torchvision's

TRAINING_SHARE = 0.8
SPLIT_SEED = 42


class BLEEPNetwork(nn.Module):
    """Two branches into one space: patch -> encoder -> head, and expression -> head. No position enters."""

    def __init__(
        self, image_encoder: nn.Module, n_features: int, n_genes: int, n_dimensions: int = 256, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.image_projection = ProjectionHead(n_features, n_dimensions, dropout)
        self.spot_projection = ProjectionHead(n_genes, n_dimensions, dropout)

    def embed_images(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, d)."""
        return self.image_projection(self.image_encoder(images))

    def embed_spots(self, expression: Tensor) -> Tensor:
        """(n, G) -> (n, d)."""
        return self.spot_projection(expression)

    def forward(self, images: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        """(n, d) spot and (n, d) image embeddings."""
        return self.embed_spots(expression), self.embed_images(images)


class BLEEPConfig(EncoderConfig, SpotBatchConfig, TorchConfig):
    """Defaults: the released code's with its faults in image loading mended, in the single-device form of its batches.

    Expression is the benchmark's target on the benchmark's panel: no Harmony, and no genes chosen on the test slice.
    """

    epochs: int = Field(50, ge=1, description="code's default 4; its users report the best model at epoch 30 to 38")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    weight_decay: float = Field(1e-3, ge=0, description="AdamW's weight decay")
    batch_size: int = Field(128, ge=1, description="spots in a batch: the negatives of a spot")
    accumulate: int = Field(
        4,
        ge=1,
        description="batches whose losses are averaged before a step: the published runs' 4 devices of 128 spots",
    )
    encoder: str = Field(
        "resnet50.a1_in1k",
        description="timm's default ResNet-50, pinned; in the code also resnet101, resnet152, vit_base_patch32_224,"
        " vit_base_patch32_clip_224.laion2b, vit_large_patch32_224; resnet50 is torchvision's",
    )
    dropout: float = Field(0.1, ge=0, lt=1, description="in both projection heads")
    pixels: PixelScale = Field(
        "imagenet",
        description="RGB with ImageNet mean and deviation (code as meant); bgr-255: all published results; unit;"
        " encoder: as the encoder was trained, which is never the published way for another encoder than its own",
    )
    augmentation: Augmentation = Field("flip-quarter-turns", description="of training patches")
    augment_at_test: bool = Field(
        False, description="augment validation and test patches too, as the code behind all published results"
    )
    n_dimensions: int = Field(256, ge=1, description="size of the shared space")
    temperature: float = Field(1.0, gt=0, description="T; fixed")
    temperature_form: TemperatureForm = Field(
        "divide",
        description="soft targets of similarity / T; multiply: the code until February 2024, its other encoders since",
    )
    targets: Literal["code", "detached", "one-hot"] = Field(
        "code",
        description="soft targets with gradients through them (code); detached: without; one-hot: the usual CLIP loss",
    )
    k: int = Field(50, ge=1, description="neighbours")
    aggregation: Weighting = Field(
        "average",
        description="plain mean of the neighbours; nearest: the code's simple; exponential: its weighted_average;"
        " inverse-square: mclSTExp's distance^-2",
    )
    distance: Distance = Field("l2", description="distance of the inverse-square aggregation")
    validation: Literal["spots", "slice", "none"] = Field(
        "spots",
        description="whose loss chooses the epoch: 20 % of the training spots by chance (code); the last slice;"
        " none: the last epoch's weights. All training spots are keys in any case",
    )
    reshuffle: bool = Field(True, description="draw new batches every epoch; false: the same ones, as the code does")


class BLEEP(TorchMethod):
    """BLEEP as a method of the benchmark: keys and values come from the training slices alone."""

    name = "bleep"
    title = "BLEEP"
    Config = BLEEPConfig
    batching = "spots"
    inference_fields = frozenset({"k", "aggregation", "distance", "augment_at_test"})
    switches = "stbench.methods.switches.bleep:SWITCHES"
    safe_precisions = frozenset({"fp32", "tf32"})  # bf16 changes who is whose neighbour
    readings = "stbench.methods.readings.bleep:READINGS"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        # the last version of the code that runs, which is that of all published results (until October 2024)
        "released": {
            "epochs": 4,
            "batch_size": 256,
            "accumulate": 1,
            "pixels": "bgr-255",
            "augment_at_test": True,
            "reshuffle": False,
        },
        "paper": {"epochs": 150},
        # timm's smallest ResNet (0.4 M parameters), and every batch a step
        "quick": {
            "epochs": 20,
            "encoder": "test_resnet",
            "weights": "random",  # so that it runs without a network; every number is labelled
            "input_px": 48,
            "batch_size": 64,
            "accumulate": 1,
            "n_dimensions": 128,
            "k": 20,
        },
        "quick/demo": {"input_px": 40, "epochs": 10, "lr": 1.5e-3},
    }
    config: BLEEPConfig
    diagnostics: dict[str, float]  # what the alarms look at, after fit

    @property
    def accumulate(self) -> int:
        return self.config.accumulate

    @property
    def drop_last(self) -> bool:
        return True  # as the published loaders of both training and validation spots

    @property
    def reshuffle(self) -> bool:
        return self.config.reshuffle

    def describe(self, data: TrainingData) -> dict[str, Any]:
        return {"n_genes": data.n_genes}

    def network(self, shape: Mapping[str, Any]) -> BLEEPNetwork:
        encoder = build_encoder(self.config.encoder, pooling=self.config.pooling, input_px=self.input_px)
        return BLEEPNetwork(
            encoder.module, encoder.n_features, int(shape["n_genes"]), self.config.n_dimensions, self.config.dropout
        )

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        assert isinstance(network, BLEEPNetwork)
        config = self.config
        load_weights(network.image_encoder, config.encoder, config.weights, run)
        given = scaling(config.pixels, config.encoder)
        note_foreign_input(run, self.name, config.encoder, *given, self.input_px, config.pooling, "pixels")

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        # with augment_at_test the published code augments the validation spots, too
        generator = batch.generator if network.training or config.augment_at_test else None
        images = encoder_input(batch.patches, config.pixels, config.augmentation, generator, config.encoder)
        spots, images = network(images, batch.target)
        z = logits(spots, images, config.temperature)
        if config.targets == "one-hot":
            return {"loss": one_hot_loss(z), "matched": matched(z)}
        targets = soft_targets(spots, images, config.temperature, config.temperature_form)
        loss = soft_loss(z, targets.detach() if config.targets == "detached" else targets)
        return {"loss": loss, "matched": matched(z)}

    def optimiser(self, network: nn.Module, device: torch.device) -> tuple[torch.optim.Optimizer, None]:
        return torch.optim.AdamW(
            network.parameters(), self.config.lr, weight_decay=self.config.weight_decay, fused=True
        ), None

    def validation_spots(self, data: TrainingData, run: Run) -> Tensor | None:
        if self.config.validation == "none":
            return None
        if self.config.validation == "slice":
            if data.n_slides == 1:
                raise UserError("bleep.validation=slice needs two training slides or more - use bleep.validation=spots")
            return torch.arange(data.offsets[-2], data.offsets[-1])
        held_out = random_fifth(data.n_spots)
        if len(held_out) == data.n_spots:
            run.note("bleep: a single training spot cannot be split: the last epoch's weights are kept")
            return None
        return held_out

    def finish(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        assert isinstance(network, BLEEPNetwork)
        keys = network.embed_spots(data.target).float()
        self.extras = {"keys": keys, "values": data.target}
        self.diagnostics = diagnose(self, self.config.k, keys, partial(self._queries, network), data, run)

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        assert isinstance(network, BLEEPNetwork)
        keys, values, config = self.extras["keys"], self.extras["values"], self.config
        queries = self._queries(network, batch.patches)
        return retrieve(queries, keys, values, config.k, config.aggregation, config.distance)

    def reconfigure(self, config: BLEEPConfig, run: Run) -> None:
        super().reconfigure(config, run)
        note_neighbours(self.name, config.k, len(self.extras["keys"]), run)

    def _queries(self, network: BLEEPNetwork, patches: Tensor) -> Tensor:
        config = self.config
        images = input_at_test(patches, config.pixels, config.augmentation, config.augment_at_test, config.encoder)
        return network.embed_images(images).float()


def random_fifth(n_spots: int) -> Tensor:
    """The published validation spots: what is left of a random order (CPU generator, seed 42) after the first 80 %."""
    order = torch.randperm(n_spots, generator=torch.Generator().manual_seed(SPLIT_SEED))
    return order[int(TRAINING_SHARE * n_spots) :]
