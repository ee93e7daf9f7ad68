"""The pre-norm Transformer block that HisToGene, Hist2ST and THItoGene share: every spot of a slide attends to every
other.

It is the block of early ``vit-pytorch``. ``torch.nn.TransformerEncoderLayer`` differs numerically (biases on the
queries, keys and values, dropout on the attention weights, a head width tied to the model's width), so the block is
written out and only the attention itself comes from a library.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

Attention = Literal["fused", "explicit"]


class TransformerBlock(nn.Module):
    """``x + Attention(LayerNorm(x))``, then ``x + MLP(LayerNorm(x))``, over tokens ``(..., n_spots, width)``.

    The attention's inner width is ``heads * head_width`` whatever ``width`` is. ``attention="explicit"`` writes the
    ``n_spots`` x ``n_spots`` softmax out instead of calling the fused kernel: same numbers, more memory.
    """

    def __init__(
        self,
        width: int,
        mlp_width: int,
        heads: int = 16,
        head_width: int = 64,
        dropout: float = 0.0,
        attention: Attention = "fused",
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.attention = heads, attention
        self.attention_norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * inner, bias=False)  # rows: all of q, all of k, all of v; head-major inside each
        self.out = nn.Linear(inner, width)
        self.mlp_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, mlp_width)
        self.contract = nn.Linear(mlp_width, width)
        self.dropout = nn.Dropout(dropout)

    def attend(self, x: torch.Tensor) -> torch.Tensor:
        # of rank 4, whatever x is: the fused kernel takes no other rank in older versions of torch
        projected = self.qkv(x).view(-1, x.shape[-2], 3, self.heads, self.qkv.out_features // 3 // self.heads)
        q, k, v = projected.movedim(-3, 0).transpose(-3, -2)
        if self.attention == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
        return self.out(mixed.transpose(-3, -2).reshape(*x.shape[:-1], -1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attend(self.attention_norm(x)))
        hidden = self.dropout(F.gelu(self.expand(self.mlp_norm(x))))
        return x + self.dropout(self.contract(hidden))
