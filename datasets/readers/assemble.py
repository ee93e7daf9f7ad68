"""Turning what a reader found into a slide in the scverse Visium convention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from stbench.errors import UserError
from stbench.image import SlideImage
from stbench.slide import Slide, count_fault


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
    spot_diameter_px: float | None = None,
    labels: Sequence[str | None] | None = None,
    notes: Sequence[str] = (),
) -> Slide:
    """A slide of ``counts`` (n_spots, n_genes; sparse, already checked to be counts) and what goes with its rows.

    ``array_xy`` (n_spots, 2) integers; ``centres`` (n_spots, 2) x, y in full-resolution pixels; ``labels`` one per
    spot, ``None`` where there is none.
    """
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    obs = pd.DataFrame(
        {
            "in_tissue": np.ones(len(spot_ids), dtype=np.int64),
            "array_row": np.asarray(array_xy, dtype=np.int64)[:, 1],
            "array_col": np.asarray(array_xy, dtype=np.int64)[:, 0],
        },
        index=pd.Index([str(name) for name in spot_ids]),
    )
    if labels is not None:
        obs["label"] = pd.Categorical(list(labels))
    scale_factors = {} if image.level == "full" else {f"tissue_{image.level}_scalef": float(image.scale)}
    if spot_diameter_px is not None:
        scale_factors["spot_diameter_fullres"] = float(spot_diameter_px)
    metadata = {"source_image_path": str(image.path)} if image.path is not None else {}
    adata = AnnData(
        X=sparse.csr_matrix(counts, dtype=np.int32),
        obs=obs,
        var=pd.DataFrame(index=pd.Index([str(name) for name in genes])),
        obsm={"spatial": np.asarray(centres, dtype=np.float64)},
        uns={"spatial": {slide_id: {"images": {}, "scalefactors": scale_factors, "metadata": metadata}}},
    )
    return Slide(slide_id, patient, adata, image, um_per_px, tuple(f"{slide_id}: {note}" for note in notes))


def require_counts(values: np.ndarray, place: str) -> None:
    """Raise a ``UserError`` that names ``place`` unless ``values`` are non-negative integers."""
    fault = count_fault(values)
    if fault is not None:
        raise UserError(f"{place}: {fault} - give raw counts: non-negative integers")


def unique_symbols(names: Sequence[str]) -> tuple[list[str], int]:
    """Gene names made unique, and how many repeated ones there were.

    Gene symbols of 10x references repeat. As in scanpy the first keeps its name and the next become ``NAME-1``, so a
    panel that asks for such a symbol gets the first.
    """
    from anndata.utils import make_index_unique
    from pandas import Index

    index = Index([str(name) for name in names])
    repeated = int(index.duplicated().sum())
    return (list(make_index_unique(index)) if repeated else list(index)), repeated
