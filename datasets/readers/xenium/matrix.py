"""The cell-feature matrix of a Xenium bundle: HDF5 and Matrix Market as Cell Ranger writes them, or zipped Zarr."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.system.compressed import existing

from ..assemble import check_sparse, require_counts
from ..space_ranger.matrix import read_matrix as read_10x_matrix

GENE = ("gene", "gene expression")  # feature types, in lower case


@dataclass(frozen=True)
class CellMatrix:
    cells: list[str]
    counts: Any  # CSR, cells x genes
    genes: list[str]
    gene_ids: list[str] | None  # Ensembl's
    not_genes: Counter[str]  # features of other types: control probes, code words


def read_matrix(path: Path) -> CellMatrix:
    if path.name.endswith(".zip"):
        return _read_zarr(path)
    matrix = read_10x_matrix(path)
    return CellMatrix(matrix.barcodes, matrix.counts, matrix.features.names, matrix.features.ids, matrix.not_genes)


def _read_zarr(path: Path) -> CellMatrix:
    """Features x cells by rows; names and types of features are attributes, a cell's name is a pair of numbers."""
    import zarr
    from scipy import sparse

    existing(path)
    try:
        with zarr.storage.ZipStore(path, mode="r") as store:
            group: Any = zarr.open_group(store, mode="r")["cell_features"]
            names, ids, types = (
                [str(name) for name in group.attrs[f"feature_{key}"]] for key in ("keys", "ids", "types")
            )
            data, indices, indptr = (np.asarray(group[name][...]) for name in ("data", "indices", "indptr"))
            cells = _cell_names(np.asarray(group["cell_id"][...]))
        features = sparse.csr_matrix((data, indices, indptr), shape=(len(names), len(cells)))
        check_sparse(features)
        counts = features.T.tocsr()
    except (OSError, KeyError, ValueError, TypeError, IndexError, RuntimeError) as error:
        raise UserError(f"{path} is not a cell-feature matrix in Zarr ({reason_of(error)}) - fetch it again") from error
    except Exception as error:  # zipfile's and zarr's own kinds
        if type(error).__module__.partition(".")[0] not in ("zarr", "zipfile", "zlib", "numcodecs"):
            raise
        raise UserError(f"{path} is a damaged Zarr archive ({reason_of(error)}) - fetch it again") from error
    require_counts(counts.data, str(path))
    if not len(types) == len(ids) == len(names):
        raise UserError(f"{path}: {len(names)} features have {len(ids)} ids and {len(types)} types - fetch it again")
    if len(set(cells)) < len(cells):
        raise UserError(f"{path} names the cell {Counter(cells).most_common(1)[0][0]} more than once - fetch it again")
    chosen = [column for column, kind in enumerate(types) if kind.lower() in GENE]
    if not chosen:
        raise UserError(f"{path} has no feature of the type 'gene' - it is not a matrix of genes")
    others = Counter(kind for kind in types if kind.lower() not in GENE)
    genes, gene_ids = ([listed[column] for column in chosen] for listed in (names, ids))
    return CellMatrix(cells, counts[:, chosen], genes, gene_ids, others)


def _cell_names(pairs: np.ndarray) -> list[str]:
    """Of (prefix, suffix) the names that other files of the bundle have.

    The prefix in hexadecimal, eight digits, with the letters a to p for the digits; then the suffix: ``ffkpbaba-1``.
    In the first version cells were numbered, without a suffix.
    """
    if pairs.ndim == 1:
        return [str(int(number)) for number in pairs]
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"cell_id has the shape {pairs.shape}")
    letters = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
    return [f"{int(prefix):08x}".translate(letters) + f"-{int(suffix)}" for prefix, suffix in pairs.tolist()]
