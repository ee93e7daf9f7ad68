"""The demo: six small made-up sections of three patients, drawn in seconds, of which everything is known.

Nothing of it is data: it is there to try the tool, to test methods, and to see what a perfect score would be. The image
tells a part of the genes, the position on the array another part, and nothing the rest (``var["programme"]``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from stbench.dataset import Missing, SlideSource
from stbench.errors import unknown
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

from . import ceiling, expression, sections, tissue
from .sections import section
from .tissue import SLICES, UM_PER_PX

if TYPE_CHECKING:
    from anndata import AnnData

VERSION = 1  # raise it whenever an image or a count changes: prepared data and results are kept under it


class Demo:
    name: ClassVar[str] = "demo"
    title: ClassVar[str] = "Demo"
    slices: Sequence[str] = SLICES
    patch_px: int = tissue.PATCH
    how_to_get: str = "There is nothing to get: it is generated in seconds, without any file"
    citation: str = "Made up by stbench; not data of any patient"
    panel_source: str = "fixed by the generator, before any count is drawn"
    panel_saw_test: bool = False

    def __init__(self, root: Path | None = None) -> None:
        """``root`` is ignored: there are no files."""

    def patient(self, slice_id: str) -> str:
        if slice_id not in SLICES:
            raise unknown(f"slice of {self.name}", slice_id, SLICES)
        return tissue.patient_of(slice_id)

    def panel(self) -> list[str]:
        return expression.genes().panel

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        """All slices are always there."""
        return [
            SlideSource(
                id=slice_id,
                patient=self.patient(slice_id),
                read=partial(read_slide, slice_id),
                parameters={"generator": self.name, "version": VERSION, "slice": slice_id, "settings": settings()},
            )
            for slice_id in self.slices
        ], []


def settings() -> dict[str, Any]:
    """The numbers that the sections and their expression follow; part of the prepared data's key (JSON-able)."""
    return {
        "side": tissue.SIDE,
        "pitch": tissue.PITCH,
        "patch": tissue.PATCH,
        "grid": tissue.GRID,
        "patients": {name: asdict(patient) for name, patient in tissue.PATIENTS.items()},
        "expression": expression.settings(),
        "ceiling_draws": ceiling.DRAWS,
    }


def read_slide(slice_id: str) -> Slide:
    """The slide, with its truth: what counts are drawn around, and how well they can be predicted.

    Beyond what every slide has: ``layers["expected"]`` and ``var["dispersion"]``, mean and dispersion of each count's
    negative binomial distribution (var = mean + dispersion mean²); ``var["programme"]``; ``obs["label"]``, the region
    that fills most of the spot's window; ``obs["depth"]``; ``obsm["features"]``, what the window shows; and, for the
    default target and the panel's genes, ``var["best_r"]`` and ``var["image_r"]`` of
    :func:`stbench.datasets.demo.ceiling.best_reachable`.
    """
    drawn = section(slice_id)
    return Slide(
        id=slice_id,
        patient=tissue.patient_of(slice_id),
        adata=_annotated(slice_id),
        image=SlideImage.from_array(drawn.image),
        um_per_px=UM_PER_PX,
        notes=("made up: drawn by a generator, not data of any patient",),
    )


def _annotated(slice_id: str) -> AnnData:
    """A fresh table each time, for the caller to change as it likes."""
    import pandas as pd
    from anndata import AnnData
    from scipy import sparse

    drawn, truth = section(slice_id), expression.slide_truth(slice_id)
    spots = [f"{column}x{row}" for column, row in drawn.array_xy]
    obs = pd.DataFrame(
        {
            "array_row": drawn.array_xy[:, 1],
            "array_col": drawn.array_xy[:, 0],
            "in_tissue": np.ones(len(spots), dtype=np.int64),
            "label": list(drawn.labels),
            "depth": truth.depth,
        },
        index=spots,
    )
    table = truth.genes
    reachable = ceiling.best_reachable(slice_id).reindex(table.names)
    var = pd.DataFrame(
        {
            "programme": table.programme,
            "in_panel": table.in_panel,
            "dispersion": table.dispersion,
            "best_r": reachable["best_r"].to_numpy(),
            "image_r": reachable["image_r"].to_numpy(),
        },
        index=list(table.names),
    )
    adata = AnnData(
        X=sparse.csr_matrix(expression.slide_counts(slice_id).astype(np.int32)),
        obs=obs,
        var=var,
        layers={"expected": truth.expected},
        obsm={
            "spatial": drawn.centres.copy(),
            "features": pd.DataFrame(drawn.features, index=spots, columns=list(sections.FEATURES)),
        },
    )
    adata.uns["spatial"] = {
        slice_id: {
            "images": {},
            "scalefactors": {"spot_diameter_fullres": 55.0 / UM_PER_PX, "tissue_hires_scalef": 1.0},
            "metadata": {"software": f"stbench demo {VERSION}"},
        }
    }
    return adata
