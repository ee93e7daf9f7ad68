"""THItoGene (Jia et al. 2023): dynamic convolution and capsules per patch, Transformer over all spots of a slide, graph
attention over neighbouring spots.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from stbench.method import Run, TestSlide
from stbench.system.precision import float32, no_autocast
from stbench.torch_method import Batch, TestBatch
from stbench.training.batches import TrainingData

from .layers.checkpointing import Parts
from .layers.geometric import scatter_sum, softmax_within
from .layers.spot_graph import nearest_spots, with_self
from .layers.transformer import TransformerBlock
from .layers.whole_slide import WholeSlideConfig, WholeSlideMethod, WholeSlideNetwork

Softmax = Literal["official", "neighbours"]
Convolution = Literal["dynamic", "plain"]
PatchFeatures = Literal["capsules", "pooled"]


class DynamicConvolution(nn.Module):
    """Omni-dimensional dynamic convolution: ``(n, 3, side, side)`` -> ``(n, filters, side // size, side // size)``.

    Four candidate kernels are mixed for each patch, and gated per input colour, output filter and place in the kernel,
    by what the whole patch looks like. Neither torchvision nor timm has it (timm's CondConv gates whole kernels only).
    """

    def __init__(self, filters: int = 16, size: int = 4, candidates: int = 4, hidden: int = 16) -> None:
        super().__init__()
        self.size = size
        self.candidates = candidates
        # the candidates' filters one after the other: a network of more than four dimensions cannot be made
        # channels-last
        self.weight = nn.Parameter(torch.empty(candidates * filters, 3, size, size))
        self.squeeze = nn.Conv2d(3, hidden, 1, bias=False)
        self.norm = nn.BatchNorm2d(hidden)
        self.channel = nn.Conv2d(hidden, 3, 1)
        self.filter = nn.Conv2d(hidden, filters, 1)
        self.spatial = nn.Conv2d(hidden, size * size, 1)
        self.kernel = nn.Conv2d(hidden, candidates, 1)
        for kernel in self.weight.chunk(candidates):
            nn.init.kaiming_normal_(kernel, mode="fan_out", nonlinearity="relu")
        for layer in (self.squeeze, self.channel, self.filter, self.spatial, self.kernel):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def gates(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Per patch: colours (n, 3), filters (n, filters) and places (n, size, size) in 0..1, kernels (n, candidates)
        summing to 1.
        """
        seen = F.relu(self._normalise(self.squeeze(patches.mean(dim=(2, 3), keepdim=True))))
        return (
            self.channel(seen).flatten(1).sigmoid(),
            self.filter(seen).flatten(1).sigmoid(),
            self.spatial(seen).flatten(1).sigmoid().unflatten(1, (self.size, self.size)),
            self.kernel(seen).flatten(1).softmax(dim=1),
        )

    def _normalise(self, seen: torch.Tensor) -> torch.Tensor:
        """BatchNorm; one patch has no statistics of its own, and takes the running ones in training too."""
        if self.training and len(seen) == 1:
            norm = self.norm
            return F.batch_norm(seen, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps)
        return self.norm(seen)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        channels, filters, places, kernels = self.gates(patches)
        weight = torch.einsum("nk,koihw->noihw", kernels, self.weight.unflatten(0, (self.candidates, -1)))
        weight = weight * filters[:, :, None, None, None] * channels[:, None, :, None, None] * places[:, None, None]
        # the stride equals the kernel's side, so that the convolution is one matrix product per patch over its tiles
        height, width = patches.shape[2] // self.size, patches.shape[3] // self.size
        tiles = patches[:, :, : height * self.size, : width * self.size]
        tiles = tiles.unflatten(3, (width, self.size)).unflatten(
            2, (height, self.size)
        )  # n, 3, height, size, width, size
        tiles = tiles.permute(0, 1, 3, 5, 2, 4).reshape(len(patches), -1, height * width)
        return (weight.flatten(2) @ tiles).unflatten(2, (height, width))


def squash(vectors: torch.Tensor) -> torch.Tensor:
    """Shrink vectors (last dimension) to length ``1 - exp(-|v|)``.

    Published as ``1 - 1 / (exp(|v|) + 1e-20)``, whose gradient overflows from length 88; this form is equal in value
    and safe.
    """
    squared = vectors.square().sum(dim=-1, keepdim=True)
    nonzero = squared > 0
    length = torch.where(nonzero, squared, 1).sqrt()  # the root's gradient at 0 is infinite: keep it away from 0
    return torch.where(nonzero, -torch.expm1(-length) / length, 0) * vectors


class Routing(nn.Module):
    """Capsules ``(n, capsules_in, width_in)`` -> ``(n, capsules_out, width_out)`` in one pass, by agreement with the
    sum of votes.
    """

    def __init__(self, capsules_in: int, width_in: int, capsules_out: int, width_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(capsules_out, capsules_in, width_in, width_out))
        self.prior = nn.Parameter(torch.zeros(capsules_out, capsules_in, 1))
        nn.init.kaiming_normal_(self.weight)

    def forward(self, capsules: torch.Tensor) -> torch.Tensor:
        votes = torch.einsum("nji,kjid->nkjd", capsules, self.weight)
        agreement = (votes * votes.sum(dim=2, keepdim=True)).sum(dim=-1, keepdim=True) / math.sqrt(votes.shape[-1])
        coupling = (
            agreement.softmax(dim=1) + self.prior
        )  # over the output capsules; the prior is added after the softmax
        return squash((coupling * votes).sum(dim=2))


class Capsules(Parts):
    """Feature maps ``(n, 16, 27 or 28, 27 or 28)`` -> ``(n, capsules, width)``: four convolutions, primary capsules,
    routing.
    """

    def __init__(self, capsules: int = 20, width: int = 64, trunk: tuple[int, int, int] = (32, 64, 64)) -> None:
        super().__init__()
        first, second, third = trunk
        self.conv1, self.norm1 = nn.Conv2d(16, first, 5), nn.BatchNorm2d(first)
        self.conv2, self.norm2 = nn.Conv2d(first, second, 3), nn.BatchNorm2d(second)
        self.conv3, self.norm3 = nn.Conv2d(second, third, 3), nn.BatchNorm2d(third)
        self.conv4, self.norm4 = nn.Conv2d(third, 128, 3, stride=2), nn.BatchNorm2d(128)
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            nn.init.kaiming_normal_(layer.weight)
        self.primary = nn.Conv2d(128, 128, 9, groups=128)
        self.routing = Routing(16, 8, capsules, width)

    def maps(self, x: torch.Tensor) -> torch.Tensor:
        """The trunk's last feature maps, ``(n, 128, 9, 9)``."""
        x = self.part(_convolved, self.conv1, self.norm1, x)
        x = self.part(_convolved, self.conv2, self.norm2, x)
        x = self.part(_convolved, self.conv3, self.norm3, x)
        return self.part(_convolved, self.conv4, self.norm4, x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.part(self._capsules, self.maps(x))

    def _capsules(self, maps: torch.Tensor) -> torch.Tensor:
        return self.routing(squash(self.primary(maps).flatten(1).unflatten(1, (16, 8))))


def _convolved(convolution: nn.Module, norm: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.relu(norm(convolution(x)))


class Pooled(Capsules):
    """The trunk of :class:`Capsules`, but the mean of its maps and a linear layer in place of capsules and routing."""

    def __init__(self, capsules: int = 20, width: int = 64, trunk: tuple[int, int, int] = (32, 64, 64)) -> None:
        super().__init__(capsules, width, trunk)
        del self.primary, self.routing
        self.linear = nn.Linear(128, capsules * width)
        self.capsules = capsules

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.maps(x).mean(dim=(2, 3))).unflatten(1, (self.capsules, -1))


class GraphAttention(nn.Module):
    """One multi-head graph-attention layer on the spot graph: ``(n, width_in)`` -> ``(n, heads * width_out)``.

    ``softmax="official"`` normalises the weights of each *sending* spot over the spots that it is a neighbour of: the
    published softmax runs over dimension 1 of a ``(1, n, n)`` array, which is the receiving spot. A spot that is
    nobody's neighbour then has a column of equal, fully masked scores and is sent to every spot with weight ``1 / n``.
    ``softmax="neighbours"`` is the textbook form, each *receiving* spot's weights summing to 1; it equals
    torch-geometric's ``GATConv(..., negative_slope=0.01, add_self_loops=False, bias=False)``, which cannot express the
    official form.
    """

    def __init__(
        self, width_in: int, width_out: int, heads: int, dropout: float, softmax: Softmax = "official"
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(heads, width_in, width_out))
        self.score = nn.Parameter(
            torch.empty(heads, 2 * width_out)
        )  # first half: the receiving spot, second: the sending
        self.softmax, self.dropout = softmax, dropout
        gain = 1.414  # as published
        for head in range(heads):
            nn.init.xavier_uniform_(self.weight.data[head], gain=gain)
            nn.init.xavier_uniform_(self.score.data[head, :, None], gain=gain)

    def attention(self, x: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
        """``(n_edges, heads)``: the weight of each edge, before dropout, for ``x`` ``(n, heads, width_out)``."""
        source, receiver = edges
        to_receiver, to_source = self.score.chunk(2, dim=1)
        scores = (x * to_receiver).sum(dim=-1)[receiver] + (x * to_source).sum(dim=-1)[source]
        group = source if self.softmax == "official" else receiver
        return softmax_within(F.leaky_relu(scores, 0.01), group, len(x))

    def forward(self, x: torch.Tensor, edges: torch.Tensor, unreferenced: torch.Tensor) -> torch.Tensor:
        """``edges`` (2, n_edges): sending and receiving spots; ``unreferenced``: the spots that send to nobody."""
        n_spots = len(x)
        source, receiver = edges
        x = torch.einsum("ni,hio->nho", x, self.weight)
        weights = F.dropout(self.attention(x, edges), self.dropout, self.training).to(x.dtype)
        received = scatter_sum(weights[:, :, None] * x[source], receiver, n_spots)
        if self.softmax == "official":
            everywhere = x.new_full((n_spots, x.shape[1], len(unreferenced)), 1 / n_spots)
            everywhere = F.dropout(everywhere, self.dropout, self.training)
            received = received + torch.einsum("nhu,uho->nho", everywhere, x[unreferenced])
        return received.flatten(1)


class THItoGeneNetwork(WholeSlideNetwork):
    """Patches ``(n_spots, 3, side, side)`` with side 108 to 115, array positions and edges -> ``(n_spots,
    n_genes)``.
    """

    def __init__(
        self,
        n_genes: int,
        n_positions: int = 64,
        capsules: int = 20,
        capsule_width: int = 64,
        n_layers: int = 4,
        heads: int = 16,
        head_width: int = 64,
        graph_heads: int = 8,
        mlp_width: int = 2048,
        dropout: float = 0.2,
        gat_softmax: Softmax = "official",
        graph_widths: tuple[int, int] = (1024, 512),
        trunk: tuple[int, int, int] = (32, 64, 64),
        convolution: Convolution = "dynamic",
        patch_features: PatchFeatures = "capsules",
    ) -> None:
        super().__init__()
        width = (capsules + 2) * capsule_width
        inner, outer = graph_widths
        self.dynamic = DynamicConvolution() if convolution == "dynamic" else nn.Conv2d(3, 16, 4, stride=4, bias=False)
        self.capsules = {"capsules": Capsules, "pooled": Pooled}[patch_features](capsules, capsule_width, trunk)
        self.x_embedding = nn.Embedding(n_positions, capsule_width)
        self.y_embedding = nn.Embedding(n_positions, capsule_width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, mlp_width, heads, head_width, dropout) for _ in range(n_layers))
        )
        self.graph = GraphAttention(width, inner, graph_heads, dropout, gat_softmax)
        self.graph_out = GraphAttention(graph_heads * inner, outer, 1, dropout, gat_softmax)
        self.head = nn.Sequential(nn.Linear(outer, 1024), nn.ReLU(), nn.LayerNorm(1024), nn.Linear(1024, n_genes))

    def embed(self, patches: torch.Tensor) -> torch.Tensor:
        """``(n_spots, 3, side, side)`` -> capsules ``(n_spots, capsules, capsule_width)``."""
        if not 108 <= patches.shape[-1] <= 115 or not 108 <= patches.shape[-2] <= 115:
            raise ValueError(f"THItoGene takes patches of 108 to 115 pixels a side, not {tuple(patches.shape[-2:])}")
        maps = F.relu(self.part(self.dynamic, patches))
        with no_autocast(maps.device):
            return self.capsules(float32(maps))

    def relate(
        self, capsules: torch.Tensor, array_xy: torch.Tensor, edges: torch.Tensor, unreferenced: torch.Tensor
    ) -> torch.Tensor:
        """The spots' capsules, array positions ``(n_spots, 2)`` and the graph -> ``(n_spots, n_genes)``.

        In float32 under every precision, as the capsules are: what they say of the image is below what bf16 resolves.
        """
        with no_autocast(capsules.device):
            x, y = self.x_embedding(array_xy[:, 0]), self.y_embedding(array_xy[:, 1])
            tokens = torch.cat([float32(capsules), x[:, None], y[:, None]], dim=1).flatten(1)
            x = self.dropout(self.attended(self.dropout(tokens)[None])[0])
            x = self.dropout(F.elu(self.part(self.graph, x, edges, unreferenced)))
            return self.genes(F.elu(self.part(self.graph_out, x, edges, unreferenced)))

    def forward(
        self, patches: torch.Tensor, array_xy: torch.Tensor, edges: torch.Tensor, unreferenced: torch.Tensor
    ) -> torch.Tensor:
        return self.relate(self.embed(patches), array_xy, edges, unreferenced)


class THItoGene(WholeSlideMethod):
    name: ClassVar[str] = "thitogene"
    title: ClassVar[str] = "THItoGene"
    switches: ClassVar[str] = "stbench.methods.switches.thitogene:SWITCHES"
    # what the capsules say of the image is lost in the rounding of all that follows
    safe_precisions = frozenset({"fp32"})
    readings: ClassVar[str] = "stbench.methods.readings.thitogene:READINGS"

    class Config(WholeSlideConfig):
        """Defaults are those of the published training script."""

        epochs: int = Field(300, ge=1, description="passes over the training slides (script; the README's recipe: 200)")
        lr: float = Field(
            1e-5, gt=0, description="learning rate of Adam (script and README; the class default is 1e-4)"
        )
        input_px: int | None = Field(
            112, ge=108, le=115, description="side of the image that the network sees; the window is resized to it"
        )
        convolution: Convolution = Field(
            "dynamic", description="first convolution: dynamic as published; plain: one kernel for all patches"
        )
        patch_features: PatchFeatures = Field(
            "capsules",
            description="capsules and routing as published; pooled: the mean of the feature maps and a linear layer",
        )
        n_layers: int = Field(4, ge=0, description="Transformer blocks (published: 4 on HER2+, 8 on cSCC)")
        capsules: int = Field(20, ge=1, description="capsules of a spot (caps)")
        capsule_width: int = Field(64, ge=1, description="width of a capsule and of a position (route_dim)")
        routing_gain: float = Field(
            1.0,
            gt=0,
            description="factor on the routing's initial weights; 1 as published, where a capsule starts at a length "
            "of 0.015 beside positions of length 8",
        )
        trunk: tuple[int, int, int] = Field(
            (32, 64, 64), description="channels of the first three convolutions (fixed in the published code)"
        )
        heads: int = Field(16, ge=1, description="attention heads of the Transformer")
        head_width: int = Field(64, ge=1, description="width of such a head (fixed in the published code)")
        mlp_width: int = Field(2048, ge=1, description="hidden width of the Transformer's MLPs (2 dim)")
        graph_heads: int = Field(8, ge=1, description="heads of the first graph-attention layer")
        graph_widths: tuple[int, int] = Field(
            (1024, 512), description="width of such a head, and of the second layer (fixed in the published code)"
        )
        dropout: float = Field(
            0.2, ge=0, lt=1, description="dropout on tokens, in the blocks and on the graph attention"
        )
        graph: Literal["neighbours", "self"] = Field(
            "neighbours",
            description="neighbours as published; self: a spot receives from itself alone, which makes linear layers of"
            " the graph attention",
        )
        k: int = Field(4, ge=1, description="nearest spots on the array that a spot receives from; never pruned")
        gat_softmax: Softmax = Field(
            "official",
            description="official: a spot's weights are normalised over the spots that it sends to, as published "
            "weights need. neighbours: over the spots that it receives from, the textbook graph attention",
        )
        self_loops: bool = Field(
            False, description="a spot is its own neighbour in the graph attention; not so as published"
        )

        @model_validator(mode="after")
        def _one_graph(self) -> Self:
            if self.graph == "self" and self.self_loops:
                raise ValueError(
                    "graph = self has no neighbours that self_loops = true could add a spot to: leave one of them out"
                )
            return self

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "published/cscc": {"n_layers": 8},
        "published/alex10x": {"n_pos": 128},  # Visium's columns reach 127
        "released": {},
        "released/cscc": {"n_layers": 8},
        "released/alex10x": {"n_pos": 128},
        "paper": {"epochs": 200, "patch_px": 224, "gat_softmax": "neighbours", "self_loops": True},
        "paper/alex10x": {"n_pos": 128},
        # Minutes for six sections on two CPU cores: a thin trunk (the patch's side cannot be less than 108), small
        # capsules and heads, and no Transformer block: in the few dozen steps that there are it drowns the capsules.
        # For the same reason capsules and positions start at a similar scale, and predictions at the genes' means.
        "quick": {
            "epochs": 12,
            "lr": 1e-3,
            "n_layers": 0,
            "capsules": 16,
            "capsule_width": 16,
            "trunk": (8, 16, 16),
            "graph_heads": 4,
            "graph_widths": (128, 256),
            "dropout": 0.0,
            "routing_gain": 30.0,
            "position_std": 0.1,
            "pixel_scale": "imagenet",
            "start_at_mean": True,
        },
        "quick/demo": {"input_px": 108, "trunk": (6, 12, 12)},
        "quick/alex10x": {"n_pos": 128},
    }

    def build(self, shape: Mapping[str, Any]) -> THItoGeneNetwork:
        config = self.config
        return THItoGeneNetwork(
            shape["n_genes"],
            shape["n_positions"],
            config.capsules,
            config.capsule_width,
            config.n_layers,
            config.heads,
            config.head_width,
            config.graph_heads,
            config.mlp_width,
            config.dropout,
            config.gat_softmax,
            config.graph_widths,
            config.trunk,
            config.convolution,
            config.patch_features,
        )

    def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        super().start(network, data, run)
        assert isinstance(network, THItoGeneNetwork)
        with torch.no_grad():
            if not isinstance(network.capsules, Pooled):
                network.capsules.routing.weight.mul_(self.config.routing_gain)
        for slide in data.slides:
            if slide.n_spots == 1:
                run.note(f"slide {slide.id} has one spot: its BatchNorm after the patch's mean uses running statistics")

    def slide_constants(self, slide: TestSlide) -> dict[str, torch.Tensor]:
        edges = nearest_spots(slide.array_xy, self.config.k)
        if self.config.graph == "self":
            edges = np.stack([np.arange(slide.n_spots)] * 2)
        elif self.config.self_loops:
            edges = with_self(edges, np.arange(slide.n_spots))
        unreferenced = np.setdiff1d(np.arange(slide.n_spots), edges[0])
        return super().slide_constants(slide) | {
            "edges": torch.from_numpy(edges),
            "unreferenced": torch.from_numpy(unreferenced),
        }

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Mean squared error over the slide's spots and genes."""
        return {
            "loss": F.mse_loss(network(self.training_pixels(network, batch), **_graph(batch)).float(), batch.target)
        }

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> torch.Tensor:
        assert isinstance(network, THItoGeneNetwork)
        return network.relate(self.in_parts(network.embed, batch), **_graph(batch))


def _graph(batch: TestBatch) -> dict[str, torch.Tensor]:
    constants = batch.constants
    return {"array_xy": constants["positions"], "edges": constants["edges"], "unreferenced": constants["unreferenced"]}
