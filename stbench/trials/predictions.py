"""What a method returned as its prediction of a slide, as an array; whatever is not plainly one is refused in words."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MethodFailed
from ..system.calls import named
from ..system.finite import not_finite

if TYPE_CHECKING:
    import pandas as pd

    from ..data.prepared import PreparedSlide
    from ..method import TestSlide


def as_prediction(value: Any, slide: TestSlide, genes: Sequence[str], method: str) -> np.ndarray:
    """(n_spots, n_genes) float32: a copy of what ``method`` predicted for ``slide``.

    Taken are numpy arrays of real numbers, torch tensors wherever they are, and a DataFrame whose columns are the
    genes, in any order, and whose index counts the spots from 0. Raises ``MethodFailed`` for anything else.
    """
    shape = (slide.n_spots, len(genes))
    what, wanted = f"{method} predicted {named(value)} for slice {slide.id}", f"an array of shape {shape} is needed"
    array = _values(value, genes, what, wanted)
    if array.dtype.kind not in "fiu":
        raise MethodFailed(f"{what} of type {array.dtype}, {wanted}, of real numbers (float32)")
    if array.shape != shape:
        turned = ": spots are rows, genes are columns" if array.shape == shape[::-1] else ""
        raise MethodFailed(f"{method} predicted an array of shape {array.shape} for slice {slide.id}, {wanted}{turned}")
    with np.errstate(over="ignore"):  # what is too large becomes infinite
        return np.array(array, dtype=np.float32, order="C")  # a copy: a method may use its buffer again


def require_finite(prediction: np.ndarray, slide: PreparedSlide) -> np.ndarray:
    """``prediction``; ``MethodFailed``, with the place, where a value is NaN or infinite."""
    wrong = not_finite(prediction)
    if wrong is not None:
        raise MethodFailed(
            f"{wrong.count} predicted values for slice {slide.id} are NaN or infinite, or too large for float32 "
            f"(first: spot {slide.spot_ids[wrong.row]}, gene {slide.genes[wrong.column]})"
        )
    return prediction


def _values(value: Any, genes: Sequence[str], what: str, wanted: str) -> np.ndarray:
    torch, pandas = sys.modules.get("torch"), sys.modules.get("pandas")
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.getmaskarray(value).any():
            raise MethodFailed(f"{what} with masked values, {wanted}, with a number for every spot and gene")
        return np.asarray(value.data)
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if torch is not None and isinstance(value, torch.Tensor):
        if value.layout != torch.strided or value.is_complex() or value.is_quantized or value.device.type == "meta":
            raise MethodFailed(f"{what} ({value.layout}, {value.dtype}, on {value.device}), {wanted}")
        plain = value.detach().cpu()
        narrow = plain.dtype.is_floating_point and plain.dtype.itemsize < 4  # numpy does not know all of them
        return np.asarray((plain.float() if narrow else plain.resolve_neg()).numpy())
    if pandas is not None and isinstance(value, pandas.DataFrame):
        return _by_names(value, genes, what, wanted)
    hint = " (.toarray() gives it)" if hasattr(value, "toarray") else ""
    raise MethodFailed(f"{what}, {wanted}{hint}")


def _by_names(table: pd.DataFrame, genes: Sequence[str], what: str, wanted: str) -> np.ndarray:
    place = {name: i for i, name in enumerate(table.columns)}
    if len(table.columns) != len(genes) or place.keys() != set(genes):
        raise MethodFailed(f"{what}, {wanted}: the DataFrame's columns are not the genes, so that none can be told")
    if list(table.index) != list(range(len(table))):
        raise MethodFailed(f"{what}, {wanted}: the DataFrame's index does not count the spots from 0, in their order")
    return np.asarray(table.iloc[:, [place[name] for name in genes]].to_numpy())
