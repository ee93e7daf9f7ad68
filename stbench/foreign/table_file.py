"""Writing .h5ad files that every anndata since 0.8 reads, and h5py alone.

anndata writes what itself reads: texts and empty places in ways that an older one does not know. The files here are of
its oldest layout that is still current, plain arrays without compression.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..system.hdf5_content import hdf5_content


def write_table(
    path: Path,
    spots: Sequence[str],
    genes: Sequence[str],
    obs: Mapping[str, np.ndarray],
    obsm: Mapping[str, np.ndarray],
    matrix: np.ndarray | None = None,
    layers: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Write an AnnData file.

    ``obs``: columns (n_spots,); ``obsm``: (n_spots, n); ``matrix`` and ``layers``: (n_spots, n_genes). Without a
    ``matrix`` the file has no X.
    """

    def fill(file: h5py.File) -> None:
        _encoded(file, "anndata", "0.1.0")
        _frame(file.create_group("obs"), spots, obs)
        _frame(file.create_group("var"), genes, {})
        for name, arrays in (("obsm", obsm), ("layers", layers or {})):
            group = _encoded(file.create_group(name), "dict", "0.1.0")
            for key, values in arrays.items():
                _array(group, key, values)
        for name in ("uns", "varm", "obsp", "varp"):
            _encoded(file.create_group(name), "dict", "0.1.0")
        if matrix is not None:
            _array(file, "X", matrix)

    path.write_bytes(hdf5_content(fill))


def _encoded(thing: Any, kind: str, version: str) -> Any:
    thing.attrs["encoding-type"] = kind
    thing.attrs["encoding-version"] = version
    return thing


def _array(group: h5py.Group, name: str, values: np.ndarray) -> None:
    _encoded(group.create_dataset(name, data=np.ascontiguousarray(values)), "array", "0.2.0")


def _frame(group: h5py.Group, names: Sequence[str], columns: Mapping[str, np.ndarray]) -> None:
    _encoded(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    group.attrs.create("column-order", list(columns), dtype=h5py.string_dtype())
    texts = group.create_dataset("_index", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
    _encoded(texts, "string-array", "0.2.0")
    for name, values in columns.items():
        _array(group, name, values)
