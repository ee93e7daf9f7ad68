"""A made-up results directory in the layout that ``stbench run`` writes, of any size, with trials in any state."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow
from pyarrow import parquet

from stbench.results.run_record import LAYOUT
from stbench.results.summary_schema import METRICS, SUMMARY_COLUMNS
from stbench.system.files import write_json
from stbench.trials.spec import DataSpec, TrialSpec, in_words
from stbench.trials.state import FINAL_STATES

HER2ST = ["A2", "A3", "A4", "A5", "A6", *(f"{p}{i}" for p in "BCD" for i in range(1, 7))]
HER2ST += [f"{p}{i}" for p in "EFG" for i in (1, 2, 3)]
CSCC = [f"P{p}_ST_rep{r}" for p in (2, 5, 9, 10) for r in (1, 2, 3)]
ALEX10X = ["1142243F", "CID4290", "CID4465", "CID44971", "CID4535", "1160920F", "block1", "block2", "FFPE"]
DATASETS = {
    "her2st": ("HER2+", HER2ST, {name: name[0] for name in HER2ST}),
    "cscc": ("cSCC", CSCC, {name: name.split("_")[0] for name in CSCC}),
    "alex10x": ("Alex+10x", ALEX10X, {name: "block" if name.startswith("block") else name for name in ALEX10X}),
}


@dataclass(frozen=True)
class Fake:
    """A method of the made-up run; ``level``: its true mean PCC (None: it predicts constants)."""

    name: str
    title: str
    level: float | None
    kind: str = "method"
    oracle: bool = False
    preset: str = "published"
    changes: Mapping[str, Any] = field(default_factory=dict)
    weights: str = "none"
    config: Mapping[str, Any] = field(default_factory=dict)
    mse: float = 0.3
    kept: float | None = 0.3  # share of its PCC with exchanged patches; None: it was not asked

    @property
    def variant(self) -> str:
        return in_words(self.changes)

    @property
    def settings(self) -> dict[str, Any]:
        """The whole config: of weights that are labelled as an encoder's, an encoder with such weights too."""
        start = self.weights.partition(" ")[0]
        encoder = {} if start in ("none", "unknown") else {"encoder": "densenet121", "weights": start}
        return {**encoder, **self.config, **self.changes}


STNET = Fake("stnet", "STnet", 0.12, weights="imagenet (densenet121-a639ec97)", mse=0.31)
METHODS = (
    Fake("mclstexp", "mclSTExp", 0.23, weights="imagenet (densenet121-a639ec97)", mse=0.33),
    STNET,
    Fake("histogene", "HisToGene", 0.08, mse=0.34),
    Fake("hist2st", "Hist2ST", 0.14, mse=0.30),
    Fake("thitogene", "THItoGene", 0.17, mse=0.29),
    Fake("bleep", "BLEEP", 0.19, weights="imagenet (resnet50-a1)", mse=0.36),
)
CONTROLS = (
    Fake("training_mean", "Training mean", None, "control", mse=0.32),
    Fake("depth_oracle", "Depth oracle", 0.20, "control", oracle=True, mse=0.30, kept=1.0),
    Fake("position_knn", "Position kNN", 0.05, "control", mse=0.33, kept=1.0),
    Fake("nearest_replicate", "Nearest replicate", 0.10, "control", mse=0.35, kept=1.0),
    Fake("colour_ridge", "Colour ridge", 0.11, "control", mse=0.31, kept=0.0),
    Fake("feature_ridge", "Feature ridge", 0.15, "control", weights="random", mse=0.31),
    Fake("feature_knn", "Feature kNN", 0.09, "control", weights="random", mse=0.34),
)
SCORED = ["slice", "patient", "n_spots", "n_genes", *METRICS, "n_constant_truth", "n_constant_prediction"]
TARGET = "spot-log10-cp10k"


def make_results(
    directory: Path,
    methods: Sequence[Fake] = (*METHODS, *CONTROLS),
    dataset: str = "her2st",
    slices: Sequence[str] | None = None,
    n_genes: int = 60,
    seeds: Sequence[int] = (0,),
    split: str = "loso",
    target: str = TARGET,
    states: Mapping[tuple[str, str, int], tuple[str, str]] | None = None,
    facts: Mapping[str, Any] | None = None,
    with_genes: bool = True,
    seed: int = 0,
) -> Path:
    """Write ``run.json``, ``summary.csv`` and ``trials/`` and return ``directory``.

    ``states`` maps (method, slice, seed) to (state, reason) for trials that did not finish. ``facts`` is laid over the
    section's record in ``run.json``, as :func:`laid_over` does it.
    """
    rng = np.random.default_rng(seed)
    title, expected, patients = DATASETS[dataset]
    chosen = list(expected if slices is None else slices)
    genes = [f"GENE{i}" for i in range(n_genes)]
    effect = {name: rng.normal(0, 0.04) for name in chosen}
    rows = []
    stamps = {"started": 0.0, "ended": 60.0}
    for method in methods:
        for run_seed in seeds:
            for name in chosen:
                parts = (dataset, split, target, method.preset, method.variant, run_seed)
                key = trial_key(method.name, name, parts)
                state, reason = (states or {}).get((method.name, name, run_seed), ("finished", ""))
                same = sum(patients[other] == patients[name] for other in chosen) - 1 if split == "loso" else 0
                row = {
                    **{"key": key, "dataset": dataset, "split": split, "fold": name, "target": target},
                    **{"method": method.name, "title": method.title, "kind": method.kind, "oracle": method.oracle},
                    **{"preset": method.preset, "variant": method.variant, "weights": method.weights},
                    **{"seed": run_seed, "slice": name, "patient": patients[name]},
                    **{"same_patient_training_slices": same, "state": state, "reason": reason},
                }
                spec = _spec(method, name, run_seed, (dataset, split, target), patients, chosen)
                write_json(directory / "specs" / f"{key}.json", asdict(spec))
                trial = directory / ("trials" if state in FINAL_STATES else "running") / key
                trial.mkdir(parents=True, exist_ok=True)
                notes = ["peak memory was measured for the whole process"] if method.name == "stnet" else []
                ended = {**stamps, "state": state, "reason": reason, "notes": notes}
                (trial / "state.json").write_text(json.dumps(ended))
                if state == "finished":
                    row |= _scores(method, trial, name, genes, effect[name], with_genes, rng)
                    _write_row(trial / "metrics.csv", [row[column] for column in SCORED])
                elif state == "failed":
                    lines = [f"2025-01-01 12:00:{i:02d} INFO epoch {i}" for i in range(30)]
                    (trial / "log.txt").write_text("\n".join([*lines, f"ERROR failed: {reason}"]) + "\n")
                rows.append(row)
    pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS)).to_csv(directory / "summary.csv", index=False)
    folds = []
    for name in chosen:
        same_patient = [o for o in chosen if o != name and patients[o] == patients[name]] if split == "loso" else []
        statement = f"{name} held out; {len(same_patient)} of {len(chosen) - 1} training slices are of the same patient"
        # which slices were trained on is left open, so that runs over different slices can be merged
        fold = {"name": name, "test": [name], "train": [], "same_patient": same_patient, "statement": statement}
        folds.append(fold)
    about: dict[str, object] = {"name": dataset, "title": title, "slices_present": chosen, "slices_expected": expected}
    about["missing"] = {name: "no image of this name" for name in expected if name not in chosen}
    slide = {"n_spots": 300, "n_padded": 0, "image_level": "full", "um_per_px": 0.69, "notes": []}
    section: dict[str, Any] = {
        "dataset": about,
        "target": {"name": target, "formula": "log10(1 + 10000 × count / sum of the spot's counts over the panel)"},
        "split": split,
        "folds": folds,
        "n_genes": n_genes,
        "patch_px": 224,
        "padding": "parts of a window outside the image are white (255)",
        "slides": {name: {"patient": patients[name], **slide, "key": f"k{name}"} for name in chosen},
        "notices": [],
    }
    record = {
        "layout": LAYOUT,
        "id": "0123",
        "created": "2025-01-01T12:00:00+0000",
        "updated": "2025-01-01T12:00:00+0000",
        "commands": [f"stbench run --methods all --dataset {dataset}"],
        "versions": {"python": "3.11.2", "stbench": "0.1.0", "torch": "2.4.0"},
        "machine": {"system": "Linux 6.1", "cores": 2},
        "trials": {},  # so that a test may change the summary
        "superseded": {},
        "sections": [laid_over(section, facts or {})],
        "ablation": None,
    }
    (directory / "run.json").write_text(json.dumps(record))
    return directory


def _spec(
    method: Fake, name: str, seed: int, protocol: tuple[str, str, str], patients: Mapping[str, str], chosen: list[str]
) -> TrialSpec:
    dataset, split, target = protocol
    return TrialSpec(
        method=method.name,
        name=method.name,
        method_source="source",
        title=method.title,
        kind=method.kind,
        oracle=method.oracle,
        preset=method.preset,
        variant=method.variant,
        config=method.settings,
        weights=method.weights,
        data=DataSpec(dataset, dataset, None, "cache", target, {other: f"k{other}" for other in chosen}),
        split=split,
        fold=name,
        train=tuple(other for other in chosen if other != name),
        test=(name,),
        patients={other: patients[other] for other in chosen},
        seed=seed,
        changes=method.changes,
    )


def change_specs(results: Path, change: Callable[[TrialSpec], TrialSpec]) -> None:
    """Write the spec of every trial of ``results`` anew, as ``change`` has it."""
    for path in (results / "specs").iterdir():
        write_json(path, asdict(change(TrialSpec.read(path))))


def rename_trials(results: Path, ending: str) -> None:
    """Other trials under the same names: their keys, and what is called by them, end in ``ending``."""
    summary = pd.read_csv(results / "summary.csv", dtype=str, keep_default_na=False)
    for key in summary["key"].drop_duplicates():
        for path in (results / "specs" / f"{key}.json", results / "trials" / key):
            if path.exists():
                path.rename(path.with_name(f"{key}{ending}{path.suffix}"))
    summary.assign(key=summary["key"] + ending).to_csv(results / "summary.csv", index=False)


def laid_over(record: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``record`` with ``changes``; where both hold an object under a name, the one is laid over the other."""
    merged = dict(record)
    for name, value in changes.items():
        below = record.get(name)
        merged[name] = laid_over(below, value) if isinstance(value, dict) and isinstance(below, dict) else value
    return merged


def trial_key(method: str, slide: str, parts: Sequence[object]) -> str:
    """Readable, where real ones are digests."""
    return "-".join(map(str, (*parts, method, slide))).replace(" ", "_")


def _scores(
    method: Fake,
    trial: Path,
    name: str,
    genes: Sequence[str],
    effect: float,
    with_genes: bool,
    rng: np.random.Generator,
) -> dict[str, float]:
    n = len(genes)
    r = np.full(n, np.nan) if method.level is None else np.tanh(method.level + effect + rng.normal(0, 0.12, n))
    heg = np.arange(n) < 50
    if with_genes:
        columns = {
            **{"slice": [name] * n, "gene": list(genes), "r": r, "p": np.full(n, 0.5), "strict_r": np.nan_to_num(r)},
            **{"heg": heg, "mean_truth": np.linspace(1, 0, n), "strict_heg": heg},
        }
        parquet.write_table(pyarrow.table(columns), trial / "genes.parquet")  # ten times as fast as through pandas
    known = r[~np.isnan(r)]
    strict = np.nan_to_num(r)
    return {
        **{
            "n_spots": 300,
            "n_genes": n,
            "pcc_acg": known.mean() if known.size else np.nan,
            "pcc_heg": r[heg].mean() + 0.05,
        },
        **{"mse": method.mse + rng.normal(0, 0.01), "mae": method.mse + 0.1},
        **{"strict_pcc_acg": strict.mean(), "strict_pcc_heg": strict[heg].mean()},
        **_exchanged(method, known, strict),
        **{"n_constant_truth": 0, "n_constant_prediction": int(np.isnan(r).sum())},
        **{
            "fit_s": 12.5,
            "predict_s": 0.5,
            "peak_mem_mb": 512.0,
            "n_parameters": 1000,
            "device": "cpu",
            "precision": "fp32",
        },
    }


def _write_row(path: Path, values: Sequence[object]) -> None:
    """A table of one row under the names ``SCORED``, as pandas writes it, in a hundredth of the time."""
    with open(path, "w", encoding="utf-8", newline="") as handle:
        row = ["" if isinstance(value, float) and math.isnan(value) else value for value in values]
        csv.writer(handle, lineterminator="\n").writerows([SCORED, row])


def _exchanged(method: Fake, known: np.ndarray, strict: np.ndarray) -> dict[str, float]:
    """With exchanged patches; who keeps a share k of the PCC moves by sqrt(2) (1 - k) of its spread."""
    if method.kept is None:
        return {}
    constant = not known.size
    return {
        "exchanged_pcc_acg": np.nan if constant else method.kept * known.mean(),
        "exchanged_strict_pcc_acg": 0.0 if constant else method.kept * strict.mean(),
        "exchanged_move": np.nan if constant else math.sqrt(2) * (1 - method.kept),
    }
