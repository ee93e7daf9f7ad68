"""Miniature copies of the three benchmark datasets in their upstream layouts, traps included; written in seconds.

Every image has a dark and a bright half, and half of the genes are expressed twice as strongly on the dark one.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import tifffile
from PIL import Image
from scipy import sparse

from stbench.datasets.alex10x import SPOTS as ALEX10X_SLICES
from stbench.datasets.cscc import SPOTS as CSCC_SLICES
from stbench.datasets.her2st import SPOTS as HER2ST_SLICES
from stbench.datasets.panels import panel

LABELLED = ("B1", "C1", "D1", "E1", "F1", "G2")


def tissue_image(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """(height, width, 3) uint8: violet on the left, pink on the right, with some grain."""
    colours = np.where((np.arange(width) < width / 2)[:, None], [120, 80, 150], [220, 170, 200])
    grain = rng.integers(-12, 13, (height, width, 1))
    return np.clip(colours[None] + grain, 0, 255).astype(np.uint8)


def draw_counts(dark: np.ndarray, genes: Sequence[str], rng: np.random.Generator) -> np.ndarray:
    """(n_spots, n_genes) counts; ``dark`` (n_spots,) says which spots lie on the dark half.

    Which genes are stronger there depends on their names, so it is the same in all slices, whatever their gene order.
    """
    rates = rng.gamma(1.0, 2.0, len(genes)) + 0.05
    follows = np.array([zlib.crc32(gene.encode()) % 2 == 0 for gene in genes])
    stronger = np.where(dark[:, None] & follows[None], 2.0, 1.0)
    depth = rng.uniform(0.5, 1.5, (len(dark), 1))
    return rng.poisson(rates * stronger * depth)


def write_text(path: Path, text: str, zipped: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 1) if zipped else text.encode())
    return path


def write_picture(path: Path, array: np.ndarray, zipped: bool = False, form: str = "JPEG") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, form, quality=90)
    path.write_bytes(gzip.compress(buffer.getvalue(), 1) if zipped else buffer.getvalue())
    return path


def table_text(rows: list[str], columns: list[str], values: np.ndarray) -> str:
    """A first-generation count table: an empty corner, genes, then one line per spot."""
    lines = ["\t".join(["", *columns])]
    lines += ["\t".join([name, *map(str, row)]) for name, row in zip(rows, values.tolist(), strict=True)]
    return "\n".join(lines) + "\n"


def spot_table_text(
    grid: np.ndarray, measured: np.ndarray, pixels: np.ndarray, selected: list[int] | None = None
) -> str:
    columns = ["x", "y", "new_x", "new_y", "pixel_x", "pixel_y"] + (["selected"] if selected is not None else [])
    lines = ["\t".join(columns)]
    for i in range(len(grid)):
        fields = [*grid[i], *np.round(measured[i], 3), *np.round(pixels[i], 2)]
        lines.append("\t".join(map(str, fields + ([selected[i]] if selected is not None else []))))
    return "\n".join(lines) + "\n"


# --- HER2+ -----------------------------------------------------------------------------------------------------------


def write_her2st(folder: Path, layout: str = "github", n_spots: int = 16, seed: int = 0) -> Path:
    """All 32 slices under ``folder``, in the layout of the repository (``github``) or of the archives (``zenodo``).

    Traps: slices outside the benchmark (A1, H1), a packed and an unpacked table side by side (A2), spots without
    counts, genes that differ in order and number, a spot whose counts are all zero (D5), a finer pitch on patient A,
    label rows of NaN (G2).
    """
    names = [*HER2ST_SLICES, "A1", "H1"]
    for number, name in enumerate(names):
        _her2st_slice(folder, layout, name, n_spots, np.random.default_rng([seed, number]))
    return folder


def _her2st_slice(folder: Path, layout: str, name: str, n_spots: int, rng: np.random.Generator) -> None:
    pitch = 45.0 if name.startswith("A") else 60.0
    columns = int(np.ceil(np.sqrt(n_spots + 1)))
    grid = np.array([[2 + i % columns, 3 + i // columns] for i in range(n_spots + 1)])  # the last one has no counts
    measured = grid + rng.uniform(-0.1, 0.1, grid.shape)
    pixels = pitch * (measured - 1)
    width, height = (int(np.ceil(pitch * (limit + 2))) for limit in grid.max(axis=0))
    genes = panel("her2st")
    others = [f"OTHER{i}" for i in range(8 + len(name) + ord(name[0]) % 3)]
    genes = [*genes, *others]
    genes = [genes[i] for i in rng.permutation(len(genes))]
    counts = draw_counts(pixels[:-1, 0] < width / 2, genes, rng)
    if name == "D5":
        counts[3] = 0
    spots = [f"{x}x{y}" for x, y in grid]
    text = table_text(spots[:-1], genes, counts)
    spot_text = spot_table_text(grid, measured, pixels, [1] * len(grid))
    image = tissue_image(width, height, rng)
    if layout == "github":
        base = folder / "her2st" / "data"
        write_text(base / f"ST-cnts/{name}.tsv.gz", text, zipped=True)
        if name == "A2":
            write_text(base / f"ST-cnts/{name}.tsv", text)
        write_text(base / f"ST-spotfiles/{name}_selection.tsv", spot_text)
        write_picture(base / f"ST-imgs/{name[0]}/{name}/1234_HE_{name}_small.jpg", image)
        labels = base / f"ST-pat/lbl/{name}_labeled_coordinates.tsv"
    else:
        write_text(folder / f"count-matrices/{name}.tsv.gz", text, zipped=True)
        write_text(folder / f"spot-selections/{name}_selection.tsv.gz", spot_text, zipped=True)
        write_picture(folder / f"images/HE/{name}.jpg", image)
        labels = folder / f"meta/{name}_labeled_coordinates.tsv"
    if name in LABELLED:
        write_text(labels, _label_text(measured, n_nan=8 if name == "G2" else 0))


def _label_text(measured: np.ndarray, n_nan: int) -> str:
    lines = ["Row.names\tx\ty\tpixel_x\tpixel_y\tlabel"]
    for i, (x, y) in enumerate(measured):
        label = "invasive cancer" if i % 3 else "connective tissue"
        # another coordinate system: 125 px per step, y upwards
        lines.append(f"{i}\t{x:.3f}\t{y:.3f}\t{125 * x:.1f}\t{5000 - 125 * y:.1f}\t{label}")
    lines += [f"NA{i}\tNA\tNA\tNA\tNA\tundetermined" for i in range(n_nan)]
    return "\n".join(lines) + "\n"


# --- cSCC ------------------------------------------------------------------------------------------------------------


def write_cscc(folder: Path, n_spots: int = 18, seed: int = 0) -> Path:
    """All 12 slices in one flat folder as on GEO.

    Traps: tables list the whole array, most of it background; a selected spot has no counts; spot tables with and
    without ``selected`` and with fractional indices; patient P10 is unpacked, the others are gzipped, images included.
    """
    base = folder / "GSE144240_RAW"
    for number, name in enumerate(CSCC_SLICES):
        _cscc_slice(base, number, name, n_spots, np.random.default_rng([seed, number]))
    return folder


def _cscc_slice(base: Path, number: int, name: str, n_spots: int, rng: np.random.Generator) -> None:
    grid = np.array([[x, y] for x in range(2, 14) for y in range(2, 12) if (x + y) % 2 == 0])
    pixels = (grid - 1.0) * 30.0
    size = 420
    tissue = np.argsort(np.abs(pixels - 210).sum(axis=1), kind="stable")[: n_spots + 1]
    genes = [*panel("cscc"), *(f"OTHER{i}" for i in range(5 + number))]
    genes = [genes[i] for i in rng.permutation(len(genes))]
    counts = draw_counts(pixels[:, 0] < size / 2, genes, rng)
    counted = np.setdiff1d(np.arange(len(grid)), tissue[-1:])  # one selected spot has no row
    counted = counted[rng.permutation(len(counted))]
    table = table_text([f"{x}x{y}" for x, y in grid[counted]], genes, counts[counted])
    if name.startswith("P2"):  # the whole array with a column that selects
        selected = [int(i in set(tissue.tolist())) for i in range(len(grid))]
        spots = spot_table_text(grid, grid + 0.03, pixels, selected)
    else:  # the selected ones only, with indices that want rounding
        spots = spot_table_text(grid[tissue] + 0.02, grid[tissue] + 0.03, pixels[tissue])
    zipped = not name.startswith("P10")
    end = ".gz" if zipped else ""
    sample = f"GSM{4284316 + number}"
    write_text(base / f"{sample}_{name}_stdata.tsv{end}", table, zipped)
    write_text(base / f"{sample}_spot_data-selection-{name}.tsv{end}", spots, zipped)
    write_picture(base / f"{sample}_{name}.jpg{end}", tissue_image(size, size, rng), zipped)


# --- Alex+10x --------------------------------------------------------------------------------------------------------

HIRES = 0.5  # scale of the small image of the copies


def write_alex10x(folder: Path, layout: str = "mixed", n_spots: int = 20, seed: int = 0) -> Path:
    """All 9 slices.

    ``mixed``: the six of Wu et al. as on Zenodo (plain text named .gz, features of one column for the CID samples,
    small images only, metadata), the three of 10x Genomics as Space Ranger folders under their published names (HDF5;
    one with a header in its positions, one as parquet, one headless; symbols that repeat; antibody features; full
    resolution for FFPE). ``mclstexp``: Alex_NatGen/ and 10xGenomics/ with image.tif, a raw matrix and the filtered
    barcodes.
    """
    for number, name in enumerate(ALEX10X_SLICES):
        section = VisiumSection(name, n_spots, np.random.default_rng([seed, number]))
        wu = number < 6
        if layout == "mclstexp":
            place = folder / ("Alex_NatGen" if wu else "10xGenomics") / name
            section.write_image(place / "image.tif")
            section.write_spatial(place / "spatial")
            section.write_mex(place / "raw_feature_bc_matrix", raw=True, zipped=True)
            if wu:
                barcodes = "".join(f"{barcode}\n" for barcode in section.tissue_barcodes)
                write_text(place / "filtered_count_matrix/barcodes.tsv.gz", barcodes, zipped=True)
            else:
                section.write_h5(place / "filtered_feature_bc_matrix.h5")
        elif wu:
            one_column = name.startswith("CID")
            counts = folder / f"filtered_count_matrices/{name}_filtered_count_matrix"
            section.write_mex(counts, raw=False, zipped=False, n_columns=1 if one_column else 2)
            section.write_spatial(folder / f"spatial/{name}_spatial")
            section.write_metadata(folder / f"metadata/{name}_metadata.csv")
        else:
            public = {
                "block1": "V1_Breast_Cancer_Block_A_Section_1",
                "block2": "V1_Breast_Cancer_Block_A_Section_2",
                "FFPE": "Visium_FFPE_Human_Breast_Cancer",
            }[name]
            place = folder / "alex10x" / public
            form = {"block1": "headless", "block2": "header", "FFPE": "parquet"}[name]
            section.write_h5(place / f"{public}_filtered_feature_bc_matrix.h5")
            section.write_spatial(place / "spatial", positions=form)
            if name == "FFPE":
                section.write_image(place / f"{public}_image.tif")
    return folder


class VisiumSection:
    """One section whose parts are written in whatever form a layout wants."""

    def __init__(self, name: str, n_spots: int, rng: np.random.Generator) -> None:
        self.name = name
        array = np.array([[row, column] for row in range(9) for column in range(14) if (row + column) % 2 == 0])
        # rotated: array rows run along image columns
        self.pixels = np.column_stack([100 + array[:, 0] * 43.3, 480 - array[:, 1] * 25.0])
        self.array = array
        self.size = 560
        middle = np.abs(self.pixels - self.pixels.mean(axis=0)).sum(axis=1)
        self.in_tissue = np.isin(np.arange(len(array)), np.argsort(middle, kind="stable")[:n_spots])
        bases = np.array(list("ACGT"))
        self.barcodes = ["".join(rng.choice(bases, 16)) + "-1" for _ in array]
        self.tissue_barcodes = [self.barcodes[i] for i in rng.permutation(np.flatnonzero(self.in_tissue))]
        genes = [*panel("alex10x"), *(f"OTHER{i}" for i in range(6))]
        self.genes = [genes[i] for i in rng.permutation(len(genes))]
        self.genes += [self.genes[0]]  # a symbol that repeats: the first is the one that counts
        self.counts = draw_counts(self.pixels[:, 0] < self.size / 2, self.genes, rng)
        self.image = tissue_image(self.size, self.size, rng)

    def rows(self, barcodes: list[str]) -> np.ndarray:
        return self.counts[[self.barcodes.index(barcode) for barcode in barcodes]]

    def write_image(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        tifffile.imwrite(path, self.image, tile=(128, 128), photometric="rgb")

    def write_spatial(self, folder: Path, positions: str = "headless") -> None:
        import pandas as pd

        folder.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(self.image).resize((round(self.size * HIRES),) * 2)
        small.save(folder / "tissue_hires_image.png")
        small.resize((self.size // 10,) * 2).save(folder / "tissue_lowres_image.png")
        factors = {"tissue_hires_scalef": HIRES, "tissue_lowres_scalef": 0.1, "spot_diameter_fullres": 32.5}
        (folder / "scalefactors_json.json").write_text(json.dumps(factors))
        frame = pd.DataFrame(
            {
                "barcode": self.barcodes,
                "in_tissue": self.in_tissue.astype(int),
                "array_row": self.array[:, 0],
                "array_col": self.array[:, 1],
                "pxl_row_in_fullres": self.pixels[:, 1],
                "pxl_col_in_fullres": self.pixels[:, 0],
            }
        )
        if positions == "parquet":
            frame.to_parquet(folder / "tissue_positions.parquet")
        elif positions == "header":
            frame.to_csv(folder / "tissue_positions.csv", index=False)
        else:
            rounded = frame.assign(
                pxl_row_in_fullres=frame["pxl_row_in_fullres"].round().astype(int),
                pxl_col_in_fullres=frame["pxl_col_in_fullres"].round().astype(int),
            )
            rounded.to_csv(folder / "tissue_positions_list.csv", index=False, header=False)

    def write_mex(self, folder: Path, raw: bool, zipped: bool, n_columns: int = 3) -> None:
        """Files are named .gz whether they are gzipped or not."""
        barcodes = self.barcodes if raw else self.tissue_barcodes
        matrix = sparse.coo_matrix(self.rows(barcodes).T)
        entries = "\n".join(
            f"{row + 1} {column + 1} {value}"
            for row, column, value in zip(matrix.row, matrix.col, matrix.data, strict=True)
        )
        header = "%%MatrixMarket matrix coordinate integer general\n"
        shape = f"{matrix.shape[0]} {matrix.shape[1]} {matrix.nnz}\n"
        write_text(folder / "matrix.mtx.gz", f"{header}{shape}{entries}\n", zipped)
        write_text(folder / "barcodes.tsv.gz", "".join(f"{barcode}\n" for barcode in barcodes), zipped)
        fields = [[gene] if n_columns == 1 else [f"ENSG{i:011d}", gene] for i, gene in enumerate(self.genes)]
        if n_columns == 3:
            fields = [[*row, "Gene Expression"] for row in fields]
        write_text(folder / "features.tsv.gz", "".join("\t".join(row) + "\n" for row in fields), zipped)

    def write_h5(self, path: Path) -> None:
        """Version 3, with two antibody features after the genes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        n = len(self.tissue_barcodes)
        values = np.hstack([self.rows(self.tissue_barcodes), np.full((n, 2), 7)])
        matrix = sparse.csr_matrix(values)  # barcodes x features by rows is features x barcodes by columns
        names = [*self.genes, "CD3-antibody", "CD8-antibody"]
        kinds = ["Gene Expression"] * len(self.genes) + ["Antibody Capture"] * 2
        with h5py.File(path, "w") as file:
            group = file.create_group("matrix")
            group["data"], group["indices"], group["indptr"] = matrix.data, matrix.indices, matrix.indptr
            group["shape"] = np.array(matrix.shape[::-1])
            group["barcodes"] = np.array(self.tissue_barcodes, dtype="S")
            group["features/id"] = np.array([f"ENSG{i:011d}" for i in range(len(names))], dtype="S")
            group["features/name"] = np.array(names, dtype="S")
            group["features/feature_type"] = np.array(kinds, dtype="S")

    def write_metadata(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["", "nCount_RNA", "nFeature_RNA", "subtype", "patientid", "Classification"])
            for i, barcode in enumerate(self.tissue_barcodes):
                writer.writerow([barcode, 1000, 500, "TNBC", self.name, " Invasive cancer" if i % 2 else "Stroma"])
