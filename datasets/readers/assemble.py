"""Turning what a reader found into a slide in the scverse Visium convention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from stbench.errors import UserError
from stbench.slides.counts import count_fault, distance_to_whole
from stbench.slides.evidence import NOTHING, Evidence
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide
from stbench.system.wording import that


def assemble(
    slide_id: str,
    patient: str,
    *,
    counts: Any,
    genes: Sequence[str],
    spot_ids: Sequence[str],
    array_xy: np.ndarray,
    centres: np.ndarray,
    image: SlideImage,
    um_per_px: float | None,
    um_per_px_from: str = "",
    spot_diameter_px: float | None = None,
    labels: Sequence[str | None] | None = None,
    notes: Sequence[str] = (),
    evidence: Evidence = NOTHING,
    gene_ids: Sequence[str] | None = None,
) -> Slide:
    """A slide of ``counts`` (n_spots, n_genes; sparse, already checked to be counts) and what goes with its rows.

    Counts that are whole but for rounding are rounded, with a note. ``gene_ids`` (Ensembl's) go to ``var["gene_ids"]``.

    ``um_per_px_from`` says in a few words where ``um_per_px`` comes from.

    ``array_xy`` (n_spots, 2) integers; ``centres`` (n_spots, 2) x, y in full-resolution pixels; ``labels`` one per
    spot, ``None`` where there is none.
    """
    import pandas as pd
    from anndata import AnnData

    obs = pd.DataFrame(
        {
            "in_tissue": np.ones(len(spot_ids), dtype=np.int64),
            "array_row": np.asarray(array_xy, dtype=np.int64)[:, 1],
            "array_col": np.asarray(array_xy, dtype=np.int64)[:, 0],
        },
        index=pd.Index([str(name) for name in spot_ids]),
    )
    matrix, rounded = _whole(counts)
    if labels is not None:
        obs["label"] = pd.Categorical(list(labels))
        notes = [*notes, *_perhaps_missing(labels)]
    scale_factors = {} if image.level == "full" else {f"tissue_{image.level}_scalef": float(image.scale)}
    if spot_diameter_px is not None:
        scale_factors["spot_diameter_fullres"] = float(spot_diameter_px)
    metadata = {"source_image_path": str(image.path)} if image.path is not None else {}
    adata = AnnData(
        X=matrix,
        obs=obs,
        var=pd.DataFrame(
            {} if gene_ids is None else {"gene_ids": [str(name) for name in gene_ids]},
            index=pd.Index([str(name) for name in genes]),
        ),
        obsm={"spatial": np.asarray(centres, dtype=np.float64)},
        uns={"spatial": {slide_id: {"images": {}, "scalefactors": scale_factors, "metadata": metadata}}},
    )
    told = tuple(f"{slide_id}: {note}" for note in (*notes, *rounded))
    return Slide(slide_id, patient, adata, image, um_per_px, told, evidence, um_per_px_from)


def _whole(counts: Any) -> tuple[Any, list[str]]:
    """``counts`` as int32 (CSR, nothing stored that is zero), and a note where they had to be rounded."""
    from scipy import sparse

    matrix = sparse.csr_matrix(counts)
    matrix.sum_duplicates()
    distance = distance_to_whole(matrix.data)
    values = np.rint(matrix.data) if matrix.data.dtype.kind == "f" else matrix.data
    matrix = sparse.csr_matrix((values.astype(np.int32, copy=False), matrix.indices, matrix.indptr), shape=matrix.shape)
    matrix.eliminate_zeros()
    if not distance:
        return matrix, []
    return matrix, [
        f"counts are whole but for rounding (largest distance to a whole number {distance:.2g}) and have been rounded"
    ]


def _perhaps_missing(labels: Sequence[str | None]) -> list[str]:
    """Notes on labels that are names here (NA: normal adjacent) and that other tools write where there is none."""
    found = Counter(label for label in labels if label in ("NA", "N/A", "nan", "NaN", "None", "null"))
    return [
        f"{count} spots are labelled {name}, which is taken for a region's name: leave blank what has no label"
        for name, count in found.items()
    ]


def check_sparse(matrix: Any) -> None:
    """Raise ``ValueError`` where the arrays of a CSR or CSC matrix, which come from a file, contradict each other.

    Compiled code, which does not look, would read beyond them.
    """
    for name in ("indices", "indptr"):
        if getattr(matrix, name).dtype.kind not in "iu":
            raise ValueError(f"{name} of a sparse matrix are {getattr(matrix, name).dtype}, not integers")
    matrix.check_format(full_check=True)


def require_counts(values: np.ndarray, place: str) -> None:
    """Raise a ``UserError`` that names ``place`` unless ``values`` are non-negative integers."""
    fault = count_fault(values)
    if fault is not None:
        raise UserError(f"{place}: {fault} - give raw counts: non-negative integers")


def unmatched(ours: Sequence[str], theirs: Sequence[str]) -> tuple[str, str]:
    """One name of either side that the other lacks (else its first), for a message that names do not match."""
    known, given = set(ours), set(theirs)
    return (
        next((name for name in ours if name not in given), next(iter(ours), "none")),
        next((name for name in theirs if name not in known), next(iter(theirs), "none")),
    )


def unique_symbols(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Gene names made unique, and a note where some had to be.

    Gene symbols of 10x references repeat. As in scanpy the first keeps its name and the next become ``NAME-1``, so a
    panel that asks for such a symbol gets the first.
    """
    from anndata.utils import make_index_unique
    from pandas import Index

    index = Index([str(name) for name in names])
    repeated = int(index.duplicated().sum())
    if not repeated:
        return list(index), []
    return list(make_index_unique(index)), [
        f"{that(repeated, 'gene symbol', 'repeats', 'repeat')}; the first of each keeps the name"
    ]
