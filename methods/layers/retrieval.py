"""Predict expression by retrieval: the weighted mean of the values of a query's k nearest keys, in bounded memory.

Shapes: queries (n_queries, d), keys (n_keys, d), values (n_keys, n_genes). Selection is always by cosine similarity, as
in both published methods; the weighting looks at the embeddings as they are, not L2-normalised.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch import Tensor

from stbench.system.precision import exact_products

if TYPE_CHECKING:
    from stbench.method import Run
    from stbench.torch_method import TorchMethod
    from stbench.training.batches import TrainingData

Distance = Literal["l1", "l2", "cosine"]
Weighting = Literal["inverse-square", "average", "nearest", "exponential"]

RANKED_SPOTS = 512  # training spots whose own keys are ranked, at most, for the alarm on retrieval by guessing
_MARGIN = 16  # ranks on either side of the k-th that are settled in float64
_BLOCK_BYTES = 64 * 2**20
_CACHED_BYTES = 4 * 2**20  # of neighbours' embeddings on a CPU: more leave its cache, and cost fresh pages each time


def retrieve(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    k: int,
    weighting: Weighting = "inverse-square",
    distance: Distance = "l2",
    block_bytes: int = _BLOCK_BYTES,
) -> Tensor:
    """(n_queries, n_genes): the weighted mean of the values of each query's ``k`` cosine-nearest keys.

    ``weighting``: ``inverse-square`` of the ``distance`` (mclSTExp), ``average`` (BLEEP's default), ``nearest``
    (BLEEP's "simple") or ``exponential`` (BLEEP's "weighted_average"). More neighbours than keys means all keys.
    Queries are taken in blocks, so that no intermediate array is much larger than ``block_bytes``.
    """
    k = min(1 if weighting == "nearest" else k, len(keys))
    unit_keys = F.normalize(keys, dim=1)
    # a query needs its similarities to all keys, and its neighbours' embeddings
    per_query = keys.element_size() * max(len(keys), k * keys.shape[1])
    predictions = []
    for block in queries.to(keys.dtype).split(max(1, block_bytes // per_query)):
        indices = nearest(block, keys, k, unit_keys)
        weights = neighbour_weights(block, keys, indices, weighting, distance).to(values.dtype)
        # a weighted sum of rows without gathering them: n_queries x k x n_genes never exists
        predictions.append(F.embedding_bag(indices, values, mode="sum", per_sample_weights=weights))
    return torch.cat(predictions)


def nearest(queries: Tensor, keys: Tensor, k: int, unit_keys: Tensor | None = None) -> Tensor:
    """Indices (n_queries, k) int64 of the keys of highest cosine similarity, best first; ``k`` is at most their number.

    One matrix product in the embeddings' own precision ranks them. Who is k-th and who is next must not hang on its
    rounding, nor on the device, so the ranks about the k-th are settled in float64; equal keys come in their order.
    """
    unit_keys = F.normalize(keys, dim=1) if unit_keys is None else unit_keys
    with exact_products(queries.device):
        similarity = F.normalize(queries, dim=1) @ unit_keys.T
    ranked = similarity.topk(min(k + _MARGIN, len(keys)), dim=1).indices
    certain, doubtful = ranked[:, : max(k - _MARGIN, 0)], ranked[:, max(k - _MARGIN, 0) :].sort(dim=1).values
    exact = torch.bmm(F.normalize(_exact(keys[doubtful]), dim=2), _exact(queries)[:, :, None])[:, :, 0]
    order = exact.argsort(dim=1, descending=True, stable=True)[:, : k - certain.shape[1]]
    return torch.cat([certain, doubtful.gather(1, order)], dim=1)


def note_neighbours(name: str, k: int, n_keys: int, run: Run) -> None:
    """Tell the run where a method asks for more neighbours than there are keys."""
    if k > n_keys:
        run.note(f"{name}: k = {k}, and there are {n_keys} training spots: all of them are averaged")


def diagnose(
    method: TorchMethod, k: int, keys: Tensor, embed: Callable[[Tensor], Tensor], data: TrainingData, run: Run
) -> dict[str, float]:
    """What the alarms look at once a contrastive method is trained: the size of its batches, the rank of own keys.

    ``keys`` (n_training_spots, d) are all training spots', ``embed`` makes queries (B, d) of patches. The run is told
    where there are fewer keys than the ``k`` neighbours asked for. At most ``RANKED_SPOTS`` spots, drawn at random,
    are ranked.
    """
    note_neighbours(method.name, k, data.n_spots, run)
    drawn = torch.randperm(data.n_spots, generator=run.torch_generator(method.name, "rank"))[:RANKED_SPOTS]
    queries = torch.cat([embed(batch.patches) for batch in data.batches(drawn.split(method.predict_batch_size))])
    return {
        "contrastive_batch": min(method.batch_size, len(data.training_spots)),
        "retrieval_rank": own_rank(queries, keys, drawn.to(keys.device)),
    }


def own_rank(queries: Tensor, keys: Tensor, own: Tensor) -> float:
    """Mean share in [0, 1] of the other keys that are more similar to a query than its own; guessing gives 0.5.

    ``own`` is (n_queries,) int64: the index of each query's own key. Equally similar keys count half.
    """
    if len(keys) == 1:
        return 0.0
    unit_keys, shares = F.normalize(keys, dim=1), []
    for block, index in zip(queries.split(64), own.split(64), strict=True):
        with exact_products(queries.device):
            similarity = F.normalize(block, dim=1) @ unit_keys.T
        of_own = similarity.gather(1, index[:, None])
        above, equal = (similarity > of_own).sum(dim=1), (similarity == of_own).sum(dim=1) - 1
        shares.append((above + equal / 2) / (len(keys) - 1))
    return float(torch.cat(shares).mean())


def neighbour_weights(
    queries: Tensor, keys: Tensor, indices: Tensor, weighting: Weighting, distance: Distance = "l2"
) -> Tensor:
    """(n_queries, k) float: the weights of the neighbours ``indices`` of each query, summing to 1."""
    if weighting in ("average", "nearest"):
        return torch.full(indices.shape, 1 / indices.shape[1], dtype=keys.dtype, device=keys.device)
    if weighting == "exponential":
        # BLEEP's exp(-(δ_j - δ_1 + 1)), normalised, is the softmax of the negative squared distances: δ_1 cancels
        return torch.softmax(-_distances(queries, keys, indices, "l2").square(), dim=1)
    distances = _distances(queries, keys, indices, distance)
    closest = distances.min(dim=1, keepdim=True).values
    # (d_min / d)² in place of d⁻²: the same after normalisation, finite for any d, and for d_min = 0 the limit:
    # the keys that equal the query share all the weight
    weights = torch.where(distances == closest, 1.0, (closest / distances).square())
    return weights / weights.sum(dim=1, keepdim=True)


def _distances(queries: Tensor, keys: Tensor, indices: Tensor, distance: Distance) -> Tensor:
    """(n_queries, k): from differences, not from the matrix product, whose cancellation would spoil small distances."""
    if keys.device.type == "cpu":
        rows = max(1, _CACHED_BYTES // max(1, indices.shape[1] * keys.shape[1] * keys.element_size()))
        parts = zip(queries.split(rows), indices.split(rows), strict=True)
        return torch.cat([_distances_of_block(part, keys, chosen, distance) for part, chosen in parts])
    return _distances_of_block(queries, keys, indices, distance)


def _distances_of_block(queries: Tensor, keys: Tensor, indices: Tensor, distance: Distance) -> Tensor:
    neighbours = keys[indices]
    if distance == "cosine":  # 1 - cos is half the squared distance of the unit vectors
        difference = F.normalize(neighbours, dim=2).sub_(F.normalize(queries, dim=1)[:, None])
        return difference.square_().sum(dim=2) / 2
    return torch.linalg.vector_norm(neighbours.sub_(queries[:, None]), ord=1 if distance == "l1" else 2, dim=2)


def _exact(x: Tensor) -> Tensor:
    """In float64, but for Apple's GPUs, which have none."""
    return x.float() if x.device.type == "mps" else x.double()
