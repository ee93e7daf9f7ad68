"""Where an AnnData object keeps raw counts, and which genes they are of.

``X`` may hold counts, logarithms, residuals or nothing; layers are named as anybody likes; ``raw`` has genes of its
own, in an order of its own. So a matrix is never separated from the table of genes that belongs to it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.errors import UserError, unknown
from stbench.slides.counts import count_fault, distance_to_whole

from ..assemble import unique_symbols
from ..space_ranger.features import note_of_others

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

COUNT_LAYERS = ("counts", "raw")
SYMBOL_COLUMNS = (  # in lower case
    *("gene_name", "feature_name", "gene_symbols", "gene_symbol", "symbol", "symbols", "gene_short_name"),
    *("hgnc_symbol", "gene_names", "gene", "name"),
)
TYPE_COLUMNS = ("feature_types", "feature_type")
NO_GENES = (  # types of features, in lower case
    *("antibody capture", "crispr guide capture", "multiplexing capture", "antigen capture", "custom", "protein"),
    *("negative control probe", "negative control codeword", "unassigned codeword", "deprecated codeword"),
    *("blank codeword", "genomic control", "peaks"),
)
CONTROL = re.compile(r"(NegControl(Probe|Codeword)|(Unassigned|Deprecated)Codeword|BLANK|antisense)_.", re.IGNORECASE)
ALL_ZERO = "nothing but zeros"
OF_LAYERS = re.compile(r"layers\['(.*)'\]")


def counts_and_genes(path: Path, adata: AnnData, layer: str | None, notes: list[str]) -> tuple[Any, list[str]]:
    """The raw counts (CSR, n_spots x n_genes) and the names of *their* columns; raw may have other genes than var.

    Without ``layer`` the first of X, layers["counts"], layers["raw"], raw.X that holds non-negative integers, not all
    of them zero; exact ones before those that are whole but for rounding.
    """
    from scipy import sparse

    places = _places(adata)
    if layer is not None:
        names = {("X" if place == "X" else name): place for name, place in _layer_names(adata).items()}
        if layer not in names:
            raise unknown(f"layer of {path}", layer, names)
        usual = [names[layer]]
    else:
        usual = [place for place in places if place in ("X", "raw.X", *(f"layers['{name}']" for name in COUNT_LAYERS))]
    faults = {place: _fault(places[place][0]) for place in places}
    sound = [place for place in usual if faults[place] is None]
    if not sound:
        elsewhere = [place for place in places if faults[place] is None]
        if elsewhere:
            raise no_counts(path, {place: str(faults[place]) for place in usual}, elsewhere)
        sound = [place for place in usual if faults[place] == ALL_ZERO]  # a section in which nothing was counted
    if not sound:
        raise UserError(
            f"{path} holds no raw counts ({'; '.join(f'{place}: {faults[place]}' for place in usual)}) - "
            "put non-negative integers into X or layers['counts']"
        )
    exact = [place for place in sound if not distance_to_whole(_values_of(places[place][0]))]
    chosen = (exact or sound)[0]
    matrix, var = places[chosen]
    if layer is None and chosen != "X":
        notes.append(f"raw counts are taken from {chosen}; X: {faults['X'] or 'whole only after rounding'}")
    if layer is None:
        notes += _rivals(places, chosen, sound)
    matrix = sparse.csr_matrix(matrix)
    kept = _genes_alone(path, var, notes)
    return (matrix, _genes(adata, var, notes)) if kept.all() else (matrix[:, kept], _genes(adata, var[kept], notes))


def _genes_alone(path: Path, var: pd.DataFrame, notes: list[str]) -> np.ndarray:
    """(n_vars,) bool: what is a gene, by the types that 10x Genomics writes or by how the makers name the rest.

    Other columns called so hold biotypes, as ``protein_coding``: only what is known to be no gene is left out.
    """
    column = next((var[name] for name in TYPE_COLUMNS if name in var), None)
    types = [""] * len(var) if column is None else [str(value) for value in column.astype(object)]
    others = Counter({type_: types.count(type_) for type_ in dict.fromkeys(types) if type_.lower() in NO_GENES})
    kept = np.array([type_ not in others for type_ in types], dtype=bool)
    controls = kept & np.array([CONTROL.match(str(name)) is not None for name in var.index], dtype=bool)
    if controls.any():
        others["controls by their names"] = int(controls.sum())
    kept &= ~controls
    if not kept.any():
        raise UserError(f"{path} has no genes but {', '.join(others)} - it is not a matrix of genes")
    notes += note_of_others(others)
    return kept


def no_counts(path: Path, faults: Mapping[str, str], counts_in: Sequence[str]) -> UserError:
    """For an object that has no counts where they are looked for (``faults``), but in the places ``counts_in``."""
    what = "; ".join(f"{place} {_held(fault)}" for place, fault in faults.items())
    layers = [OF_LAYERS.sub(r"\1", place) for place in counts_in]
    others = f" (or {', '.join(layers[1:])})" if len(layers) > 1 else ""
    return UserError(
        f"{path}: {what}; counts are in {', '.join(map(_quoted, counts_in))}: --layer {layers[0]}{others} (in a "
        f'manifest: layer = "{layers[0]}")'
    )


def _quoted(place: str) -> str:
    return OF_LAYERS.sub(r'layers["\1"]', place)


def _held(fault: str) -> str:
    """What a matrix holds that is not counts."""
    if "not whole numbers" in fault or "near zero" in fault or "negative" in fault:
        return f"holds normalised values ({fault.partition(': normalised')[0]})"
    return "is missing" if fault == "missing" else f"holds {fault}"


def _places(adata: AnnData) -> dict[str, tuple[Any, pd.DataFrame]]:
    """Every matrix of the object with the table of its genes, the usual places of counts first."""
    layers = [name for name in COUNT_LAYERS if name in adata.layers]
    layers += [name for name in adata.layers if name not in COUNT_LAYERS]
    places = {"X": (adata.X, adata.var)}
    places |= {f"layers['{name}']": (adata.layers[name], adata.var) for name in layers}
    if adata.raw is not None:
        places["raw.X"] = (adata.raw.X, adata.raw.var)
    return places


def _layer_names(adata: AnnData) -> dict[str, str]:
    """What ``layer`` may be, to the place that it names."""
    names = {name: f"layers['{name}']" for name in adata.layers}
    return names | {"X": "X"} | ({"raw.X": "raw.X"} if adata.raw is not None else {})


def _fault(matrix: Any) -> str | None:
    """What is wrong with a matrix as raw counts, in words."""
    if matrix is None:
        return "missing"
    values = _values_of(matrix)
    fault = count_fault(values)
    if fault is not None:
        return "nothing but NaN" if values.dtype.kind == "f" and np.isnan(values).all() else fault
    return None if np.rint(values).any() else ALL_ZERO


def _values_of(matrix: Any) -> np.ndarray:
    from scipy import sparse

    return np.asarray(matrix.data if sparse.issparse(matrix) else matrix)


def _rivals(places: Mapping[str, tuple[Any, pd.DataFrame]], chosen: str, sound: list[str]) -> list[str]:
    """A note where another matrix of the same genes holds other whole numbers: which are the counts is a guess."""
    from scipy import sparse

    matrix, var = places[chosen]
    for place in sound:
        other, other_var = places[place]
        if place == chosen or not var.index.equals(other_var.index):
            continue
        differing = (sparse.csr_matrix(matrix) - sparse.csr_matrix(other)).astype(np.float64)
        differing.data = np.rint(differing.data)
        n_different = differing.count_nonzero()
        if n_different:
            return [
                f"{chosen} and {place} both hold whole numbers, but differ in {n_different} values; {chosen} is taken: "
                'if the other are the counts, name it in a manifest with layer = "..."'
            ]
    return []


def _genes(adata: AnnData, var: pd.DataFrame, notes: list[str]) -> list[str]:
    """Unique gene symbols for the rows of ``var``; Ensembl identifiers are replaced where the object has symbols.

    Where ``var`` is that of raw and has no symbols, they are looked up by identifier in the object's own.
    """
    names = [str(name) for name in var.index]
    if 2 * sum(name.startswith("ENS") for name in names) > len(names):
        tables = [("raw.var", var), ("var", adata.var)] if var is not adata.var else [("var", var)]
        found = next(((where, column) for where, table in tables if (column := _symbols(table)) is not None), None)
        if found is not None:
            where, column = found
            symbol = {str(name): value for name, value in column.astype(object).items() if isinstance(value, str)}
            names = [symbol.get(name) or name for name in names]
            notes.append(f"genes are named by {where}['{column.name}'] instead of their Ensembl identifiers")
    genes, repeated = unique_symbols(names)
    notes += repeated
    return genes


def _symbols(var: pd.DataFrame) -> pd.Series | None:
    """The column of symbols, by its name and by not holding identifiers itself."""
    columns = {str(name).lower(): name for name in reversed(var.columns)}
    for known in SYMBOL_COLUMNS:
        column = var[columns[known]].astype(object) if known in columns else None
        if column is not None and 2 * sum(str(value).startswith("ENS") for value in column) <= len(column):
            return column
    return None
