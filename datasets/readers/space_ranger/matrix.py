"""Space Ranger's count matrices, as HDF5 or Matrix Market files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from stbench.errors import UserError, reason_of
from stbench.system.compressed import existing, is_gzipped, locked_hdf5, open_binary, open_text

from ..assemble import require_counts, unmatched
from .features import Features, excluded_genes, genes_of
from .files import is_mex, matrix_files

BLOCK = 8_000_000  # counts that are read at once
DENSEST = 4096  # counts per byte of a file, beyond which it claims more than it can hold
NOT_A_MATRIX = (OSError, KeyError, ValueError, TypeError, IndexError, AttributeError, RuntimeError)  # of h5py


@dataclass(frozen=True)
class Matrix:
    """Counts of genes alone."""

    counts: Any  # CSR, (n_barcodes, n_genes)
    barcodes: list[str]
    features: Features
    not_genes: Counter[str]  # features of other types
    notes: tuple[str, ...] = ()  # on genes that are left out

    def chosen(self, rows: np.ndarray) -> Any:
        """The counts of some rows, in their order; not copied where they are all."""
        whole = len(rows) == len(self.barcodes) and bool((rows == np.arange(len(rows))).all())
        return self.counts if whole else self.counts[rows]


def only_listed(matrix: Matrix, listed: Path, counts: Path) -> Matrix:
    """The rows named in the file ``listed``, in its order."""
    wanted = _lines(listed)
    row = {barcode: position for position, barcode in enumerate(matrix.barcodes)}
    absent = [barcode for barcode in wanted if barcode not in row]
    if absent:
        raise UserError(
            f"{len(absent)} of the {len(wanted)} barcodes of {listed}, the first is {absent[0]}, are not in {counts} "
            f"(which has {unmatched(matrix.barcodes, wanted)[0]}) - the two do not belong together"
        )
    chosen = np.array([row[barcode] for barcode in wanted])
    return replace(matrix, counts=matrix.chosen(chosen), barcodes=wanted)


def read_matrix(path: Path, probes: Path | None = None) -> Matrix:
    """Counts of the features that are genes. ``probes``: the table that says which genes are left out.

    Raises ``UserError`` for a file that is no feature-barcode matrix of raw counts, whatever is wrong with it.
    """
    excluded = excluded_genes(probes) if probes is not None else frozenset()
    matrix = _read_mex(path, excluded) if is_mex(path) else _read_h5(path, excluded)
    if len(set(matrix.barcodes)) < len(matrix.barcodes):
        seen: set[str] = set()
        twice = next(name for name in matrix.barcodes if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: barcodes occur more than once (the first is {twice}) - each must stand there once")
    return matrix


def _read_mex(folder: Path, excluded: frozenset[str]) -> Matrix:
    from scipy import sparse
    from scipy.io import mmread

    matrix_path, barcodes_path, features_path = matrix_files(folder)
    barcodes = [line.strip('"') for line in _lines(barcodes_path)]
    features = _mex_features(features_path)
    with open_binary(existing(matrix_path)) as stream:
        guarded = _Guarded(stream)
        try:
            found = mmread(guarded)
        except (ValueError, IndexError, TypeError, OverflowError, MemoryError) as error:
            if guarded.fault is not None:
                raise guarded.fault from error
            raise UserError(
                f"{matrix_path} is not a Matrix Market file ({reason_of(error)}) - fetch it again"
            ) from error
        if guarded.fault is not None:
            raise guarded.fault
    require_counts(found.data if sparse.issparse(found) else found, str(folder))
    counts = sparse.csr_matrix(found.T)
    if counts.shape != (len(barcodes), len(features)):
        if counts.shape == (len(features), len(barcodes)):
            raise UserError(f"{matrix_path} has barcodes as rows - transpose it: features are rows, barcodes columns")
        raise UserError(
            f"{matrix_path} is {counts.shape[1]} x {counts.shape[0]}, but there are {len(features)} features in "
            f"{features_path.name} and {len(barcodes)} barcodes in {barcodes_path.name} - they do not belong together"
        )
    genes, not_genes, notes = genes_of(features, folder, excluded)
    if len(genes) < len(features):
        counts = counts[:, genes]
    return Matrix(counts, barcodes, features.chosen(genes), not_genes, tuple(notes))


class _Guarded:
    """A stream that ends where reading it fails, and keeps what was raised.

    Scipy reads from compiled code, where an exception, as of a damaged gzip stream, ends the process. It cannot seek:
    scipy would, to where it stopped, when it lets go of the stream.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.fault: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        if self.fault is None:
            try:
                return self.stream.read(size)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is raised by who made this
                self.fault = error
        return b""


def _mex_features(path: Path) -> Features:
    rows = [[field.strip('"') for field in line.split("\t")] for line in _lines(path)]
    widths = {len(row) for row in rows}
    if len(widths) > 1 or max(widths) > 6:
        raise UserError(f"{path} has rows of {sorted(widths)} columns - it must have the same 1, 2 or 3 throughout")
    (width,) = widths
    if width == 1:
        return Features([row[0] for row in rows])
    kinds = [row[2] for row in rows] if width >= 3 else None
    return Features([row[1] for row in rows], [row[0] for row in rows], kinds)


def _lines(path: Path) -> list[str]:
    with open_text(existing(path)) as text:
        lines = [line.rstrip("\r\n") for line in text]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UserError(f"{path} has no lines - fetch it again")
    return lines


def _read_h5(path: Path, excluded: frozenset[str]) -> Matrix:
    import h5py

    existing(path)
    if is_gzipped(path):
        raise UserError(f"{path} is a gzipped HDF5 file, of which no part can be read alone - unpack it (gunzip)")
    try:
        with h5py.File(path, "r") as file:
            group, features = _h5_features(path, file)
            n_features, n_barcodes = (int(length) for length in _whole(group["shape"]))
            barcodes = _strings(group["barcodes"])
            if len(barcodes) != n_barcodes or len(features) != n_features:
                raise UserError(
                    f"{path}: {n_features} x {n_barcodes} counts do not fit its lists of genes and barcodes - "
                    "fetch it again"
                )
            genes, not_genes, notes = genes_of(features, path, excluded)
            columns = np.full(n_features, -1, dtype=np.int32)
            columns[genes] = np.arange(len(genes), dtype=np.int32)
            counts = _h5_counts(path, group, n_barcodes, columns, len(genes))
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except NOT_A_MATRIX as error:
        raise UserError(
            f"{path} is not a feature-barcode matrix in HDF5 ({reason_of(error)}) - fetch it again"
        ) from error
    return Matrix(counts, barcodes, features.chosen(genes), not_genes, tuple(notes))


def _h5_features(path: Path, file: Any) -> tuple[Any, Features]:
    if "matrix" in file:
        group = file["matrix"]
        listed = group["features"]
        if "filtered_probes" in listed or "probe_region" in listed:
            raise UserError(
                f"{path} counts probes, of which several bind to one gene - give filtered_feature_bc_matrix.h5, which "
                "counts genes"
            )
        kinds = _strings(listed["feature_type"]) if "feature_type" in listed else None
        ids = _strings(listed["id"]) if "id" in listed else None
        features = Features(_strings(listed["name"]), ids, kinds)
    else:
        genomes = [name for name in file if "gene_names" in file[name]]
        if len(genomes) != 1:
            what = f"several genomes ({', '.join(genomes)})" if genomes else "no group 'matrix'"
            raise UserError(f"{path} has {what} - give the filtered_feature_bc_matrix.h5 of one genome")
        group = file[genomes[0]]
        features = Features(_strings(group["gene_names"]), _strings(group["genes"]) if "genes" in group else None)
    for column in (features.ids, features.kinds):
        if column is not None and len(column) != len(features):
            raise UserError(f"{path}: its lists of names, ids and types of features differ in length - fetch it again")
    return group, features


def _strings(dataset: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in _whole(dataset).tolist()]


def _whole(dataset: Any) -> np.ndarray:
    """All values. A damaged file may claim any number of them, which memory would be taken for."""
    size = Path(dataset.file.filename).stat().st_size
    if dataset.size > DENSEST * size:
        raise ValueError(f"it claims {dataset.size} values, more than a file of its size can hold")
    return np.asarray(dataset[:])


def _h5_counts(path: Path, group: Any, n_barcodes: int, columns: np.ndarray, n_genes: int) -> Any:
    """Counts of the features that have a column, block by block: indices are stored in twice the width they need.

    ``columns`` (n_features,): the column of each feature, -1 for those left out. Genes x barcodes by columns, as the
    file has them, is barcodes x genes by rows.
    """
    from scipy import sparse

    values, indices = group["data"], group["indices"]
    ends, n_counts = _whole(group["indptr"]), int(values.shape[0])
    if n_counts > DENSEST * path.stat().st_size:
        raise ValueError(f"it claims {n_counts} counts, more than a file of its size can hold")
    if ends.dtype.kind not in "iu" or indices.dtype.kind not in "iu":
        raise ValueError("its indices are no integers")
    ends = ends.astype(np.int64)
    if len(ends) != n_barcodes + 1 or (np.diff(ends) < 0).any() or (ends[0], ends[-1]) != (0, n_counts):
        raise ValueError("its parts indptr and data do not fit each other")
    if indices.shape != values.shape:
        raise ValueError("its parts indices and data do not fit each other")
    whole = bool((columns >= 0).all())
    data = np.empty(n_counts, dtype=np.int32 if values.dtype.kind in "iub" else values.dtype)
    kept_columns = np.empty(n_counts, dtype=np.int32)
    per_barcode = np.empty(n_barcodes, dtype=np.int64)
    n_kept = row = 0
    while row < n_barcodes:
        last = max(int(np.searchsorted(ends, ends[row] + BLOCK, side="right")) - 1, row + 1)
        block = slice(int(ends[row]), int(ends[last]))
        counts, features = values[block], indices[block]
        require_counts(counts, str(path))
        if len(features) and (int(features.min()) < 0 or int(features.max()) >= len(columns)):
            raise ValueError("its indices name features that it does not list")
        inside = ends[row : last + 1] - ends[row]
        at = columns[features]
        if not whole:
            keep = at >= 0
            inside = np.concatenate([[0], np.cumsum(keep)])[inside]
            at, counts = at[keep], counts[keep]
        per_barcode[row:last] = np.diff(inside)
        data[n_kept : n_kept + len(at)], kept_columns[n_kept : n_kept + len(at)] = counts, at
        n_kept, row = n_kept + len(at), last
    starts = np.concatenate([[0], np.cumsum(per_barcode)])
    starts = starts.astype(np.int32) if n_kept <= np.iinfo(np.int32).max else starts
    return sparse.csr_matrix((data[:n_kept], kept_columns[:n_kept], starts), shape=(n_barcodes, n_genes))
