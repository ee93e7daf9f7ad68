"""Space Ranger's count matrices, as HDF5 or Matrix Market files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from stbench.errors import UserError, reason_of
from stbench.system.compressed import existing, locked_hdf5, open_binary, open_text

from ..assemble import require_counts, sound_csr, unmatched

if TYPE_CHECKING:
    pass
from .files import matrix_files


def only_chosen(matrix: Any, barcodes: list[str], chosen: Path, counts: Path) -> tuple[Any, list[str]]:
    """The rows named in the file ``chosen``, in its order."""
    wanted = _lines(chosen)
    row = {barcode: position for position, barcode in enumerate(barcodes)}
    absent = [barcode for barcode in wanted if barcode not in row]
    if absent:
        raise UserError(
            f"{len(absent)} of the {len(wanted)} barcodes of {chosen}, the first is {absent[0]}, are not in {counts} "
            f"(which has {unmatched(barcodes, wanted)[0]}) - the two do not belong together"
        )
    return matrix[[row[barcode] for barcode in wanted]], wanted


def read_matrix(path: Path) -> tuple[Any, list[str], list[str]]:
    """Counts (CSR, spots x genes), barcodes and gene symbols of the features that are gene expression."""
    if path.is_dir():
        matrix, barcodes, symbols, kinds = _read_mex(*matrix_files(path))
    else:
        matrix, barcodes, symbols, kinds = _read_h5(path)
    require_counts(matrix.data, str(path))
    if len(set(barcodes)) < len(barcodes):
        seen: set[str] = set()
        twice = next(one for one in barcodes if one in seen or seen.add(one))  # type: ignore[func-returns-value]
        raise UserError(f"{path}: barcodes occur more than once (the first is {twice}) - each must stand there once")
    if kinds is not None:
        expression = [column for column, kind in enumerate(kinds) if kind == "Gene Expression"]
        if not expression:
            raise UserError(f"{path} has no feature of type 'Gene Expression' - it is not a matrix of genes")
        matrix, symbols = matrix[:, expression], [symbols[column] for column in expression]
    return matrix, barcodes, symbols


def _read_mex(matrix_path: Path, barcodes_path: Path, features_path: Path) -> tuple[Any, list[str], list[str], Any]:
    from scipy import sparse
    from scipy.io import mmread

    barcodes = [line.strip('"') for line in _lines(barcodes_path)]
    rows = [[field.strip('"') for field in line.split("\t")] for line in _lines(features_path)]
    widths = {len(row) for row in rows}
    if len(widths) > 1 or max(widths) > 6:
        raise UserError(
            f"{features_path} has rows of {sorted(widths)} columns - it must have the same 1, 2 or 3 throughout"
        )
    symbols = [row[0] if len(row) == 1 else row[1] for row in rows]  # one column: symbols only
    kinds = [row[2] for row in rows] if max(widths) >= 3 else None
    with open_binary(existing(matrix_path)) as stream:
        try:
            matrix = sparse.csr_matrix(mmread(stream).T)
        except (ValueError, IndexError, TypeError, OverflowError) as error:
            raise UserError(
                f"{matrix_path} is not a Matrix Market file ({reason_of(error)}) - fetch it again"
            ) from error
    if matrix.shape != (len(barcodes), len(symbols)):
        if matrix.shape == (len(symbols), len(barcodes)):
            raise UserError(f"{matrix_path} has barcodes as rows - transpose it: features are rows, barcodes columns")
        raise UserError(
            f"{matrix_path} is {matrix.shape[1]} x {matrix.shape[0]}, but there are {len(symbols)} features in "
            f"{features_path.name} and {len(barcodes)} barcodes in {barcodes_path.name} - they do not belong together"
        )
    return matrix, barcodes, symbols, kinds


def _lines(path: Path) -> list[str]:
    with open_text(existing(path)) as text:
        lines = [line.rstrip("\r\n") for line in text]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise UserError(f"{path} has no lines - fetch it again")
    return lines


def _read_h5(path: Path) -> tuple[Any, list[str], list[str], Any]:
    import h5py

    existing(path)
    try:
        with h5py.File(path, "r") as file:
            group, symbols, kinds = _h5_features(path, file)
            n_genes, n_barcodes = (int(length) for length in group["shape"][:])
            barcodes = _strings(group["barcodes"])
            # genes x barcodes by columns is barcodes x genes by rows
            data, indices, indptr = (group[name][:] for name in ("data", "indices", "indptr"))
            matrix = sound_csr(data, indices, indptr, (n_barcodes, n_genes))
    except BlockingIOError as error:
        raise locked_hdf5(path) from error
    except (OSError, KeyError, ValueError) as error:
        raise UserError(
            f"{path} is not a feature-barcode matrix in HDF5 ({reason_of(error)}) - fetch it again"
        ) from error
    if len(barcodes) != n_barcodes or len(symbols) != n_genes:
        raise UserError(
            f"{path}: {n_genes} x {n_barcodes} counts do not fit its lists of genes and barcodes - fetch it again"
        )
    return matrix, barcodes, symbols, kinds


def _h5_features(path: Path, file: Any) -> tuple[Any, list[str], list[str] | None]:
    if "matrix" in file:
        group = file["matrix"]
        features = group["features"]
        kinds = _strings(features["feature_type"]) if "feature_type" in features else None
        return group, _strings(features["name"]), kinds
    genomes = [name for name in file if "gene_names" in file[name]]
    if len(genomes) != 1:
        what = f"several genomes ({', '.join(genomes)})" if genomes else "no group 'matrix'"
        raise UserError(f"{path} has {what} - give the filtered_feature_bc_matrix.h5 of one genome")
    return file[genomes[0]], _strings(file[genomes[0]]["gene_names"]), None


def _strings(dataset: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in dataset[:]]
