"""What is used of torch-geometric, imported where a network is built or runs.

Importing it takes as long as importing torch: methods are looked up, described and refused without it. Its import sets
off a deprecation warning of torch, which is not ours to mend.
"""

from __future__ import annotations

import functools
import warnings
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from types import ModuleType

    from torch_geometric.nn import SAGEConv


@functools.cache
def _torch_geometric() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import torch_geometric.nn
        import torch_geometric.utils
    return torch_geometric


def mean_of_neighbours(width: int) -> SAGEConv:
    """GraphSAGE's mean over neighbours, ``(n, width)`` to ``(n, width)``: no weight for the node itself, no bias."""
    layer: SAGEConv = _torch_geometric().nn.SAGEConv(width, width, aggr="mean", root_weight=False, bias=False)
    return layer


def scatter_sum(values: Tensor, index: Tensor, n: int) -> Tensor:
    """``(n, ...)``: the sum of the rows of ``values`` (n_edges, ...) that have each index."""
    total: Tensor = _torch_geometric().utils.scatter(values, index, dim=0, dim_size=n)
    return total


def softmax_within(scores: Tensor, index: Tensor, n: int) -> Tensor:
    """``scores`` (n_edges, ...) normalised over the rows that have the same index, of ``n``."""
    weights: Tensor = _torch_geometric().utils.softmax(scores, index, num_nodes=n)
    return weights
