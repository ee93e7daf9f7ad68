"""A made section of bins of 8 µm, as Visium HD has them by the hundred thousand, on an image written tile by tile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import scipy.sparse
import tifffile

from stbench.dataset import Missing, SlideSource
from stbench.slides.image import SlideImage
from stbench.slides.slide import Slide

UM_PER_PX, BIN_UM = 0.5, 8.0
N_GENES, PER_BIN = 1000, 100  # genes of the panel, and of them those counted in a bin
MARGIN = 120  # px around the bins


def n_columns(n_bins: int) -> int:
    return int(np.ceil(n_bins**0.5))


def side_of(n_bins: int) -> int:
    return int(n_columns(n_bins) * BIN_UM / UM_PER_PX) + 2 * MARGIN


def write_image(path: Path, n_bins: int) -> None:
    side = side_of(n_bins)
    rng = np.random.default_rng(0)
    made = [np.clip(rng.normal((200, 130, 180), 12, (256, 256, 3)), 0, 255).astype(np.uint8) for _ in range(16)]

    def tiles() -> Iterator[np.ndarray]:
        for _ in range((-(-side // 256)) ** 2):
            yield made[rng.integers(16)]

    tifffile.imwrite(
        path, tiles(), shape=(side, side, 3), dtype=np.uint8, photometric="rgb", tile=(256, 256), compression="jpeg",
        bigtiff=True,
    )  # fmt: skip


def section(name: str, image: Path, n_bins: int) -> Slide:
    columns = n_columns(n_bins)
    place = np.arange(n_bins)
    array_xy = np.stack([place % columns, place // columns], axis=1)
    rng = np.random.default_rng(1)
    genes = (rng.integers(0, N_GENES // PER_BIN, (n_bins, PER_BIN)) + N_GENES // PER_BIN * np.arange(PER_BIN)).ravel()
    counts = scipy.sparse.csr_matrix(
        (rng.integers(1, 4, n_bins * PER_BIN, dtype=np.int32), genes.astype(np.int32),
         np.arange(0, n_bins * PER_BIN + 1, PER_BIN)),
        shape=(n_bins, N_GENES),
    )  # fmt: skip
    obs = pd.DataFrame(
        {"array_row": array_xy[:, 1], "array_col": array_xy[:, 0], "in_tissue": 1},
        index=[f"s_008um_{row:05d}_{column:05d}-1" for column, row in array_xy],
    )
    adata = anndata.AnnData(counts, obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(N_GENES)]))
    adata.obsm["spatial"] = MARGIN + (array_xy + 0.5) * (BIN_UM / UM_PER_PX)
    adata.uns["spatial"] = {name: {"scalefactors": {}, "metadata": {}}}
    return Slide(name, f"patient of {name}", adata, SlideImage.from_file(image), UM_PER_PX, um_per_px_from="the maker")


class Bins:
    """One section of ``STBENCH_BINS`` bins, whose image is ``bins.tif`` under the root."""

    name, title, slices, patch_px, how_to_get, citation = "bins", "Bins", ("S",), 224, "It is made.", ""

    def __init__(self, root: Path | None = None) -> None:
        assert root is not None
        self.image, self.n_bins = root / "bins.tif", int(os.environ["STBENCH_BINS"])

    def patient(self, slice_id: str) -> str:
        return f"patient of {slice_id}"

    def panel(self) -> list[str]:
        return [f"G{i}" for i in range(N_GENES)]

    def find(self) -> tuple[list[SlideSource], list[Missing]]:
        read = partial(section, "S", self.image, self.n_bins)
        return [SlideSource("S", self.patient("S"), read, (self.image,), {"n": self.n_bins})], []
