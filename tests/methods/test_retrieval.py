"""Retrieval: equal to the plain loop over queries, finite at every distance, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stbench.methods.layers.retrieval import nearest, neighbour_weights, own_rank, retrieve

SCHEMES = [
    ("inverse-square", "l2"),
    ("inverse-square", "l1"),
    ("inverse-square", "cosine"),
    ("average", "l2"),
    ("nearest", "l2"),
    ("exponential", "l2"),
]


def loop(queries, keys, values, k, weighting, distance):
    """The published way: one query at a time in numpy."""
    queries, keys, values = (np.asarray(array, dtype=np.float64) for array in (queries, keys, values))
    predictions = []
    for query in queries:
        cosine = keys @ query / np.linalg.norm(keys, axis=1) / np.linalg.norm(query)
        chosen = np.argsort(-cosine, kind="stable")[: 1 if weighting == "nearest" else k]
        difference = keys[chosen] - query
        if weighting == "inverse-square":
            distances = {
                "l1": np.abs(difference).sum(axis=1),
                "l2": np.sqrt((difference**2).sum(axis=1)),
                "cosine": 1 - cosine[chosen],
            }[distance]
            weights = distances**-2.0
        elif weighting == "exponential":
            squared = (difference**2).sum(axis=1)
            weights = np.exp(-(squared - squared.min()))  # published: minus the first; the same after averaging
        else:
            weights = np.ones(len(chosen))
        predictions.append(np.average(values[chosen], axis=0, weights=weights))
    return np.array(predictions)


def random_case(seed, n_queries, n_keys, d=8, n_genes=5, scale=1.0):
    rng = np.random.default_rng(seed)
    arrays = rng.standard_normal((n_queries, d)) * scale, rng.standard_normal((n_keys, d)) * scale
    return (*(a.astype(np.float32) for a in arrays), rng.uniform(0, 4, (n_keys, n_genes)).astype(np.float32))


def on_torch(*arrays):
    return tuple(torch.from_numpy(array) for array in arrays)


@pytest.mark.parametrize(("weighting", "distance"), SCHEMES)
def test_equals_the_loop_over_queries(weighting, distance):
    case = random_case(0, n_queries=300, n_keys=2000, d=32)
    got = retrieve(*on_torch(*case), k=50, weighting=weighting, distance=distance)
    assert got.dtype == torch.float32
    np.testing.assert_allclose(got.numpy(), loop(*case, 50, weighting, distance), rtol=1e-5, atol=1e-5)


@given(
    seed=st.integers(0, 2**32 - 1),
    n_queries=st.integers(1, 7),
    n_keys=st.integers(1, 90),
    k=st.integers(1, 60),
    scheme=st.sampled_from(SCHEMES),
    block_bytes=st.sampled_from([1, 5000, 2**20]),
    scale=st.sampled_from([1e-3, 1.0, 16.0]),
)
@settings(max_examples=80, deadline=None)
def test_equals_the_loop_whatever_the_sizes_and_blocks(seed, n_queries, n_keys, k, scheme, block_bytes, scale):
    case = random_case(seed, n_queries, n_keys, scale=scale)
    got = retrieve(*on_torch(*case), k, *scheme, block_bytes=block_bytes)
    np.testing.assert_allclose(got.numpy(), loop(*case, min(k, n_keys), *scheme), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("distance", ["l1", "l2", "cosine"])
def test_a_query_equal_to_a_key_takes_that_key_alone(distance):
    _, keys, values = random_case(1, 1, 40)
    queries, keys, values = on_torch(keys[7:8], keys, values)
    np.testing.assert_allclose(retrieve(queries, keys, values, 10, "inverse-square", distance)[0], values[7], rtol=1e-6)


def test_equal_keys_at_distance_zero_share_the_weight():
    _, keys, values = random_case(2, 1, 40)
    keys[20] = keys[7]
    queries, keys, values = on_torch(keys[7:8], keys, values)
    np.testing.assert_allclose(retrieve(queries, keys, values, 10)[0], (values[7] + values[20]) / 2, rtol=1e-6)


def test_a_distance_that_underflows_when_squared_still_gives_a_finite_prediction():
    queries, keys, values = on_torch(*random_case(3, 4, 30, scale=1e-25))
    assert torch.isfinite(retrieve(queries, keys, values, 5, "inverse-square", "l2")).all()


def test_the_exponential_weighting_survives_a_neighbour_much_closer_than_the_most_similar_key():
    # the most similar key lies 100 away: exp(-(δ_j - δ_1 + 1)) of the other one is exp(10,000)
    queries, keys, values = on_torch(np.float32([[1, 0]]), np.float32([[101, 0], [1, 0.1]]), np.float32([[0.0], [3.0]]))
    assert retrieve(queries, keys, values, 2, "exponential").item() == pytest.approx(3.0)


def test_more_neighbours_than_keys_means_all_keys():
    case = on_torch(*random_case(4, 3, 6))
    torch.testing.assert_close(retrieve(*case, 200), retrieve(*case, 6))


def test_one_query_and_no_query_work():
    queries, keys, values = on_torch(*random_case(5, 3, 50))
    together = retrieve(queries, keys, values, 4)
    torch.testing.assert_close(retrieve(queries[1:2], keys, values, 4), together[1:2])
    assert retrieve(queries[:0], keys, values, 4).shape == (0, values.shape[1])


def test_weights_are_positive_and_sum_to_one():
    queries, keys, _ = on_torch(*random_case(6, 20, 100))
    for weighting, distance in SCHEMES:
        weights = neighbour_weights(queries, keys, nearest(queries, keys, 9), weighting, distance)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(dim=1), torch.ones(20))


def test_neighbours_come_best_first_and_equal_keys_in_their_order():
    keys = torch.tensor([[0.0, 1.0], [1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    assert nearest(torch.tensor([[3.0, 0.0]]), keys, 4).tolist() == [[1, 2, 3, 0]]


def test_the_choice_of_the_last_neighbour_does_not_hang_on_float32_rounding():
    # two keys whose cosines differ by 3e-9: float32 cannot tell them apart, the order must still be the true one
    keys = torch.tensor([[1.0, 0.5], [1.0, 0.5 + 6e-8], [1.0, 0.0], [-1.0, 0.0]])
    queries = torch.tensor([[1.0, 0.9]])
    cosine = torch.nn.functional.cosine_similarity(queries.double(), keys.double())
    assert nearest(queries, keys, 1).item() == int(cosine.argmax())


def test_own_rank_is_zero_for_perfect_retrieval_and_a_half_for_guessing() -> None:
    keys = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    own = torch.arange(400)
    assert own_rank(keys, keys, own) == 0
    assert own_rank(keys.roll(1, 0), keys, own) == pytest.approx(0.5, abs=0.05)
    assert own_rank(torch.ones(5, 8), torch.ones(5, 8), torch.arange(5)) == 0.5  # all embeddings the same
    assert own_rank(-keys, keys, own) == 1
    assert own_rank(keys[:1], keys[:1], own[:1]) == 0


@pytest.mark.slow
def test_a_hundred_thousand_keys_fit_in_four_gibibytes():
    code = """
import resource

import torch

from stbench.methods.layers.retrieval import retrieve
queries, keys, values = torch.randn(5000, 256), torch.randn(100_000, 256), torch.rand(100_000, 1000)
with torch.inference_mode():
    for weighting in ("inverse-square", "average"):
        prediction = retrieve(queries, keys, values, 200, weighting)
        assert prediction.shape == (5000, 1000) and torch.isfinite(prediction).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 4 * 2**30
