"""HisToGene (Pang, Su and Li 2021): one Transformer over all spots of a section, from raw pixels and array
positions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from stbench.torch_method import Batch, TestBatch

from .layers.transformer import Attention, TransformerBlock
from .layers.whole_slide import WholeSlideConfig, WholeSlideMethod, WholeSlideNetwork


class HisToGeneNetwork(WholeSlideNetwork):
    """Flattened patches ``(..., n_spots, 3 * side**2)`` and positions ``(..., n_spots, 2)`` -> ``(..., n_spots,
    n_genes)``.

    Patches are flattened x slowest, then y, then channel, as the published loader does. Every spot attends to all
    spots of the slide, unless ``max_spots`` cuts a larger slide (without leading dimensions) into equal strips of rows.
    """

    def __init__(
        self,
        side: int,
        n_genes: int,
        n_positions: int = 64,
        width: int = 1024,
        n_layers: int = 8,
        heads: int = 16,
        head_width: int = 64,
        dropout: float = 0.1,
        attention: Attention = "fused",
        max_spots: int | None = None,
    ) -> None:
        super().__init__()
        self.max_spots = max_spots
        self.patch_embedding = nn.Linear(3 * side**2, width)
        self.x_embedding = nn.Embedding(n_positions, width)
        self.y_embedding = nn.Embedding(n_positions, width)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *(TransformerBlock(width, 2 * width, heads, head_width, dropout, attention) for _ in range(n_layers))
        )
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, n_genes))

    def relate(self, tokens: torch.Tensor, array_xy: torch.Tensor) -> torch.Tensor:
        """Embedded patches ``(..., n_spots, width)`` and positions -> ``(..., n_spots, n_genes)``."""
        x, y = array_xy.unbind(-1)
        tokens = self.dropout(tokens + self.x_embedding(x) + self.y_embedding(y))
        if self.max_spots is None or tokens.shape[-2] <= self.max_spots:
            return self.genes(self.attended(tokens))
        order = (y * self.y_embedding.num_embeddings + x).argsort(stable=True)
        n_strips = -(-len(order) // self.max_spots)
        attended = torch.cat([self.attended(strip) for strip in tokens[order].tensor_split(n_strips)])
        return self.genes(attended[order.argsort()])

    def forward(self, patches: torch.Tensor, array_xy: torch.Tensor) -> torch.Tensor:
        return self.relate(self.patch_embedding(patches), array_xy)


class HisToGene(WholeSlideMethod):
    name: ClassVar[str] = "histogene"
    title: ClassVar[str] = "HisToGene"
    switches: ClassVar[str] = "stbench.methods.switches.histogene:SWITCHES"
    safe_precisions = frozenset({"fp32", "tf32", "bf16"})
    readings: ClassVar[str] = "stbench.methods.readings.histogene:READINGS"

    class Config(WholeSlideConfig):
        """Defaults are those of the published notebook, which is what its results were made with."""

        epochs: int = Field(100, ge=1, description="passes over the training slides (notebook)")
        lr: float = Field(
            1e-5, gt=0, description="learning rate of Adam (notebook and README; the class default is 1e-4)"
        )
        n_layers: int = Field(
            8, ge=0, description="Transformer blocks (notebook; class and README: 4); with 0 no spot sees another"
        )
        width: int = Field(1024, ge=1, description="width of the tokens")
        heads: int = Field(16, ge=1, description="attention heads (fixed in the published code)")
        head_width: int = Field(64, ge=1, description="width of an attention head (fixed in the published code)")
        dropout: float = Field(
            0.1, ge=0, lt=1, description="dropout on tokens and in the blocks, not on attention weights"
        )
        attention: Attention = Field("fused", description="fused kernel, or the softmax written out: the same numbers")
        max_spots: int | None = Field(
            None,
            ge=1,
            description="cut larger slides into strips that do not see each other: another method, off as published",
        )
        emulate_skin_bug: bool = Field(
            False,
            description="show the network only each slide's first patch, all others black, as the published skin "
            "loader does",
        )

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "published": {},
        "published/alex10x": {"n_pos": 128},  # Visium's columns reach 127
        "released": {},
        "released/cscc": {"emulate_skin_bug": True},
        "released/alex10x": {"n_pos": 128},
        "paper": {"patch_px": 224},
        "paper/alex10x": {"n_pos": 128},
        # A minute for six sections on two CPU cores: a small network on 16-pixel patches. A hundredth of the published
        # number of steps needs a learning rate a hundred times as high and inputs of unit scale.
        "quick": {
            "epochs": 50,
            "lr": 1e-3,
            "n_layers": 2,
            "width": 256,
            "heads": 4,
            "dropout": 0.0,
            "input_px": 16,
            "pixel_scale": "imagenet",
            "augment": "d4",
            "start_at_mean": True,
        },
        "quick/demo": {"epochs": 40, "width": 192},
        "quick/alex10x": {"n_pos": 128},
    }

    def build(self, shape: Mapping[str, Any]) -> HisToGeneNetwork:
        config = self.config
        return HisToGeneNetwork(
            self.input_px,
            shape["n_genes"],
            shape["n_positions"],
            config.width,
            config.n_layers,
            config.heads,
            config.head_width,
            config.dropout,
            config.attention,
            config.max_spots,
        )

    def pixels(self, patches: torch.Tensor) -> torch.Tensor:
        """``(n, 3, rows, columns)`` uint8 -> ``(n, 3 * side**2)`` float32: column slowest, then row, then colour."""
        return super().pixels(patches).permute(0, 2, 3, 1).flatten(1)

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
        """Mean squared error over the slide's spots and genes."""
        pixels = self.training_pixels(network, batch)
        if self.config.emulate_skin_bug:
            pixels = _only_the_first(pixels)
        return {"loss": F.mse_loss(network(pixels, batch.constants["positions"]).float(), batch.target)}

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> torch.Tensor:
        assert isinstance(network, HisToGeneNetwork)
        if self.config.emulate_skin_bug:
            return network(_only_the_first(self.pixels(batch.patches)), batch.constants["positions"])
        return network.relate(self.in_parts(network.patch_embedding, batch), batch.constants["positions"])


def _only_the_first(pixels: torch.Tensor) -> torch.Tensor:
    return torch.cat([pixels[:1], torch.zeros_like(pixels[1:])])
