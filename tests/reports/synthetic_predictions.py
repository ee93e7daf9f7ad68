"""Adds to a made-up results directory what pictures of genes need: predictions with their scores, and thumbnails."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from PIL import Image

from stbench.scores.metrics import gene_table, score_slide

Predict = Callable[[str, str, np.ndarray, np.random.Generator], np.ndarray]
PITCH, ORIGIN, SCALE = 100.0, 300.0, 0.1  # full-resolution pixels; thumbnail pixels for each of them


def truth_of(slide: str, n_spots: int, genes: Sequence[str]) -> np.ndarray:
    """(n_spots, n_genes): two programmes shared by the genes, and noise of each; later genes are lower."""
    rng = np.random.default_rng(sum(map(ord, slide)))
    programme = rng.normal(size=(n_spots, 2)) @ rng.normal(size=(2, len(genes)))
    values = programme + 0.5 * rng.normal(size=(n_spots, len(genes))) + np.linspace(9, 5, len(genes))
    return values.astype(np.float32)


def add_predictions(results: Path, predict: Predict, n_spots: int = 36) -> Path:
    """Give every finished trial its prediction ``predict(method, slice, truth, generator)``, a per-gene table to match,
    and ``summary.csv`` the number of spots."""
    summary = pd.read_csv(results / "summary.csv", dtype=str, keep_default_na=False)
    summary.loc[summary["state"] == "finished", "n_spots"] = str(n_spots)
    side = round(n_spots**0.5)
    places = np.array([(x, y) for y in range(side) for x in range(side)], dtype=float)[:n_spots]
    for row in summary[summary["state"] == "finished"].itertuples():
        trial = results / "trials" / row.key
        genes = list(pd.read_parquet(trial / "genes.parquet")["gene"])
        truth = truth_of(row.slice, n_spots, genes)
        rng = np.random.default_rng(sum(map(ord, row.method + row.slice)) + int(row.seed))
        prediction = np.asarray(predict(row.method, row.slice, truth, rng), dtype=np.float32)
        obs = pd.DataFrame(index=[f"s{i}" for i in range(n_spots)])
        table = anndata.AnnData(X=prediction, obs=obs, var=pd.DataFrame(index=pd.Index(genes, name="gene")))
        table.layers["truth"] = truth
        table.obsm["spatial"] = ORIGIN + PITCH * places
        (trial / "predictions").mkdir(exist_ok=True)
        table.write_h5ad(trial / "predictions" / f"{row.slice}.h5ad", compression="gzip")
        gene_table(row.slice, score_slide(truth, prediction, genes)).to_parquet(trial / "genes.parquet", index=False)
    summary.to_csv(results / "summary.csv", index=False)
    return results


def add_thumbnails(results: Path, dataset: str, slices: Sequence[str]) -> None:
    """A plain pink picture for each slice, with its index."""
    folder = results / "evidence" / f"slides-{dataset}"
    folder.mkdir(parents=True, exist_ok=True)
    for name in slices:
        Image.new("RGB", (120, 110), (230, 150, 200)).save(folder / f"{name}.jpg")
    index = {name: {"file": f"{name}.jpg", "scale": SCALE, "spot_diameter": 0.5 * PITCH} for name in slices}
    (folder / "slides.json").write_text(json.dumps(index))
