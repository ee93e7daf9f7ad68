"""Every published method learns: on the demo dataset it beats the trivial controls on genes visible by design."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from stbench.registry import expand_methods

SEEDS = (0, 1, 2)


@pytest.mark.slow
def test_all_methods_beat_the_mean_and_the_position_on_visible_genes(tmp_path: Path, stbench_command: Callable) -> None:
    command = ("run", "--methods", "published,training_mean,position_knn", "--dataset", "demo", "--preset", "quick")
    split = ("--split", "kfold", "--folds", "3", "--seeds", ",".join(map(str, SEEDS)))
    done = stbench_command(*command, *split, "--no-mlflow", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    summary = pd.read_csv(tmp_path / "r" / "summary.csv")
    tables = []
    for key, rows in summary.groupby("key"):
        genes = pd.read_parquet(tmp_path / "r" / "trials" / str(key) / "genes.parquet")
        tables.append(genes.assign(method=rows["method"].iloc[0], seed=rows["seed"].iloc[0]))
    genes = pd.concat(tables)
    visible = genes[genes["gene"].str.startswith("VIS")]
    # strict: the training mean is constant, and counts as r = 0
    means = visible.groupby(["method", "seed"])["strict_r"].mean()
    print(means.round(3).to_string())
    for method in expand_methods("published"):
        for seed in SEEDS:
            for control in ("training_mean", "position_knn"):
                assert means[method, seed] > means[control, seed] + 0.05, (method, seed, control)
