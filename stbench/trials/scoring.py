"""Scores of predictions, and the files that they are written to."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.h5ad_content import h5ad_content
from ..data.prepared import PreparedDataset, PreparedSlide
from ..scores.domains import domains
from ..scores.exchange import NOT_MEASURED, scores_of_exchange
from ..scores.metrics import gene_table, score_slide
from ..scores.rescoring import rescore, training_means
from ..scores.sharpness import MOST_WINDOWS, evenly_spread, sharpness
from ..slides.image import reduced
from ..slides.scanpy_picture import scanpy_pictures
from .spec import TrialSpec

PICTURE = 300  # pixels of the longer side
MAIN_SCORES = ("pcc_acg", "pcc_heg", "mse", "mae")


@dataclass(frozen=True)
class Scored:
    """What scoring found beyond the tables that it wrote."""

    notes: list[str]  # what a reader of the numbers must know
    scores: dict[str, dict[str, float | None]]  # test slice to its main scores; None where they are not defined


def mean_target(training: Sequence[PreparedSlide]) -> np.ndarray:
    """(n_genes,) float64: each gene's mean target over all spots of the training slices."""
    total = sum(slide.target.sum(axis=0, dtype=np.float64) for slide in training)
    return np.asarray(total) / sum(slide.n_spots for slide in training)


def score_predictions(
    spec: TrialSpec,
    data: PreparedDataset,
    training: Sequence[PreparedSlide],
    predictions: Mapping[str, np.ndarray],
    work: Path,
    exchanged: Mapping[str, np.ndarray | None] | None = None,
) -> Scored:
    """Write predictions, metrics and per-gene tables.

    ``exchanged``: the predictions with exchanged patches (:func:`stbench.trials.asking.predict_again`); None for
    those made elsewhere, whose method cannot be asked.
    """
    train_mean = mean_target(training) if training else None  # a model's training slices need not be at hand
    means_of_targets = training_means(training) if training else {}
    rows: list[dict[str, Any]] = []
    tables: list[pd.DataFrame] = []
    on_targets: list[pd.DataFrame] = []
    regions: list[tuple[pd.DataFrame, pd.DataFrame]] = []
    notes: list[str] = []
    (work / "predictions").mkdir(exist_ok=True)
    for name, prediction in predictions.items():
        slide = data.slides[name]
        score = score_slide(slide.target, prediction, data.genes, train_mean=train_mean)
        of_image = NOT_MEASURED
        if exchanged is not None:
            of_image, why = scores_of_exchange(name, slide.target, prediction, exchanged[name], data.genes)
            notes += why
        rows.append(
            {
                "slice": name,
                "patient": slide.patient,
                "n_spots": slide.n_spots,
                "n_genes": len(data.genes),
                "pcc_acg": score.pcc_acg,
                "pcc_heg": score.pcc_heg,
                "mse": score.mse,
                "mae": score.mae,
                "strict_pcc_acg": score.strict_pcc_acg,
                "strict_pcc_heg": score.strict_pcc_heg,
                **of_image,
                "n_constant_truth": score.n_constant_truth,
                "n_constant_prediction": score.n_constant_prediction,
            }
        )
        tables.append(gene_table(name, score).join(sharpness(slide.target, prediction, slide.pixel_xy)))
        on_targets.append(rescore(slide, prediction, means_of_targets))
        notes += score.notes
        if evenly_spread(slide.n_spots) is not None:
            notes.append(
                f"structural similarity on slice {name} is the mean over the surroundings of {MOST_WINDOWS:,} of its "
                f"{slide.n_spots:,} spots, evenly spread"
            )
        if slide.labels is not None:
            found = domains(slide, prediction)
            if found is None:
                notes.append(
                    f"fewer than two regions are labelled on slice {name}, so that domains are not scored there"
                )
            else:
                regions.append(found)
        write_prediction(work / "predictions" / f"{name}.h5ad", spec, data, slide, prediction)
    pd.DataFrame(rows).to_csv(work / "metrics.csv", index=False)
    pd.concat(tables, ignore_index=True).to_parquet(work / "genes.parquet", index=False)
    pd.concat(on_targets, ignore_index=True).to_csv(work / "targets.csv", index=False)
    if regions:
        agreement, spots = zip(*regions, strict=True)
        pd.concat(agreement, ignore_index=True).to_csv(work / "domains.csv", index=False)
        pd.concat(spots, ignore_index=True).to_parquet(work / "domains.parquet", index=False)
    return Scored(notes, {row["slice"]: {name: _defined(row[name]) for name in MAIN_SCORES} for row in rows})


def _defined(score: float) -> float | None:
    return float(score) if math.isfinite(score) else None


def write_prediction(
    path: Path, spec: TrialSpec, data: PreparedDataset, slide: PreparedSlide, prediction: np.ndarray
) -> None:
    """One predicted slice as AnnData: ``X`` the prediction, ``layers["truth"]`` the target, positions of the slide."""
    import anndata

    obs = pd.DataFrame(
        {"array_row": slide.array_xy[:, 1], "array_col": slide.array_xy[:, 0], "total_counts": slide.total_counts},
        index=pd.Index(slide.spot_ids, name="spot"),
    )
    if slide.labels is not None:
        obs["label"] = pd.Categorical([label or "" for label in slide.labels])
    table = anndata.AnnData(X=prediction, obs=obs, var=pd.DataFrame(index=pd.Index(data.genes, name="gene")))
    table.layers["truth"] = slide.target
    table.obsm["spatial"] = slide.pixel_xy
    table.uns["stbench"] = {
        "key": spec.key,
        "dataset": data.name,
        "slice": slide.id,
        "patient": slide.patient,
        "method": spec.name,
        "preset": spec.preset,
        "variant": spec.variant,
        "seed": spec.seed,
        "split": spec.split,
        "fold": spec.fold,
        "target": data.target.name,
        "target_formula": data.target.formula,
    }
    table.uns["spatial"] = _picture(slide)
    path.write_bytes(h5ad_content(table))


def _picture(slide: PreparedSlide) -> dict[str, Any]:
    """The slide's thumbnail, small: it stands in every prediction of the slide."""
    from PIL import Image

    with Image.open(slide.thumbnail) as picture:
        longest = max(picture.size) / slide.thumbnail_scale
        pixels = reduced(np.asarray(picture.convert("RGB")), PICTURE)
    return scanpy_pictures(slide.id, {"hires": pixels}, longest, slide.spot_diameter)
