"""A prepared slide from a few arrays, for tests of what is computed from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stbench.data.prepared import PreparedSlide


def prepared_slide(
    counts: np.ndarray,
    total_counts: np.ndarray,
    target: np.ndarray,
    name: str = "S",
    labels: Sequence[str | None] | None = None,
) -> PreparedSlide:
    """Spots in a row, 10 px apart; white patches of 2 px; ``counts`` and ``target`` (n_spots, n_genes)."""
    n_spots, n_genes = counts.shape
    return PreparedSlide(
        id=name,
        patient="P",
        genes=tuple(f"G{i}" for i in range(n_genes)),
        patches=np.full((n_spots, 2, 2, 3), 255, dtype=np.uint8),
        patches_digest=f"digest of {n_spots} white patches",
        counts=counts,
        total_counts=total_counts,
        n_measured=2 * n_genes,
        target=target,
        array_xy=np.stack([np.arange(n_spots), np.zeros(n_spots, dtype=np.int64)], axis=1),
        pixel_xy=np.stack([np.arange(n_spots) * 10.0, np.full(n_spots, 5.0)], axis=1),
        spot_ids=tuple(f"spot{i}" for i in range(n_spots)),
        labels=None if labels is None else tuple(labels),
        um_per_px=None,
        image_level="full",
        n_padded=0,
        margins=None,
        notes=(),
        key=f"key of {name}",
        thumbnail=Path("thumbnail.jpg"),
        thumbnail_scale=1.0,
        spot_diameter=5.0,
    )
