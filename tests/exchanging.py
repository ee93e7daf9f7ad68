"""A slide predicted with its patches exchanged, as a trial asks a method for it."""

from __future__ import annotations

import numpy as np

from stbench.method import Method, TestSlide
from stbench.trials.asking import predict_again


def predict_exchanged(method: Method, slide: TestSlide, dataset: str, seed: int) -> np.ndarray | None:
    """(n_spots, n_genes); ``None`` for a slide of one spot."""
    return predict_again(method, {slide.id: slide}, dataset, seed, None).exchanged[slide.id]
