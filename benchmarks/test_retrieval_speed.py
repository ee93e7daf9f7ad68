"""Retrieval against the published per-query numpy loop, at the size of one held-out HER2+ slice."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from stbench.methods.layers.retrieval import retrieve

N_KEYS, N_QUERIES, N_DIMENSIONS, N_GENES, K = 11_000, 300, 256, 785, 200


def _loop(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """As the published evaluation does it: similarities, sort, distances and a weighted mean, query by query."""
    predictions = []
    unit_keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    for query in queries:
        similarity = unit_keys @ (query / np.linalg.norm(query))
        nearest = np.argsort(similarity)[::-1][:K]
        weights = 1 / np.linalg.norm(keys[nearest] - query, axis=1) ** 2
        predictions.append(np.average(values[nearest], axis=0, weights=weights))
    return np.array(predictions)


def test_retrieval_of_all_queries_at_once(times_as_fast: Callable) -> None:
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((N_KEYS, N_DIMENSIONS)).astype(np.float32)
    queries = rng.standard_normal((N_QUERIES, N_DIMENSIONS)).astype(np.float32)
    values = rng.random((N_KEYS, N_GENES)).astype(np.float32)
    tensors = [torch.from_numpy(array) for array in (queries, keys, values)]
    np.testing.assert_allclose(retrieve(*tensors, k=K).numpy(), _loop(queries, keys, values), atol=1e-4)
    times_as_fast(lambda: retrieve(*tensors, k=K), lambda: _loop(queries, keys, values))
