"""Half a million bins of Visium HD are read within a minute and 4 GiB, most of which is what is kept of them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

N_GENES, PER_BIN = 18_000, 150  # bins of 8 µm hold 100 to 200 genes in the sections that 10x Genomics publishes
SIDE, UNDER_TISSUE = 838, 500_000  # bins of 8 µm on a capture area of 6.5 mm
UM_PER_PX = 0.5
SECONDS, GIB = 60.0, 4.0

# a process of its own, which tells its own peak
READ = """
import json, resource, sys, time
from pathlib import Path
from stbench.datasets.readers import space_ranger
began = time.perf_counter()
slide = space_ranger.read("S", "P", space_ranger.find(Path(sys.argv[1]), bin_um=8))
seconds = time.perf_counter() - began
from stbench.slides.checks import check_slide
problems = [problem.text for problem in check_slide(slide) if problem.severity == "error"]
kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([seconds, kib, slide.n_spots, int(slide.adata.X.sum()), time.perf_counter() - began, problems]))
"""


def write_run(outs: Path) -> int:
    """One bin size of a run, as Space Ranger lays it out; the sum of its counts."""
    rng = np.random.default_rng(0)
    folder = outs / "binned_outputs/square_008um"
    (folder / "spatial").mkdir(parents=True)
    rows, columns = np.divmod(np.arange(SIDE * SIDE), SIDE)
    barcodes = np.char.add("s_008um_", [f"{row:05d}_{column:05d}-1" for row, column in zip(rows, columns, strict=True)])
    tissue = np.zeros(len(rows), dtype=bool)
    tissue[:UNDER_TISSUE] = True
    step = 8 / UM_PER_PX
    table = {
        "barcode": barcodes,
        "in_tissue": tissue.astype(np.int64),
        "array_row": rows,
        "array_col": columns,
        "pxl_row_in_fullres": 100 + step * rows,
        "pxl_col_in_fullres": 100 + step * columns,
    }
    shuffled = rng.permutation(len(rows))
    pq.write_table(
        pa.table({name: values[shuffled] for name, values in table.items()}),
        folder / "spatial/tissue_positions.parquet",
    )
    side = int(200 + step * SIDE)
    factors = {"microns_per_pixel": UM_PER_PX, "bin_size_um": 8.0, "spot_diameter_fullres": step}
    factors["tissue_hires_scalef"] = 600 / side
    (folder / "spatial/scalefactors_json.json").write_text(json.dumps(factors))
    picture = rng.integers(90, 240, (600, 600, 3)).astype(np.uint8)
    Image.fromarray(picture).save(folder / "spatial/tissue_hires_image.png")
    total = 0
    with h5py.File(folder / "filtered_feature_bc_matrix.h5", "w") as file:
        group = file.create_group("matrix")
        shape, chunks = (UNDER_TISSUE * PER_BIN,), (80_000,)
        data = group.create_dataset("data", shape, np.int32, chunks=chunks, compression="gzip", compression_opts=1)
        indices = group.create_dataset(
            "indices", shape, np.int64, chunks=chunks, compression="gzip", compression_opts=1
        )
        for first in range(0, UNDER_TISSUE, 20_000):
            block = slice(first * PER_BIN, (first + 20_000) * PER_BIN)
            values = 1 + rng.poisson(0.3, 20_000 * PER_BIN)
            starts = rng.integers(0, N_GENES // PER_BIN, (20_000, PER_BIN))
            data[block], total = values, total + int(values.sum())
            indices[block] = (starts + np.arange(PER_BIN) * (N_GENES // PER_BIN)).ravel()  # each once, in order
        group["indptr"] = np.arange(UNDER_TISSUE + 1, dtype=np.int64) * PER_BIN
        group["shape"] = np.array([N_GENES + 1, UNDER_TISSUE], dtype=np.int32)
        group["barcodes"] = barcodes[rng.permutation(UNDER_TISSUE)].astype("S")
        group["features/id"] = np.array([f"ENSG{i:011d}" for i in range(N_GENES + 1)], dtype="S")
        group["features/name"] = np.array([f"GENE{i}" for i in range(N_GENES + 1)], dtype="S")
        group["features/feature_type"] = np.array(["Gene Expression"] * N_GENES + ["Antibody Capture"], dtype="S")
    return total


def test_half_a_million_bins(tmp_path: Path, tell: Callable[[str], None]) -> None:
    total = write_run(tmp_path / "outs")
    done = subprocess.run(
        [sys.executable, "-c", READ, str(tmp_path / "outs")], capture_output=True, text=True, check=True
    )
    seconds, kib, n_spots, counted, checked, problems = json.loads(done.stdout)
    tell(
        f"{n_spots:,} bins with {UNDER_TISSUE * PER_BIN:,} counts read in {seconds:.0f} s (checked after "
        f"{checked:.0f} s) within {kib / 2**20:.1f} GiB"
    )
    assert (n_spots, counted, problems) == (UNDER_TISSUE, total, [])
    assert seconds < SECONDS
    assert kib < GIB * 2**20
