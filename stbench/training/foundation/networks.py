"""Networks of published encoders that no library has: a stem, and ways to pool a transformer's tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from .table import Pooler

LAYER_NORM_EPS = 1e-5  # of what is not the trunk's


class ConvolutionalStem(nn.Module):
    """Images (B, 3, S, S) to (B, S / 4, S / 4, ``width``): CTransPath's, in place of a Swin's patch embedding.

    Two convolutions that halve the side, each with batch norm and ReLU, one of 1 x 1 to the width, and a LayerNorm.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for wider in (width // 8, width // 4):
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
            channels = wider
        self.proj = nn.Sequential(*layers, nn.Conv2d(channels, width, 1))
        self.norm = nn.LayerNorm(width, eps=LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


class ClassAndMean(nn.Module):
    """Images to (B, 2d): a ViT's class token beside the mean of its patch tokens, both after its last norm.

    Registers stand between the two and belong to neither.
    """

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.trunk.forward_features(images)  # type: ignore[operator]
        n_prefix = int(self.trunk.num_prefix_tokens)  # type: ignore[arg-type]
        return torch.cat([tokens[:, 0], tokens[:, n_prefix:].mean(dim=1)], dim=1)


class AttentionPooled(nn.Module):
    """Images to (B, ``width``): CONCH's visual tower, whose names are its file's.

    All tokens of the trunk are pooled by one learnt query; no projection and no normalisation of length follows.
    """

    def __init__(self, trunk: nn.Module, pooler: Pooler) -> None:
        super().__init__()
        self.trunk = trunk
        kind = {"multi-head": MultiHeadPooler, "separate": SeparatePooler}[pooler.kind]
        self.attn_pool_contrast = kind(pooler.width, pooler.context, pooler.heads)
        self.ln_contrast = nn.LayerNorm(pooler.width, eps=LAYER_NORM_EPS)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.trunk.forward_features(images)  # type: ignore[operator]
        return self.ln_contrast(self.attn_pool_contrast(tokens))


class MultiHeadPooler(nn.Module):
    """Tokens (B, n, ``context``) to (B, ``width``) by torch's own attention: CONCH's."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, width))
        self.attn = nn.MultiheadAttention(width, heads, kdim=context, vdim=context, batch_first=True)
        self.ln_q = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.ln_k = nn.LayerNorm(context, eps=LAYER_NORM_EPS)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.ln_q(self.query).expand(len(tokens), 1, -1)
        keys = self.ln_k(tokens)
        return self.attn(query, keys, keys, need_weights=False)[0][:, 0]


class SeparatePooler(nn.Module):
    """Tokens (B, n, ``context``) to (B, ``width``) by attention without biases: CONCH v1.5's."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Parameter(torch.randn(1, width))
        self.ln_k = nn.LayerNorm(context, eps=LAYER_NORM_EPS)
        self.ln_q = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_kv = nn.Linear(context, 2 * width, bias=False)
        self.to_out = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        query = self.to_q(self.ln_q(self.query)).expand(len(tokens), 1, -1)
        key, value = self.to_kv(self.ln_k(tokens)).chunk(2, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        return self.to_out(scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))[:, 0]
