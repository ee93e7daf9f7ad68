"""What the two contrastive methods share: the projection head and the losses that pull a spot and its patch together.

Throughout, ``spots`` and ``images`` are (n, d) embeddings of the same n spots in the same order. Neither is
L2-normalised by the published code: after the head's LayerNorm a vector of d = 256 has norm near 16, so the logits span
about ±256.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor, nn

from stbench.system.precision import exact_products, float32, no_autocast

TemperatureForm = Literal["divide", "multiply"]


class ProjectionHead(nn.Module):
    """(n, n_in) -> (n, n_out): LayerNorm(p + dropout(linear(GELU(p)))) with p = linear(x), every linear with bias.

    In float32 under every precision. Source: BLEEP's ``ProjectionHead``, taken over by mclSTExp; attribute names are
    theirs, so that weights load.
    """

    def __init__(self, n_in: int, n_out: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.projection = nn.Linear(n_in, n_out)
        self.fc = nn.Linear(n_out, n_out)
        self.dropout = nn.Dropout(dropout)
        self.layer_norm = nn.LayerNorm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        with no_autocast(x.device):
            projected = self.projection(float32(x))
            return self.layer_norm(projected + self.dropout(self.fc(F.gelu(projected))))


def logits(spots: Tensor, images: Tensor, temperature: float = 1.0, normalise: bool = False) -> Tensor:
    """(n, n): similarity of every spot (row) with every image (column), over the temperature.

    ``normalise`` uses the cosine, which mclSTExp's text describes; its code uses the plain dot product.
    """
    if normalise:
        spots, images = F.normalize(spots, dim=1), F.normalize(images, dim=1)
    return _over(_dot(spots, images), temperature)


def one_hot_loss(z: Tensor, balance: float = 0.5) -> Tensor:
    """``balance`` · loss_image + (1 − ``balance``) · loss_spot of (n, n) logits ``z``; every other pair is a negative.

    loss_spot is the cross-entropy of the rows (which image belongs to this spot), loss_image that of the columns.
    Source: mclSTExp's equation for L; ``balance`` is the λ of its Table S7, 0.5 in the released code.
    """
    own = torch.arange(len(z), device=z.device)
    return balance * F.cross_entropy(z.T, own) + (1 - balance) * F.cross_entropy(z, own)


def soft_targets(spots: Tensor, images: Tensor, temperature: float = 1.0, form: TemperatureForm = "divide") -> Tensor:
    """(n, n) BLEEP's targets: softmax over each row of the mean similarity of spots to spots and of images to images.

    ``multiply``, the code until February 2024, multiplies that mean with the temperature; logits were divided even
    then.
    """
    similarity = (_dot(images, images) + _dot(spots, spots)) / 2
    scaled = _over(similarity, temperature) if form == "divide" else similarity * temperature
    return torch.softmax(scaled, dim=1)


def soft_terms(z: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """BLEEP's two terms, each the mean over the batch: cross-entropy of the rows with P, of the columns with Pᵀ.

    The rows of Pᵀ do not sum to one; that is the published form.
    """
    spot_term = -(targets * F.log_softmax(z, dim=1)).sum(dim=1).mean()
    image_term = -(targets.T * F.log_softmax(z.T, dim=1)).sum(dim=1).mean()
    return spot_term, image_term


def soft_loss(z: Tensor, targets: Tensor) -> Tensor:
    """BLEEP's loss: half the sum of its two terms. Gradients flow through ``targets`` too, unless they are detached."""
    spot_term, image_term = soft_terms(z, targets)
    return (spot_term + image_term) / 2


def matched(z: Tensor) -> Tensor:
    """Scalar in [0, 1]: share of the images (columns) whose own spot is the batch's most similar; by chance 1 / n."""
    return (z.argmax(dim=0) == torch.arange(len(z), device=z.device)).mean(dtype=torch.float32)


def _over(values: Tensor, temperature: float) -> Tensor:
    """Divided by it, but for the published 1: one pass less, and one in the backward."""
    return values if temperature == 1 else values / temperature


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` in float32 or better: logits in the hundreds lose their differences in bf16 and in TF32."""
    with exact_products(a.device):
        return float32(a) @ float32(b).T
