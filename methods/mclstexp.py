"""mclSTExp (Min et al. 2024): one space for patches and for spots mixed by self-attention, and retrieval there.

A test patch's expression is the distance-weighted mean of the expression of its nearest training spots. Source: the
paper with its supplement, and the released code; where they differ, the fields of :class:`MclSTExpConfig` say who does
what.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from pydantic import Field, model_validator
from torch import Tensor, nn

from stbench.errors import UserError
from stbench.method import LeakedSlide, Needs, Run, TestSlide
from stbench.system.precision import autocast, float32, no_autocast, tf32_flags
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
from stbench.training.encoders import Pooling, build_encoder, load_weights
from stbench.training.patch_bank import PatchBank
from stbench.training.windows import Padding

from .layers.contrastive import ProjectionHead, logits, matched, one_hot_loss
from .layers.pixels import Augmentation, PixelScale, encoder_input, input_at_test, scaling
from .layers.retrieval import Distance, diagnose, note_neighbours, retrieve
from .layers.transformer import TransformerBlock

if TYPE_CHECKING:
    from torchvision.models import DenseNet

PositionEncoding = Literal["learnable", "sinusoidal", "naive", "none"]
KeyContext = Literal["chunks", "slice", "straddling", "straddling-test"]


class LearnablePositions(nn.Module):
    """One learnable row of ``width`` numbers per integer coordinate, for x and for y: the published form.

    The same as one-hot coordinates times a linear map, as the paper writes it. Coordinates are local to a slice, so
    equal ones on different slices share a row; rows that no training spot has only ever decay.
    """

    def __init__(self, n_positions: int, width: int) -> None:
        super().__init__()
        self.x_embed = nn.Embedding(n_positions, width)
        self.y_embed = nn.Embedding(n_positions, width)

    def forward(self, positions: Tensor, slide: Tensor | None = None) -> Tensor:
        index = positions.long()
        return self.x_embed(index[..., 0]) + self.y_embed(index[..., 1])


class SinusoidalPositions(nn.Module):
    """Sines and cosines of x in the first half of the channels, of y in the rest. Ours: the paper only names it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, positions: Tensor, slide: Tensor | None = None) -> Tensor:
        x, y = positions.float().unbind(-1)
        return torch.cat([waves(x, self.width // 2), waves(y, self.width - self.width // 2)], dim=-1)


def waves(coordinate: Tensor, n: int) -> Tensor:
    """(..., n): sines and cosines in turn, of wavelengths from 2π to 2π · 10,000 (Vaswani et al. 2017, section 3.5)."""
    channel = torch.arange(n, device=coordinate.device)
    angle = coordinate[..., None] * 10_000.0 ** (-2 * (channel // 2) / n)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos())


class NaivePositions(nn.Module):
    """LayerNorm(ReLU(linear(x, y))) of each slide's coordinates scaled into [0, 1]. Ours: the paper only names it."""

    origin: Tensor
    extent: Tensor

    def __init__(self, n_slides: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2, width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("origin", torch.zeros(n_slides, 2))  # smallest x and y of each training slide
        self.register_buffer("extent", torch.ones(n_slides, 1))  # the larger of its width and height

    def measure(self, positions: Sequence[Tensor]) -> None:
        """Take origin and extent from the (n_spots, 2) positions of each training slide."""
        for i, of_slide in enumerate(positions):
            low, high = of_slide.float().aminmax(dim=0)
            self.origin[i], self.extent[i] = low, (high - low).max().clamp_min(1)

    def forward(self, positions: Tensor, slide: Tensor) -> Tensor:
        unit = (positions.float() - self.origin[slide]) / self.extent[slide]
        return self.norm(F.relu(self.linear(unit)))


class SignedDenseNet(nn.Module):
    """A torchvision DenseNet without classifier, and without the ReLU that its forward puts after the last BatchNorm.

    mclSTExp keeps the feature module alone, so its image features are signed. Parameter names are torchvision's.
    """

    def __init__(self, densenet: DenseNet) -> None:
        super().__init__()
        self.features = densenet.features

    def forward(self, images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(self.features(images), 1).flatten(1)


class MclSTExpNetwork(nn.Module):
    """Two branches into one space: patch -> encoder -> head, and spots (expression + position) -> Transformer -> head.

    ``image_encoder`` maps images to (n, ``n_features``); ``positions`` maps (..., n, 2) coordinates and (..., n) slide
    indices to (..., n, ``n_genes``). The n spots of a sequence attend to each other: a spot's embedding depends on its
    company.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        n_features: int,
        positions: nn.Module | None,
        n_genes: int,
        n_dimensions: int = 256,
        heads: int = 8,
        head_width: int = 64,
        layers: int = 2,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.image_encoder = image_encoder
        blocks = [TransformerBlock(n_genes, n_genes, heads, head_width) for _ in range(layers)]
        if heads == 1 and head_width == n_genes:  # the published block then has no output projection
            for block in blocks:
                block.out = nn.Identity()  # type: ignore[assignment]
        self.spot_encoder = nn.Sequential(*blocks)
        self.image_projection = ProjectionHead(n_features, n_dimensions)
        self.spot_projection = ProjectionHead(n_genes, n_dimensions)

    def embed_images(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, d)."""
        return self.image_projection(self.image_encoder(images))

    def place(self, expression: Tensor, positions: Tensor, slide: Tensor | None = None) -> Tensor:
        """(..., n, G) expression with its position added: z of the paper."""
        return expression if self.positions is None else expression + self.positions(positions, slide)

    def embed_spots(self, expression: Tensor, positions: Tensor, slide: Tensor | None = None) -> Tensor:
        """(..., n, G) and (..., n, 2) -> (..., n, d): the n spots are one sequence."""
        return self.spot_projection(self.spot_encoder(self.place(expression, positions, slide)))

    def forward(
        self, images: Tensor, expression: Tensor, positions: Tensor, slide: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """(n, d) spot and (n, d) image embeddings of a batch: the whole batch is one sequence, whatever its slides."""
        return self.embed_spots(expression, positions, slide), self.embed_images(images)


class ImageRegression(nn.Module):
    """The image branch alone, and a linear layer from its embedding to genes: no contrast, no retrieval."""

    def __init__(self, image_encoder: nn.Module, n_features: int, n_genes: int, n_dimensions: int = 256) -> None:
        super().__init__()
        self.image_encoder = image_encoder
        self.image_projection = ProjectionHead(n_features, n_dimensions)
        self.head = nn.Linear(n_dimensions, n_genes)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, side, side) -> (n, G)."""
        embedding = self.image_projection(self.image_encoder(images))
        with no_autocast(embedding.device):
            return self.head(float32(embedding))


class FrozenEncoder(nn.Module):
    """An encoder that is not trained: no gradients, and its BatchNorm keeps the statistics that it came with."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)

    def train(self, mode: bool = True) -> FrozenEncoder:
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)


class MclSTExpConfig(EncoderConfig, SpotBatchConfig, TorchConfig):
    """Defaults are the released code's on HER2+, but for the faults that the descriptions name."""

    epochs: int = Field(90, ge=1, description="passes over the training slides; 15 on Alex+10x (supplement)")
    lr: float = Field(1e-4, gt=0, description="learning rate")
    batch_size: int = Field(128, ge=1, description="spots in a batch; they are one sequence of the spot encoder")
    optimiser: Literal["adam", "adamw"] = Field("adam", description="adam: L2 in the gradient (code); adamw (text)")
    weight_decay: float = Field(1e-3, ge=0, description="weight decay; it reaches every row of the position tables")
    encoder: str = Field("densenet121", description="also in the paper: resnet50, vit_base_patch32_224")
    pooling: Pooling = Field(
        "average",
        description="of the encoder's last features: the average, a ViT's too (code); native: its class token",
    )
    freeze_encoder: bool = Field(False, description="train all but the image encoder; not so as published")
    objective: Literal["contrastive", "regression"] = Field(
        "contrastive",
        description="regression: no spot branch and no retrieval; a linear layer on the image embedding, squared error",
    )
    last_relu: bool = Field(
        False, description="DenseNet only: the ReLU after its last BatchNorm, which the code leaves out"
    )
    padding: Padding = Field(
        "black",
        description="colour of what lies outside the image in a window at its border: black as PIL crops (code)",
    )
    pixels: PixelScale = Field(
        "unit",
        description="RGB in [0, 1] without mean and deviation (code); imagenet; bgr-255 (code on Alex+10x)",
    )
    augmentation: Augmentation = Field(
        "jitter-flip-rotate", description="of training patches; flip-quarter-turns is the code's on Alex+10x"
    )
    augment_at_test: bool = Field(False, description="augment the test patches too, as the code does on Alex+10x")
    expression: Literal["target", "spot-log10-cp10k", "none"] = Field(
        "target",
        description="what the spot encoder sees: the target, or, whatever that is, the code's scale on HER2+ and cSCC;"
        " none: the spot's position alone",
    )
    position_encoding: PositionEncoding = Field(
        "learnable", description="learnable tables (published); sinusoidal and naive are our reading of Table S4; none"
    )
    n_positions: int = Field(65_536, ge=1, description="rows of each position table")
    coordinates: Literal["array", "pixel"] = Field(
        "array", description="array column and row (code on HER2+ and cSCC); pixel row and column (code on Alex+10x)"
    )
    n_dimensions: int = Field(256, ge=1, description="size D of the shared space")
    layers: int = Field(2, ge=0, description="blocks of the spot encoder")
    heads: int = Field(8, ge=1, description="its attention heads")
    head_width: int = Field(64, ge=1, description="width of a head")
    temperature: float = Field(1.0, gt=0, description="divides the similarity; fixed (code)")
    normalise: bool = Field(False, description="cosine in the loss (text) in place of the plain dot product (code)")
    balance: float = Field(0.5, ge=0, le=1, description="λ of Table S7: share of the image term in the loss")
    k: int = Field(200, ge=1, description="neighbours; code 200, 600 on cSCC, 200; text 200, 200, 2400 on Alex+10x")
    distance: Distance = Field(
        "l2", description="weight = distance^-2: l2 (text; code but on HER2+), l1 (code, HER2+), cosine"
    )
    key_context: KeyContext = Field(
        "chunks",
        description="who attends to whom when keys are made: runs of key_chunk spots inside a training slice; the whole"
        " slice; straddling: runs across the borders of training slices; straddling-test: across the test slice's too,"
        " as the code does: keys then attend to the expression that is to be predicted, a leak that is labelled",
    )
    key_chunk: int = Field(32, ge=1, description="spots in a run (code: 32)")
    validation: Literal["none", "slice"] = Field(
        "none", description="none: the last epoch's weights (code); slice: the best epoch's on the last training slice"
    )

    @model_validator(mode="after")
    def _spots_differ(self) -> Self:
        if self.objective == "contrastive" and self.expression == "none" and self.position_encoding == "none":
            raise ValueError("expression = none needs a position_encoding, or all spots are the same")
        if self.key_context == "straddling-test" and self.position_encoding == "naive":
            raise ValueError("key_context = straddling-test needs a position_encoding that is not scaled by slide")
        return self


class MclSTExp(TorchMethod):
    """mclSTExp as a method of the benchmark: keys and values come from the training slices alone."""

    name = "mclstexp"
    title = "mclSTExp"
    Config = MclSTExpConfig
    batching = "spots"
    inference_fields = frozenset({"k", "distance", "augment_at_test"})
    switches = "stbench.methods.switches.mclstexp:SWITCHES"
    safe_precisions = frozenset({"fp32", "tf32"})  # bf16 changes who is whose neighbour
    readings = "stbench.methods.readings.mclstexp:READINGS"
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "published/alex10x": {"epochs": 15, "coordinates": "pixel"},
        "released": {"expression": "spot-log10-cp10k", "key_context": "straddling-test"},
        "released/her2st": {"distance": "l1"},
        "released/cscc": {"k": 600},
        "released/alex10x": {
            "coordinates": "pixel",
            "expression": "target",
            "pixels": "bgr-255",
            "augmentation": "flip-quarter-turns",
            "augment_at_test": True,
        },
        "paper": {"optimiser": "adamw", "normalise": True, "key_chunk": 128},
        "paper/alex10x": {"epochs": 15, "coordinates": "pixel", "k": 2400},
        # timm's smallest ResNet (0.4 M parameters) learns from few epochs where the colours of the stain are kept
        "quick": {
            "epochs": 16,
            "lr": 1e-3,
            "encoder": "test_resnet",
            "weights": "random",  # so that it runs without a network; every number is labelled
            "input_px": 48,
            "batch_size": 64,
            "augmentation": "flip-quarter-turns",
            "n_positions": 256,
            "n_dimensions": 128,
            "k": 50,
        },
        "quick/demo": {"input_px": 40, "epochs": 8, "lr": 1.5e-3},
    }
    config: MclSTExpConfig
    diagnostics: dict[str, float]  # what the alarms look at, after fit

    def describe(self, data: TrainingData) -> dict[str, Any]:
        if self.config.objective == "regression":
            return {"n_genes": data.n_genes}
        self._refuse_positions_outside_the_table(data)
        return {"n_genes": data.n_genes, "n_slides": data.n_slides}

    def network(self, shape: Mapping[str, Any]) -> MclSTExpNetwork | ImageRegression:
        from torchvision.models import DenseNet  # slow to import: only who builds a network waits for it

        config, n_genes = self.config, int(shape["n_genes"])
        encoder = build_encoder(config.encoder, pooling=config.pooling, input_px=self.input_px)
        module = encoder.module
        if isinstance(module, DenseNet) and not config.last_relu:
            module = SignedDenseNet(module)
        if config.freeze_encoder:
            module = FrozenEncoder(module)
        if config.objective == "regression":
            return ImageRegression(module, encoder.n_features, n_genes, config.n_dimensions)
        positions: nn.Module | None = None
        if config.position_encoding == "learnable":
            positions = LearnablePositions(config.n_positions, n_genes)
        elif config.position_encoding == "sinusoidal":
            positions = SinusoidalPositions(n_genes)
        elif config.position_encoding == "naive":
            positions = NaivePositions(int(shape["n_slides"]), n_genes)
        return MclSTExpNetwork(
            module,
            encoder.n_features,
            positions,
            n_genes,
            config.n_dimensions,
            config.heads,
            config.head_width,
            config.layers,
        )

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        assert isinstance(network, MclSTExpNetwork | ImageRegression)
        frozen = network.image_encoder
        encoder = frozen.encoder if isinstance(frozen, FrozenEncoder) else frozen
        config = self.config
        load_weights(encoder, config.encoder, config.weights, run)
        given = scaling(config.pixels, config.encoder)
        note_foreign_input(run, self.name, config.encoder, *given, self.input_px, config.pooling, "pixels")
        if isinstance(network, ImageRegression):
            # retrieval averages what it has seen; a regression that had to find the genes' level first would lose by it
            with torch.no_grad():
                network.head.bias.copy_(data.training_mean(data.target))
        elif isinstance(network.positions, NaivePositions):
            positions = self._positions(data)
            network.positions.measure([positions[spots].cpu() for spots in data.whole_slides()])

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        generator = batch.generator if network.training else None
        images = encoder_input(batch.patches, config.pixels, config.augmentation, generator, config.encoder)
        if config.objective == "regression":
            return {"loss": F.mse_loss(network(images).float(), batch.target)}
        spots, images = network(images, self._expression(batch), self._positions(batch), batch.slide)
        z = logits(spots, images, config.temperature, normalise=config.normalise)
        return {"loss": one_hot_loss(z, config.balance), "matched": matched(z)}

    def optimiser(self, network: nn.Module, device: torch.device) -> tuple[torch.optim.Optimizer, None]:
        algorithm = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.config.optimiser]
        return algorithm(network.parameters(), self.config.lr, weight_decay=self.config.weight_decay, fused=True), None

    def validation_spots(self, data: TrainingData, run: Run) -> Tensor | None:
        if self.config.validation == "none":
            return None
        if data.n_slides == 1:
            raise UserError(
                "mclstexp.validation=slice needs two training slides or more - use mclstexp.validation=none"
            )
        return torch.arange(data.offsets[-2], data.offsets[-1])

    @property
    def needs(self) -> Needs:
        if self.config.key_context != "straddling-test" or self.config.objective == "regression":
            return super().needs
        return Needs(
            leak=f"keys are made in runs of {self.config.key_chunk} spots across the borders of all slices, the test "
            "slice among them, so keys next to it in the dataset's order attend to its true expression"
        )

    def finish(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        if self.config.objective == "regression":
            return
        assert isinstance(network, MclSTExpNetwork)
        sequences = key_sequences(data.offsets, self.config.key_context, self.config.key_chunk)
        expression, positions = self._expression(data), self._positions(data)
        keys = torch.cat(
            [network.embed_spots(expression[spots], positions[spots], data.slide[spots]) for spots in sequences]
        ).float()
        self.extras = {"keys": keys, "values": data.target}
        if self.needs.leak:  # a test slide's company changes the keys: what they are made of is kept
            offsets = torch.tensor(data.offsets, device=keys.device)
            self.extras |= {"expression": expression, "positions": positions, "offsets": offsets}
        self.diagnostics = diagnose(self, self.config.k, keys, partial(self._queries, network), data, run)

    keys_beside: Tensor | None = None  # while a test slide that leaks into them is predicted

    def predict(self, slide: TestSlide) -> np.ndarray:
        if not self.needs.leak:
            return super().predict(slide)
        if not isinstance(slide, LeakedSlide):
            raise UserError(
                "mclstexp.key_context = straddling-test needs the test slide's expression, which only the harness gives"
                " - run it by 'stbench run', or use mclstexp.key_context=straddling"
            )
        try:
            self.keys_beside = self._keys_beside(slide)
            return super().predict(slide)
        finally:
            self.keys_beside = None

    def _keys_beside(self, slide: LeakedSlide) -> Tensor:
        """(n_training_spots, d): the training spots' keys as the released evaluation makes them, in runs that are cut
        from all slices in the dataset's order, the test slice at its place among them: the leak.
        """
        network, device = self._network_and_device()
        assert isinstance(network, MclSTExpNetwork)
        truth = TrainingData([slide.truth], PatchBank([slide.truth], 2, device=device, resident=False))
        place = int(self.extras["offsets"][slide.place])
        with torch.inference_mode(), tf32_flags(self.precision), autocast(device, self.precision):
            expression, positions = (
                torch.cat([ours[:place], theirs, ours[place:]])
                for ours, theirs in (
                    (self.extras["expression"], self._expression(truth)),
                    (self.extras["positions"], self._positions(truth)),
                )
            )
            runs = expression.split(self.config.key_chunk), positions.split(self.config.key_chunk)
            keys = torch.cat([network.embed_spots(*run) for run in zip(*runs, strict=True)]).float()
        return torch.cat([keys[:place], keys[place + slide.truth.n_spots :]])

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        if isinstance(network, ImageRegression):
            return network(self._test_images(batch.patches))
        assert isinstance(network, MclSTExpNetwork)
        queries = self._queries(network, batch.patches)
        keys, values = self.extras["keys"], self.extras["values"]
        keys = keys if self.keys_beside is None else self.keys_beside
        return retrieve(queries, keys, values, self.config.k, distance=self.config.distance)

    def reconfigure(self, config: MclSTExpConfig, run: Run) -> None:
        super().reconfigure(config, run)
        if config.objective == "contrastive":
            note_neighbours(self.name, config.k, len(self.extras["keys"]), run)

    def _queries(self, network: MclSTExpNetwork, patches: Tensor) -> Tensor:
        return network.embed_images(self._test_images(patches)).float()

    def _test_images(self, patches: Tensor) -> Tensor:
        config = self.config
        return input_at_test(patches, config.pixels, config.augmentation, config.augment_at_test, config.encoder)

    def _expression(self, spots: Batch | TrainingData) -> Tensor:
        if self.config.expression == "target":
            return spots.target
        if self.config.expression == "none":
            return torch.zeros_like(spots.target)
        counts = spots.counts.float()
        return torch.log10(1 + 1e4 * counts / counts.sum(dim=1, keepdim=True).clamp_min(1))

    def _positions(self, spots: Batch | TrainingData) -> Tensor:
        """(n, 2): array column and row, or pixel row and column, as the published loaders of either kind of data do."""
        return spots.array_xy if self.config.coordinates == "array" else spots.pixel_xy.flip(1).trunc()

    def _refuse_positions_outside_the_table(self, data: TrainingData) -> None:
        if self.config.position_encoding != "learnable":
            return
        low, high = self._positions(data).aminmax()
        if low < 0 or high >= self.config.n_positions:
            raise UserError(
                f"mclstexp: {self.config.coordinates} coordinates run from {int(low)} to {int(high)}, and the position"
                f" tables have rows 0 to {self.config.n_positions - 1} - raise mclstexp.n_positions, or choose another"
                " mclstexp.position_encoding"
            )


def key_sequences(offsets: Sequence[int], context: KeyContext, chunk: int) -> list[slice]:
    """Which spots of concatenated slides share a sequence when keys are made; slide i is offsets[i]:offsets[i + 1].

    Every spot is in exactly one sequence. ``straddling`` cuts the concatenation itself, so that a run of ``chunk``
    spots may hold two slices' spots, which then attend to each other. ``straddling-test`` does the same for the
    training slices alone; the test slice takes its place among them when it is predicted.
    """
    straddling = context in ("straddling", "straddling-test")
    borders = [offsets[0], offsets[-1]] if straddling else list(offsets)
    sequences = []
    for start, stop in itertools.pairwise(borders):
        step = stop - start if context == "slice" else chunk
        sequences += [slice(first, min(first + step, stop)) for first in range(start, stop, step)]
    return sequences
