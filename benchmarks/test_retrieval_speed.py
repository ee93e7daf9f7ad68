"""Retrieval against two loops over queries, at the size of one held-out HER2+ slice: the published one and a plain one.

The published evaluation (mclSTExp and, before it, BLEEP) ranks the keys of all queries together, in torch, and loops
over the queries only for the weights and the two weighted means; a plain loop does everything query by query.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stbench.methods.layers.retrieval import retrieve

N_KEYS, N_QUERIES, N_DIMENSIONS, N_GENES, K = 11_000, 300, 256, 785, 200


def published_loop(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """mclSTExp's evaluation on HER2+: cosine top k, weights 1 / L1², means of embeddings and of expression."""
    unit_queries = torch.nn.functional.normalize(torch.tensor(queries), p=2, dim=-1)
    unit_keys = torch.nn.functional.normalize(torch.tensor(keys), p=2, dim=-1)
    chosen = torch.topk(unit_queries @ unit_keys.T, k=K).indices.numpy()
    embeddings = np.zeros((len(queries), keys.shape[1]))
    expression = np.zeros((len(queries), values.shape[1]))
    for i in range(len(queries)):
        distance = np.linalg.norm(keys[chosen[i], :] - queries[i, :], axis=1, ord=1)
        weights = np.reciprocal(distance**2)
        weights = (weights / np.sum(weights)).flatten()
        embeddings[i, :] = np.average(keys[chosen[i], :], axis=0, weights=weights)
        expression[i, :] = np.average(values[chosen[i], :], axis=0, weights=weights)
    return expression


def plain_loop(queries: np.ndarray, keys: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The same prediction with one query at a time from the similarities on, and a full sort."""
    predictions = []
    unit_keys = keys / np.linalg.norm(keys, axis=1, keepdims=True)
    for query in queries:
        similarity = unit_keys @ (query / np.linalg.norm(query))
        chosen = np.argsort(similarity)[::-1][:K]
        weights = 1 / np.abs(keys[chosen] - query).sum(axis=1) ** 2
        predictions.append(np.average(values[chosen], axis=0, weights=weights))
    return np.array(predictions)


@pytest.mark.parametrize("loop", [published_loop, plain_loop], ids=["published-loop", "plain-loop"])
def test_retrieval_of_all_queries_at_once(times_as_fast: Callable, loop: Callable) -> None:
    rng = np.random.default_rng(0)
    keys = rng.standard_normal((N_KEYS, N_DIMENSIONS)).astype(np.float32)
    queries = rng.standard_normal((N_QUERIES, N_DIMENSIONS)).astype(np.float32)
    values = rng.random((N_KEYS, N_GENES)).astype(np.float32)
    tensors = [torch.from_numpy(array) for array in (queries, keys, values)]

    def ours() -> torch.Tensor:
        return retrieve(*tensors, k=K, distance="l1")

    np.testing.assert_allclose(ours().numpy(), loop(queries, keys, values), atol=1e-4)
    times_as_fast(ours, lambda: loop(queries, keys, values))
