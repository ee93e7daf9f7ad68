"""Sections in the layouts that 10x Genomics documents for Space Ranger 1 to 4, written without the readers' code.

Around every place of the array a square of its own colour is painted, so that a patch says whose it is.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import tifffile
from PIL import Image
from scipy import sparse
from scipy.io import mmwrite

PAINTED = 6  # side in pixels of what is painted around a place
COLUMNS = ["barcode", "in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres"]
GENES = [f"GENE{i}" for i in range(8)]


@dataclass(frozen=True)
class Section:
    """All places of an array; the matrix lists those in ``counted``, in that order."""

    barcodes: list[str]
    in_tissue: np.ndarray
    array: np.ndarray  # row, column
    centres: np.ndarray  # x, y
    counts: np.ndarray  # of all places
    counted: list[int]
    size: tuple[int, int]  # of the image: width, height
    factors: dict[str, float]
    genes: list[str] = field(default_factory=lambda: list(GENES))
    ids: list[str] = field(default_factory=lambda: [f"ENSG{i:011d}" for i in range(len(GENES))])
    kinds: list[str] = field(default_factory=lambda: ["Gene Expression"] * len(GENES))

    @property
    def names(self) -> list[str]:
        return [self.barcodes[place] for place in self.counted]

    @property
    def colours(self) -> np.ndarray:
        places = np.arange(len(self.barcodes))
        return np.column_stack([40 + places % 200, 30 + places // 200 * 20, 90 + places % 7 * 15]).astype(np.uint8)

    @property
    def image(self) -> np.ndarray:
        width, height = self.size
        across, down = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
        tissue = 150 + 60 * np.cos(5 * across) * np.sin(4 * down) + 30 * across  # no two corners are alike
        image = np.stack([tissue, tissue - 40, tissue], axis=2).astype(np.uint8)
        for (x, y), colour in zip(np.floor(self.centres).astype(int) - PAINTED // 2, self.colours, strict=True):
            image[y : y + PAINTED, x : x + PAINTED] = colour
        return image

    @property
    def patches(self) -> np.ndarray:
        """What is cut around the counted places, (n, PAINTED, PAINTED, 3)."""
        return np.broadcast_to(self.colours[self.counted][:, None, None], (len(self.counted), PAINTED, PAINTED, 3))


def visium(seed: int = 0, n_rows: int = 8, n_columns: int = 9, n_tissue: int = 40) -> Section:
    """Hexagonal: 40 px along a row for 100 µm, rows 87 µm apart."""
    rng = np.random.default_rng(seed)
    array = np.array([(row, 2 * i + row % 2) for row in range(n_rows) for i in range(n_columns)])
    centres = np.column_stack([40.3 + 20 * array[:, 1], 35.6 + 34.8 * array[:, 0]])
    barcodes = ["".join(rng.choice(list("ACGT"), 16)) + "-1" for _ in array]
    middle = np.linalg.norm(centres - centres.mean(axis=0), axis=1)
    tissue = np.isin(np.arange(len(array)), np.argsort(middle, kind="stable")[:n_tissue])
    size = tuple(np.ceil(centres.max(axis=0) + 35).astype(int).tolist())
    factors = {
        "tissue_hires_scalef": 0.5,
        "tissue_lowres_scalef": 0.15,
        "spot_diameter_fullres": 65 / 2.5,
        "fiducial_diameter_fullres": 105 / 2.5,
    }
    counts = np.where(tissue[:, None], rng.poisson(3, (len(array), len(GENES))) + 1, rng.poisson(0.2, len(GENES)))
    counted = rng.permutation(np.flatnonzero(tissue)).tolist()
    return Section(barcodes, tissue, array, centres, counts, counted, size, factors)


def binned(bin_um: int, seed: int = 0, um_per_px: float = 0.25, side: int = 8) -> Section:
    """Square bins on an image that is turned a little; of ``bin_um`` µm, ``side`` of them on each side."""
    rng = np.random.default_rng([seed, bin_um])
    array = np.array([(row, column) for row in range(side) for column in range(side)])
    step, turn = bin_um / um_per_px, np.deg2rad(2)
    along, down = step * np.array([np.cos(turn), np.sin(turn)]), step * np.array([-np.sin(turn), np.cos(turn)])
    centres = np.array([60.2, 40.7]) + array[:, 1:] * along + array[:, :1] * down
    barcodes = [f"s_{bin_um:03d}um_{row:05d}_{column:05d}-1" for row, column in array]
    tissue = (array.sum(axis=1) > 2) & (array.sum(axis=1) < 2 * side - 4)
    size = tuple(np.ceil(centres.max(axis=0) + 60).astype(int).tolist())
    factors = {
        "bin_size_um": float(bin_um),
        "microns_per_pixel": um_per_px,
        "tissue_hires_scalef": 0.5,
        "tissue_lowres_scalef": 0.15,
        "spot_diameter_fullres": step,
        "fiducial_diameter_fullres": 400.0,
        "regist_target_img_scalef": 0.2,
    }
    counts = rng.poisson(1, (len(array), len(GENES))) + (np.arange(len(GENES)) == 0)
    return Section(
        barcodes, tissue, array, centres, counts, rng.permutation(np.flatnonzero(tissue)).tolist(), size, factors
    )


def with_features(section: Section, names: list[str], ids: list[str], kind: str) -> Section:
    """The section with further features before the genes, counted 9 times each."""
    more = np.full((len(section.barcodes), len(names)), 9)
    return replace(
        section,
        counts=np.hstack([more, section.counts]),
        genes=[*names, *section.genes],
        ids=[*ids, *section.ids],
        kinds=[*[kind] * len(names), *section.kinds],
    )


# --- files ----------------------------------------------------------------------------------------------------------


def write_h5(path: Path, section: Section, places: list[int] | None = None) -> Path:
    """Version 2 of the format (Cell Ranger 3 and later): features x barcodes, compressed sparse columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    places = section.counted if places is None else places
    matrix = sparse.csc_matrix(section.counts[places].T)
    with h5py.File(path, "w") as file:
        file.attrs["filetype"], file.attrs["version"] = "matrix", 2
        file.attrs["library_ids"] = np.array([b"L1"])
        group = file.create_group("matrix")
        group.create_dataset("data", data=matrix.data.astype(np.int32), compression="gzip", chunks=True)
        group.create_dataset("indices", data=matrix.indices.astype(np.int64), compression="gzip", chunks=True)
        group["indptr"], group["shape"] = matrix.indptr.astype(np.int64), np.array(matrix.shape, dtype=np.int32)
        group["barcodes"] = np.array([section.barcodes[place] for place in places], dtype="S")
        for name, values in (("id", section.ids), ("name", section.genes), ("feature_type", section.kinds)):
            group[f"features/{name}"] = np.array(values, dtype="S")
        group["features/genome"] = np.array(["GRCh38"] * len(section.genes), dtype="S")
        group["features/_all_tag_keys"] = np.array(["genome"], dtype="S")
    return path


def write_mex(folder: Path, section: Section, places: list[int] | None = None, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    places = section.counted if places is None else places
    with gzip.open(folder / f"{prefix}matrix.mtx.gz", "wb") as stream:
        mmwrite(stream, sparse.coo_matrix(section.counts[places].T))
    lines = {
        "barcodes": [section.barcodes[place] for place in places],
        "features": ["\t".join(row) for row in zip(section.ids, section.genes, section.kinds, strict=True)],
    }
    for name, rows in lines.items():
        (folder / f"{prefix}{name}.tsv.gz").write_bytes(gzip.compress("".join(f"{row}\n" for row in rows).encode()))


def positions(section: Section) -> pd.DataFrame:
    """In an order of its own."""
    x, y = section.centres.T
    values = [section.barcodes, section.in_tissue.astype(int), *section.array.T, y, x]
    frame = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
    return frame.sample(frac=1, random_state=1).reset_index(drop=True)


def write_positions(spatial: Path, section: Section, form: str) -> Path:
    """``form``: list (version 1), csv (from version 2 on) or parquet (HD)."""
    spatial.mkdir(parents=True, exist_ok=True)
    frame = positions(section)
    if form == "parquet":
        frame.to_parquet(spatial / "tissue_positions.parquet", index=False)
    elif form == "csv":
        frame.to_csv(spatial / "tissue_positions.csv", index=False)
    else:
        frame[COLUMNS[4:]] = frame[COLUMNS[4:]].round().astype(int)
        frame.to_csv(spatial / "tissue_positions_list.csv", index=False, header=False)
    return spatial


def write_pictures(spatial: Path, section: Section) -> None:
    spatial.mkdir(parents=True, exist_ok=True)
    full = Image.fromarray(section.image)
    for level in ("hires", "lowres"):
        scale = section.factors[f"tissue_{level}_scalef"]
        size = (round(section.size[0] * scale), round(section.size[1] * scale))
        full.resize(size, Image.Resampling.BOX).save(spatial / f"tissue_{level}_image.png")
    full.resize((70, 60)).save(spatial / "aligned_fiducials.jpg")
    full.resize((70, 60)).save(spatial / "detected_tissue_image.jpg")


def write_cytassist(spatial: Path) -> None:
    """What the instrument saw: another picture, of another size."""
    seen = np.random.default_rng(9).integers(150, 230, (90, 80, 3)).astype(np.uint8)
    tifffile.imwrite(spatial / "cytassist_image.tiff", seen, photometric="rgb")


def write_factors(spatial: Path, section: Section, **changes: float) -> None:
    spatial.mkdir(parents=True, exist_ok=True)
    (spatial / "scalefactors_json.json").write_text(json.dumps({**section.factors, **changes}))


def write_image(path: Path, section: Section) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, section.image, photometric="rgb", tile=(64, 64))
    return path


def write_outs(outs: Path, section: Section, form: str = "csv", mex: bool = False) -> Path:
    """``outs`` of one section as Space Ranger 1 (``form="list"``) or later writes it."""
    everywhere = range(len(section.barcodes))
    if mex:
        write_mex(outs / "filtered_feature_bc_matrix", section)
        write_mex(outs / "raw_feature_bc_matrix", section, list(everywhere))
    else:
        write_h5(outs / "filtered_feature_bc_matrix.h5", section)
        write_h5(outs / "raw_feature_bc_matrix.h5", section, list(everywhere))
    write_positions(outs / "spatial", section, form)
    write_factors(outs / "spatial", section)
    write_pictures(outs / "spatial", section)
    for name in ("web_summary.html", "metrics_summary.csv", "molecule_info.h5"):
        (outs / name).write_text("not looked at")
    return outs


# --- Visium HD ------------------------------------------------------------------------------------------------------


def write_bins(folder: Path, section: Section) -> Path:
    write_h5(folder / "filtered_feature_bc_matrix.h5", section)
    write_positions(folder / "spatial", section, "parquet")
    write_factors(folder / "spatial", section)
    write_pictures(folder / "spatial", section)
    return folder


def write_high_definition(run: Path, sections: dict[int, Section]) -> Path:
    """``run/outs`` with the bins of each size. Its own ``spatial/`` has neither positions nor scale factors."""
    outs = run / "outs"
    for bin_um, section in sections.items():
        write_bins(outs / f"binned_outputs/square_{bin_um:03d}um", section)
    write_pictures(outs / "spatial", next(iter(sections.values())))
    write_cytassist(outs / "spatial")
    for name in ("feature_slice.h5", "molecule_info.h5", "web_summary.html"):
        (outs / name).write_text("not looked at")
    return outs


def write_cells(outs: Path, section: Section, numbers: list[int], outlines: dict[int, list]) -> Path:
    """``segmented_outputs`` of Space Ranger 4: ``section`` holds cells, whose barcodes are made of ``numbers``."""
    named = replace(section, barcodes=[f"cellid_{number:09d}-1" for number in numbers])
    folder = outs / "segmented_outputs"
    write_h5(folder / "filtered_feature_cell_matrix.h5", named)
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": rings},
            "properties": {"cell_id": number},
        }
        for number, rings in outlines.items()
    ]
    text = json.dumps({"type": "FeatureCollection", "features": features}, indent=1)
    (folder / "cell_segmentations.geojson").write_text(text)
    write_factors(folder / "spatial", section)
    write_pictures(folder / "spatial", section)
    return folder
