"""Hist2ST (Zeng et al. 2022; written His2ST in mclSTExp's paper): convolutional mixer, Transformer over all spots of a
slide, neighbourhood averaging on the spot graph, and an LSTM over the graph layers.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from stbench.errors import UserError
from stbench.method import Run, TestSlide, TrainingSlide
from stbench.system.precision import float32, no_autocast
from stbench.torch_method import Batch, TestBatch
from stbench.training.batches import TrainingData

from .layers.copies import augmented_copies
from .layers.geometric import mean_of_neighbours
from .layers.spot_graph import Prune, isolated_spots, nearest_spots, with_self
from .layers.transformer import TransformerBlock
from .layers.whole_slide import WholeSlideConfig, WholeSlideMethod, WholeSlideNetwork

log = logging.getLogger("stbench")


class Mixer(nn.Module):
    """Two depthwise convolutions with a skip connection, then a pointwise one; maps ``(n, channels, h, w)`` keep their
    shape.

    timm's ConvMixer has one depthwise convolution and GELU before BatchNorm throughout; the published order is mixed.
    """

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.depthwise1 = nn.Conv2d(channels, channels, kernel, padding="same", groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise2 = nn.Conv2d(channels, channels, kernel, padding="same", groups=channels)
        self.norm2 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm3 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mixed = F.gelu(self.norm1(self.depthwise1(x)))
        mixed = F.gelu(self.norm2(self.depthwise2(mixed)))
        return self.norm3(F.gelu(self.pointwise(x + mixed)))


class ZINB(NamedTuple):
    """Parameters of a zero-inflated negative binomial per spot and gene, each ``(..., n_spots, n_genes)``."""

    mean: torch.Tensor
    dispersion: torch.Tensor
    dropout: torch.Tensor


class ZINBHeads(nn.Module):
    """Three linear heads on a spot's hidden state. Exponentials and logarithms of counts need float32, also under
    autocast.
    """

    def __init__(self, width: int, n_genes: int) -> None:
        super().__init__()
        self.mean = nn.Linear(width, n_genes)
        self.disp = nn.Linear(width, n_genes)
        self.pi = nn.Linear(width, n_genes)

    def forward(self, hidden: torch.Tensor) -> ZINB:
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.mean.weight.dtype)
            return ZINB(
                mean=self.mean(hidden).exp().clamp(1e-5, 1e6),
                dispersion=F.softplus(self.disp(hidden)).clamp(1e-4, 1e4),
                dropout=torch.sigmoid(self.pi(hidden)),
            )


class NB(NamedTuple):
    """Parameters of a negative binomial per spot and gene: logarithm of the dispersion, and logit of the
    probability.
    """

    log_dispersion: torch.Tensor
    logit: torch.Tensor


class NBHeads(nn.Module):
    """The published ``nb`` variant: two linear heads on a spot's hidden state, in float32."""

    def __init__(self, width: int, n_genes: int) -> None:
        super().__init__()
        self.r = nn.Linear(width, n_genes)
        self.p = nn.Linear(width, n_genes)

    def forward(self, hidden: torch.Tensor) -> NB:
        with torch.autocast(hidden.device.type, enabled=False):
            hidden = hidden.to(self.r.weight.dtype)
            return NB(self.r(hidden), self.p(hidden))


class Output(NamedTuple):
    prediction: torch.Tensor  # (n_spots, n_genes), from the gene head: what the published evaluation scores
    hidden: torch.Tensor  # (n_spots, width)
    zinb: ZINB | None
    nb: NB | None
    copies: torch.Tensor | None  # (copies, n_spots, n_genes): the prediction from each augmented copy
    scores: torch.Tensor | None  # (copies, n_spots, 1): how much the teacher trusts each


class Hist2STNetwork(WholeSlideNetwork):
    """Patches, array positions and the spot graph -> hidden states of the spots, from which the heads read.

    The model's width is ``(side // patch) ** 2 * channels // 8``: the reduced feature map, flattened channel by
    channel.
    """

    def __init__(
        self,
        side: int,
        n_genes: int,
        n_positions: int = 64,
        patch: int = 7,
        channels: int = 32,
        kernel: int = 5,
        n_mixers: int = 2,
        n_layers: int = 8,
        n_graph_layers: int = 4,
        heads: int = 16,
        head_width: int = 64,
        dropout: float = 0.2,
        counts_likelihood: str = "zinb",
        with_scorer: bool = True,
    ) -> None:
        super().__init__()
        reduced = channels // 8
        width = (side // patch) ** 2 * reduced
        self.patch_embedding = nn.Conv2d(3, channels, patch, stride=patch)
        self.dropout = nn.Dropout(dropout)
        self.mixers = nn.Sequential(*(Mixer(channels, kernel) for _ in range(n_mixers)))
        self.reduction = nn.Conv2d(channels, reduced, 1)
        self.x_embedding = nn.Embedding(n_positions, width)
        self.y_embedding = nn.Embedding(n_positions, width)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, width, heads, head_width, dropout) for _ in range(n_layers))
        )
        # the published layer is the neighbours' mean alone: no weight for the spot itself, no bias
        layers = [mean_of_neighbours(width) for _ in range(n_graph_layers)]
        for layer in layers:
            nn.init.xavier_uniform_(layer.lin_l.weight)
        self.neighbourhoods = nn.ModuleList(layers)
        # torch-geometric's JumpingKnowledge("lstm") is bidirectional and attends over layers: another function
        self.across_layers = nn.LSTM(width, width, num_layers=2)
        self.zinb = ZINBHeads(width, n_genes) if counts_likelihood == "zinb" else None
        self.nb = NBHeads(width, n_genes) if counts_likelihood == "nb" else None
        self.scorer = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)) if with_scorer else None
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_genes))

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """``(n_spots, 3, side, side)`` -> ``(n_spots, width)``. In training mode the slide is the BatchNorm's batch."""
        return self.part(self._embed, patches)

    def _embed(self, patches: torch.Tensor) -> torch.Tensor:
        return self.reduction(self.mixers(self.dropout(self.patch_embedding(patches)))).flatten(1)

    def relate(self, tokens: torch.Tensor, array_xy: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """Tokens ``(..., n_spots, width)`` of one slide, or of several copies of it, -> hidden states of the same
        shape.
        """
        x = self.attended(tokens + self.x_embedding(array_xy[:, 0]) + self.y_embedding(array_xy[:, 1]))
        # averages of neighbours, normalised again and again, leave differences between spots that bf16 does not resolve
        with no_autocast(x.device):
            x = float32(x)
            layers = [] if len(self.neighbourhoods) else [x]
            for neighbourhood in self.neighbourhoods:
                x = F.normalize(F.relu(neighbourhood(x, edges)), dim=-1)
                layers.append(x)
            steps, _ = self.across_layers(torch.stack(layers).flatten(1, -2))
            return steps.mean(dim=0).view_as(x)

    def trust(self, hidden: torch.Tensor) -> torch.Tensor | None:
        """The scorer of hidden states, in float32 as the head; ``None`` without one."""
        with no_autocast(hidden.device):
            return None if self.scorer is None else self.scorer(float32(hidden))

    def forward(self, views: Sequence[torch.Tensor], array_xy: torch.Tensor, edges: torch.Tensor) -> Output:
        """``views``: the slide's patches, each ``(n_spots, 3, side, side)``; first as they are, then augmented copies
        if any.

        The copies pass the convolutions one after the other, since each is a batch of its own to BatchNorm, and the
        rest of the network together.
        """
        hidden = self.relate(torch.stack([self.embed(view) for view in views]), array_xy, edges)
        predictions = self.genes(hidden)
        copies = len(views) > 1
        if copies and self.scorer is None:
            raise ValueError("copies need a scorer: build the network with_scorer")
        return Output(
            prediction=predictions[0],
            hidden=hidden[0],
            zinb=self.zinb(hidden[0]) if self.zinb is not None else None,
            nb=self.nb(hidden[0]) if self.nb is not None else None,
            copies=predictions[1:] if copies else None,
            scores=self.trust(hidden[1:]) if copies else None,
        )


def zinb_loss(
    counts: torch.Tensor, zinb: ZINB, size_factors: torch.Tensor, log_factorials: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean negative log-likelihood of raw counts ``(n_spots, n_genes)``; ``size_factors`` ``(n_spots,)`` multiply the
    mean. ``log_factorials``: ln(c!) of the counts, where they are known.
    """
    epsilon = 1e-10
    mean, theta, pi = zinb.mean * size_factors[:, None], zinb.dispersion, zinb.dropout
    if log_factorials is None:
        log_factorials = torch.lgamma(counts + 1)
    normaliser = torch.lgamma(theta + epsilon) + log_factorials - torch.lgamma(counts + theta + epsilon)
    rate = (theta + counts) * torch.log1p(mean / (theta + epsilon))
    rate = rate + counts * (torch.log(theta + epsilon) - torch.log(mean + epsilon))
    present = normaliser + rate - torch.log(1 - pi + epsilon)
    zero = torch.pow(theta / (theta + mean + epsilon), theta)
    absent = -torch.log(pi + (1 - pi) * zero + epsilon)
    return torch.where(counts <= 1e-8, absent, present).mean()


def nb_loss(counts: torch.Tensor, nb: NB) -> torch.Tensor:
    """The published ``nb`` variant: without the constant ln(c!) and size factors, summed over genes, averaged over
    spots.
    """
    dispersion = nb.log_dispersion.exp()
    likelihood = (
        torch.lgamma(counts + dispersion)
        - torch.lgamma(dispersion)
        + counts * F.logsigmoid(nb.logit)
        + dispersion * F.logsigmoid(-nb.logit)
    )
    return -likelihood.sum(dim=-1).mean()


def distil(predictions: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """The teacher ``(n_spots, n_genes)``: copies' predictions ``(copies, n_spots, n_genes)`` weighted per spot by a
    softmax of their scores ``(copies, n_spots, 1)`` over the copies.
    """
    return (scores.softmax(dim=0) * predictions).sum(dim=0)


def size_factors(counts: np.ndarray) -> np.ndarray:
    """(n_spots,) float64: each spot's panel total over the slide's median panel total; 0 for an empty spot.

    Where most spots are empty the published 0 / 0 would spread: the totals themselves are taken.
    """
    totals = counts.sum(axis=1)
    return totals / (np.median(totals) or 1)


class Hist2ST(WholeSlideMethod):
    name: ClassVar[str] = "hist2st"
    title: ClassVar[str] = "Hist2ST"
    switches: ClassVar[str] = "stbench.methods.switches.hist2st:SWITCHES"
    safe_precisions = frozenset({"fp32", "bf16"})  # tf32 moves it by 0.055 of what exchanging patches does
    inference_fields = frozenset({"predict_from"})
    readings: ClassVar[str] = "stbench.methods.readings.hist2st:READINGS"

    class Config(WholeSlideConfig):
        """Defaults are those of the published script and tutorial."""

        epochs: int = Field(350, ge=1, description="passes over the training slides (script and tutorial)")
        lr: float = Field(1e-5, gt=0, description="learning rate of Adam")
        lr_step: int = Field(50, ge=1, description="epochs after which the learning rate is multiplied by lr_decay")
        lr_decay: float = Field(0.9, gt=0, le=1, description="see lr_step")
        input_px: int | None = Field(
            112, ge=2, description="side of the image that the network sees (fig_size); the window is resized to it"
        )
        patch: int = Field(7, ge=1, description="side and stride of the first convolution")
        channels: int = Field(32, ge=8, description="channels of the mixer; an eighth of them is kept after it")
        kernel: int = Field(5, ge=1, description="side of the depthwise convolutions")
        n_mixers: int = Field(2, ge=0, description="mixer blocks (depth1)")
        n_layers: int = Field(8, ge=0, description="Transformer blocks (depth2)")
        n_graph_layers: int = Field(
            4,
            ge=0,
            description="neighbourhood layers (depth3); with 0 the LSTM reads the Transformer's output alone",
        )
        heads: int = Field(16, ge=1, description="attention heads")
        head_width: int = Field(64, ge=1, description="width of an attention head (fixed in the published code)")
        dropout: float = Field(
            0.2, ge=0, lt=1, description="dropout after the first convolution and in the Transformer"
        )
        k: int = Field(4, ge=1, description="nearest spots on the array that a spot receives from")
        prune: Prune = Field(
            "none",
            description="grid: drop neighbours farther than max_distance, as published for HER2+; none elsewhere",
        )
        max_distance: float = Field(2.0, gt=0, description="in array positions; see prune")
        isolated: Literal["zero", "self", "error"] = Field(
            "zero",
            description="a spot without neighbours receives nothing, receives itself, or stops the run. The published "
            "code divides 0 by 0, and every spot of the slide becomes NaN",
        )
        include_self: bool = Field(
            False, description="a spot is its own neighbour, as in GraphSAGE; not so as published"
        )
        counts_loss: Literal["zinb", "nb", "none"] = Field(
            "zinb",
            description="likelihood of raw counts beside the squared error (nb: a variant of the published code)",
        )
        counts_weight: float = Field(0.25, ge=0, description="weight of counts_loss (zinb in the published code)")
        copies: int = Field(
            5, ge=0, description="augmented copies of the slide that teach (bake in the published code)"
        )
        distillation_weight: float = Field(
            0.5, ge=0, description="weight of the distillation (lamb in the published code)"
        )
        per_spot_augment: bool = Field(
            False, description="draw each spot's augmentation; as published all share a copy's"
        )
        detach_teacher: bool = Field(
            False, description="no gradient through the teacher; as published it flows into both"
        )
        predict_from: Literal["head", "zinb_mean"] = Field(
            "head",
            description="head: trained by squared error, what the published code evaluates. zinb_mean: the expected "
            "counts, what the paper's abstract describes",
        )
        zinb_scale: Literal["log10-cp10k", "ln-cpm"] = Field(
            "log10-cp10k",
            description="scale of predictions from zinb_mean, to be the target's: log10(1 + 10,000 * share of the "
            "panel), or ln(1 + 1,000,000 * share)",
        )

        @model_validator(mode="after")
        def _consistent(self) -> Self:
            if self.predict_from == "zinb_mean" and self.counts_loss != "zinb":
                raise ValueError("predict_from = zinb_mean needs counts_loss = zinb")
            if (self.input_px or self.patch_px) < self.patch:
                raise ValueError(
                    f"patch = {self.patch} is larger than the image of {self.input_px or self.patch_px} px"
                )
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "published/her2st": {"prune": "grid"},
        "published/alex10x": {"n_pos": 128},  # Visium's columns reach 127
        "released": {},
        "released/her2st": {"prune": "grid"},
        "released/alex10x": {"n_pos": 128},
        "paper": {"patch_px": 224, "include_self": True, "predict_from": "zinb_mean", "zinb_scale": "ln-cpm"},
        "paper/her2st": {"prune": "grid"},
        "paper/alex10x": {"n_pos": 128},
        # Minutes for six sections on two CPU cores: every part of the network, but one mixer, one Transformer block
        # and two graph layers on 28-pixel patches (width 64), and one copy to learn from. With so few steps the
        # network would spend all of them on the genes' means, and its hidden states collapse: they start at the means
        # instead, the learning rate is 200 times the published one, and the counts pull less.
        "quick": {
            "epochs": 40,
            "lr": 2e-3,
            "lr_step": 20,
            "lr_decay": 0.5,
            "input_px": 28,
            "kernel": 3,
            "n_mixers": 1,
            "n_layers": 1,
            "n_graph_layers": 2,
            "heads": 4,
            "dropout": 0.0,
            "copies": 1,
            "counts_weight": 0.05,
            "pixel_scale": "imagenet",
            "start_at_mean": True,
        },
        "quick/demo": {"epochs": 28},
        "quick/her2st": {"prune": "grid"},
        "quick/alex10x": {"n_pos": 128},
    }

    def build(self, shape: Mapping[str, Any]) -> Hist2STNetwork:
        config = self.config
        return Hist2STNetwork(
            self.input_px,
            shape["n_genes"],
            shape["n_positions"],
            config.patch,
            config.channels,
            config.kernel,
            config.n_mixers,
            config.n_layers,
            config.n_graph_layers,
            config.heads,
            config.head_width,
            config.dropout,
            config.counts_loss,
            config.copies > 0,
        )

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        super().start(network, data, run)
        for slide in data.slides:
            alone = len(isolated_spots(self._nearest(slide), slide.n_spots))
            if alone:
                fate = "themselves" if self.config.isolated == "self" or self.config.include_self else "nothing"
                run.note(f"{alone} spots of slide {slide.id} have no neighbour and receive {fate} from the spot graph")
        if self.config.start_at_mean and isinstance(network, Hist2STNetwork) and network.zinb is not None:
            with torch.no_grad():
                mean = data.training_mean(data.counts.float()).clamp(min=1e-3)
                network.zinb.mean.bias.copy_((2 * mean).log())
        self._note_scale(run)

    def reconfigure(self, config: Config, run: Run) -> None:
        super().reconfigure(config, run)
        self._note_scale(run)

    def _note_scale(self, run: Run) -> None:
        if self.config.predict_from == "zinb_mean":
            scale = {"log10-cp10k": "log10(1 + 10,000", "ln-cpm": "ln(1 + 1,000,000"}[self.config.zinb_scale]
            run.note(f"predict_from = zinb_mean: predictions are on the scale {scale} * share of the panel)")

    def _nearest(self, slide: TestSlide) -> np.ndarray:
        return nearest_spots(slide.array_xy, self.config.k, self.config.prune, self.config.max_distance)

    def slide_constants(self, slide: TestSlide) -> dict[str, torch.Tensor]:
        edges = self._nearest(slide)
        alone = isolated_spots(edges, slide.n_spots)
        if self.config.include_self:
            edges = with_self(edges, np.arange(slide.n_spots))
        elif len(alone) and self.config.isolated == "error":
            raise UserError(
                f"{len(alone)} spots of slide {slide.id} have no neighbour within {self.config.max_distance:g} array"
                f" positions - set {self.name}.isolated to zero or self, or {self.name}.prune to none"
            )
        elif len(alone) and self.config.isolated == "self":
            edges = with_self(edges, alone)
        elif len(alone) and not isinstance(slide, TrainingSlide):  # start tells of those
            log.warning(
                "%s: %d spots of slide %s have no neighbour and receive nothing", self.name, len(alone), slide.id
            )
        constants = super().slide_constants(slide) | {"edges": torch.from_numpy(edges)}
        if isinstance(slide, TrainingSlide):
            constants["size_factors"] = torch.from_numpy(size_factors(slide.counts)).float()
            if self.config.counts_loss == "zinb":
                counts = torch.from_numpy(np.array(slide.counts)).float()
                constants |= {"counts": counts, "log_factorials": torch.lgamma(counts + 1)}
        return constants

    def optimiser(
        self, network: nn.Module, device: torch.device
    ) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
        adam, _ = super().optimiser(network, device)
        return adam, torch.optim.lr_scheduler.StepLR(adam, self.config.lr_step, self.config.lr_decay)

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Squared error of the gene head, likelihood of the raw counts, and distillation from augmented copies of the
        slide.
        """
        config = self.config
        images = self.training_pixels(network, batch)
        views = [images]
        if network.training:
            views += augmented_copies(images, config.copies, batch.generator, config.per_spot_augment)
        output: Output = network(views, batch.constants["positions"], batch.constants["edges"])
        prediction = output.prediction.float()
        losses = {"mse": F.mse_loss(prediction, batch.target)}
        total = losses["mse"]
        if output.zinb is not None:
            known = batch.constants
            losses["zinb"] = zinb_loss(known["counts"], output.zinb, known["size_factors"], known["log_factorials"])
            total = total + config.counts_weight * losses["zinb"]
        if output.nb is not None:
            losses["nb"] = nb_loss(batch.counts.float(), output.nb)
            total = total + config.counts_weight * losses["nb"]
        if output.copies is not None and output.scores is not None:
            teacher = distil(output.copies.float(), output.scores.float())
            losses["distillation"] = F.mse_loss(teacher.detach() if config.detach_teacher else teacher, prediction)
            total = total + config.distillation_weight * losses["distillation"]
        return {"loss": total} | losses

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> torch.Tensor:
        assert isinstance(network, Hist2STNetwork)
        hidden = network.relate(
            self.in_parts(network.embed, batch), batch.constants["positions"], batch.constants["edges"]
        )
        if self.config.predict_from == "head" or network.zinb is None:
            return network.genes(hidden)
        zinb = network.zinb(hidden)
        expected = (1 - zinb.dropout) * zinb.mean
        share = expected / expected.sum(dim=1, keepdim=True)
        if self.config.zinb_scale == "ln-cpm":
            return torch.log1p(1e6 * share)
        return torch.log10(1 + 1e4 * share)
