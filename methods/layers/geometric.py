"""What is used of torch-geometric, imported without the deprecation warning that it sets off."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)
    from torch_geometric.nn import SAGEConv
    from torch_geometric.utils import scatter, softmax

__all__ = ["SAGEConv", "scatter", "softmax"]
