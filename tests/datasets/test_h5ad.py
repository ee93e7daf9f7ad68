"""The reader of AnnData files: where counts, positions and images are found, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from PIL import Image
from scipy import sparse

from stbench.datasets.readers import h5ad
from stbench.errors import UserError
from stbench.slide import Slide, validate

N = 12


def make(library: str = "lib", prefix: str = "BC", scale: float = 0.5) -> AnnData:
    """A hexagonal array of 12 spots, pitch 50 px, on a hires image of 150 x 200 px at half resolution."""
    rng = np.random.default_rng(0)
    row, column = np.arange(N) // 4, 2 * (np.arange(N) % 4) + (np.arange(N) // 4) % 2
    adata = AnnData(sparse.csr_matrix(rng.poisson(3, (N, 5)).astype(np.float32)))
    adata.obs_names = [f"{prefix}{i}-1" for i in range(N)]
    adata.var_names = [f"G{i}" for i in range(5)]
    adata.obs = pd.DataFrame({"array_row": row, "array_col": column, "in_tissue": 1}, index=adata.obs_names)
    adata.obs["region"] = pd.Categorical(["stroma", "tumour"] * (N // 2))
    adata.obsm["spatial"] = np.column_stack([60 + column * 25.0, 50 + row * 43.3])
    image = np.full((150, 200, 3), 200, dtype=np.uint8)
    adata.uns["spatial"] = {
        library: {
            "images": {"hires": image, "lowres": image[::2, ::2]},
            "scalefactors": {
                "tissue_hires_scalef": scale,
                "tissue_lowres_scalef": scale / 2,
                "spot_diameter_fullres": 32.5,
            },
            "metadata": {},
        }
    }
    return adata


def read(adata: AnnData, folder: Path, **options: Any) -> Slide:
    path = folder / "section.h5ad"
    adata.write_h5ad(path)
    slide = h5ad.read("S1", "P1", path, **options)
    validate(slide)
    return slide


def test_a_section_in_scanpys_convention_is_read(tmp_path: Path) -> None:
    adata = make()
    slide = read(adata, tmp_path, label="region")
    np.testing.assert_array_equal(slide.adata.X.toarray(), adata.X.toarray())
    np.testing.assert_array_equal(slide.centres, adata.obsm["spatial"])
    np.testing.assert_array_equal(slide.array_xy, adata.obs[["array_col", "array_row"]])
    assert (slide.image.level, slide.image.scale, slide.image.size) == ("hires", 0.5, (200, 150))
    assert slide.um_per_px == pytest.approx(2.0, rel=1e-3)
    assert slide.adata.obs["label"].tolist()[:2] == ["stroma", "tumour"]
    assert slide.notes == ()


@pytest.mark.parametrize("where", ["layers['counts']", "layers['raw']", "raw.X"])
def test_counts_are_found_where_x_holds_something_else(tmp_path: Path, where: str) -> None:
    adata = make()
    counts = adata.X.copy()
    if where == "raw.X":
        adata.raw = adata
    else:
        adata.layers[where[8:-2]] = counts
    adata.X = np.log1p(counts.toarray())
    slide = read(adata, tmp_path)
    np.testing.assert_array_equal(slide.adata.X.toarray(), counts.toarray())
    assert any(where in note for note in slide.notes)


def test_a_flag_beside_the_library_is_not_taken_for_a_second_one(tmp_path: Path) -> None:
    adata = make()
    adata.uns["spatial"]["is_single"] = True  # as CELLxGENE writes it
    assert read(adata, tmp_path).n_spots == N


def test_only_spots_under_tissue_are_kept(tmp_path: Path) -> None:
    adata = make()
    adata.obs.loc[adata.obs_names[3], "in_tissue"] = 0
    assert read(adata, tmp_path).spot_ids == [name for i, name in enumerate(adata.obs_names) if i != 3]


def test_floating_images_are_scaled_and_empty_ones_passed_over(tmp_path: Path) -> None:
    adata = make()
    images = adata.uns["spatial"]["lib"]["images"]
    images["hires"] = np.full((150, 200, 3), 0.5, dtype=np.float32)
    assert (read(adata, tmp_path).image.read() == 128).all()
    images["hires"] = np.empty((0, 0, 3), dtype=np.uint8)
    assert read(adata, tmp_path).image.level == "lowres"


def test_the_image_that_the_object_names_is_used_where_it_exists(tmp_path: Path) -> None:
    adata = make()
    adata.uns["spatial"]["lib"]["metadata"]["source_image_path"] = "full.png"
    assert read(adata, tmp_path).image.level == "hires"
    assert h5ad.named_image(tmp_path / "section.h5ad") is None
    Image.new("RGB", (400, 300)).save(tmp_path / "full.png")
    image = read(adata, tmp_path).image
    assert (image.level, image.scale, image.size) == ("full", 1.0, (400, 300))
    assert h5ad.named_image(tmp_path / "section.h5ad") == tmp_path / "full.png"


def test_hires_positions_at_scale_one_are_legal(tmp_path: Path) -> None:
    adata = make(scale=1.0)
    adata.obsm["spatial"] *= 0.5
    assert read(adata, tmp_path).image.full_resolution_size == (200, 150)


def test_ensembl_identifiers_give_way_to_symbols_and_repeated_symbols_are_told_apart(tmp_path: Path) -> None:
    adata = make()
    adata.var_names = [f"ENSG{i:011d}" for i in range(5)]
    adata.var["gene_name"] = ["A", "B", "A", "C", "D"]
    slide = read(adata, tmp_path)
    assert slide.genes == ["A", "B", "A-1", "C", "D"]
    assert any("gene_name" in note for note in slide.notes)


def test_first_generation_names_say_the_array_indices_whatever_a_converter_wrote(tmp_path: Path) -> None:
    adata = make()
    xy = [(7, 12 + i) for i in range(N)]
    adata.obs_names = [f"{x:03d}x{y:03d}" for x, y in xy]
    adata.obs["array_row"], adata.obs["array_col"] = zip(*xy, strict=True)  # HEST-1k: the first number is the row
    np.testing.assert_array_equal(read(adata, tmp_path).array_xy, xy)


def test_one_library_of_several_is_chosen_by_name(tmp_path: Path) -> None:
    both = anndata.concat({"0": make("0", "X"), "3": make("3", "Y")}, label="batch")
    both.uns["spatial"] = {**make("0").uns["spatial"], **make("3").uns["spatial"]}
    slide = read(both, tmp_path, library="3")
    assert slide.n_spots == N
    assert all(name.startswith("Y") for name in slide.spot_ids)
    del both.obs["batch"]
    both.obs = both.obs.drop(columns="region")
    with pytest.raises(UserError, match="no column of obs says"):
        read(both, tmp_path, library="3")
    with pytest.raises(UserError, match="unknown library"):
        read(both, tmp_path, library="4")


def test_the_pixel_size_is_unknown_where_the_array_is_not_visiums(tmp_path: Path) -> None:
    adata = make()
    adata.obs["array_col"] = np.arange(N)
    assert read(adata, tmp_path).um_per_px is None
    assert read(adata, tmp_path, pitch_um=150.0).um_per_px == pytest.approx(3.0, rel=1e-3)
