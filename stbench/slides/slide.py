"""A slide as readers return it: an image, spots, and their counts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .evidence import NOTHING, Evidence
from .image import SlideImage

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Slide:
    """One tissue section (the field's papers say slice).

    ``adata`` follows the scverse Visium convention: ``X`` raw counts (spots x genes, CSR, non-negative integers);
    ``obs`` with ``array_row``, ``array_col`` (integers; on first-generation arrays ``array_col`` is the first index x
    and ``array_row`` the second, y), ``in_tissue`` and, where known, ``label``; ``obsm["spatial"]`` pixel centres
    (x = column, y = row), float64, **full resolution**, origin top left; ``uns["spatial"][id]`` scale factors and the
    image's path.

    ``image`` may be coarser than full resolution: ``image.scale`` is image pixels per full-resolution pixel.
    """

    id: str
    patient: str
    adata: AnnData
    image: SlideImage
    um_per_px: float | None = None  # µm per full-resolution pixel; None: unknown
    notes: tuple[str, ...] = ()  # what a reader had to decide, in plain words; shown once to the user
    evidence: Evidence = NOTHING  # what says whether image, positions and counts belong together
    um_per_px_from: str = ""  # where um_per_px comes from, in a few words

    @property
    def n_spots(self) -> int:
        return int(self.adata.n_obs)

    @property
    def genes(self) -> list[str]:
        return [str(name) for name in self.adata.var_names]

    @property
    def spot_ids(self) -> list[str]:
        return [str(name) for name in self.adata.obs_names]

    @property
    def centres(self) -> np.ndarray:
        """(n_spots, 2) float64: pixel centres x, y in full-resolution pixels."""
        return np.asarray(self.adata.obsm["spatial"], dtype=np.float64)

    @property
    def array_xy(self) -> np.ndarray:
        """(n_spots, 2) int64: array column, array row."""
        obs = self.adata.obs
        return np.stack([np.asarray(obs["array_col"]), np.asarray(obs["array_row"])], axis=1).astype(np.int64)
