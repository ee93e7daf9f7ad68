"""A report at the paper's full size: 6 methods x 32 slices x 785 genes x 3 seeds, under 2 minutes, 4 GiB and 10 MB."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

HERE = Path(__file__).parent
N_SPOTS, N_GENES, SEEDS = 361, 785, (0, 1, 2)  # the mean HER2+ slice and its panel


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up results directory with everything that trials leave; predictions of the first seed alone."""
    sys.path.insert(0, str(HERE.parent / "tests" / "reports"))
    from synthetic import HER2ST, METHODS, make_results
    from synthetic_predictions import add_thumbnails

    place = make_results(tmp_path_factory.mktemp("full") / "r", methods=METHODS, n_genes=N_GENES, seeds=SEEDS)
    add_thumbnails(place, "her2st", HER2ST)
    rng = np.random.default_rng(0)
    summary = pd.read_csv(place / "summary.csv", dtype={"slice": str})
    for row in summary.itertuples():
        _complete(place / "trials" / row.key, row.slice, with_prediction=row.seed == 0, rng=rng)
    return place


def _complete(trial: Path, name: str, with_prediction: bool, rng: np.random.Generator) -> None:
    import anndata

    genes = pd.read_parquet(trial / "genes.parquet")
    measured = ("sd_truth", "sd_prediction", "spearman", "moran_truth", "moran_prediction", "ssim")
    genes.assign(**{column: rng.random(N_GENES) for column in measured}).to_parquet(trial / "genes.parquet")
    scales = ("spot-log10-cp10k", "gene-log10-cp10k", "lognorm")
    columns = ("pcc_acg", "pcc_heg", "strict_pcc_acg", "strict_pcc_heg")
    rows = [{"slice": name, "target": scale, **{column: rng.random() for column in columns}} for scale in scales]
    pd.DataFrame(rows).to_csv(trial / "targets.csv", index=False)
    if not with_prediction:
        return
    truth = np.random.default_rng(sum(map(ord, name))).random((N_SPOTS, N_GENES), dtype=np.float32)
    table = anndata.AnnData(
        X=truth + rng.random((N_SPOTS, N_GENES), dtype=np.float32),
        obs=pd.DataFrame(index=[f"s{i}" for i in range(N_SPOTS)]),
        var=pd.DataFrame(index=pd.Index(list(genes["gene"]), name="gene")),
    )
    table.layers["truth"] = truth
    table.obsm["spatial"] = 300 + 100 * np.argwhere(np.ones((19, 19)))[:N_SPOTS].astype(float)
    (trial / "predictions").mkdir()
    table.write_h5ad(trial / "predictions" / f"{name}.h5ad", compression="gzip")


def test_the_report_of_a_full_benchmark(results: Path, tell: Callable[[str], None]) -> None:
    out = results.parent / "out"
    code = "import sys, pathlib, stbench.reports as r; r.report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    before = time.perf_counter()
    subprocess.run([sys.executable, "-c", code, results, out], check=True)
    seconds = time.perf_counter() - before
    peak_gib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    page_mb = (out / "report.html").stat().st_size / 1e6
    tell(f"report at full size: {seconds:.0f} s, {peak_gib:.2f} GiB, a page of {page_mb:.1f} MB")
    assert seconds < 120
    assert peak_gib < 4
    assert page_mb < 10
