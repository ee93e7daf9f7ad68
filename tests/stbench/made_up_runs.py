"""Results directories of any size, planned as they always are and finished without training anything."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from prepared import prepared_slide

from stbench import registry
from stbench.data.prepared import PreparedDataset
from stbench.data.splits import make_folds
from stbench.data.targets import target
from stbench.method import configure
from stbench.results.plan import Experiment, MethodChoice
from stbench.trials.outcome import list_files
from stbench.trials.spec import DataSpec
from stbench.trials.state import EndedState

TARGET = "spot-log10-cp10k"
TABLES = {
    "metrics.csv": "slice,n_spots,n_genes,pcc_acg,pcc_heg,mse,mae\n{name},2,2,0.5,0.5,1,1\n",
    "history.csv": "\n",
    "log.txt": "made up\n",
}


def made_up_data(n_slices: int, n_spots: int | Sequence[int] = 2, n_genes: int = 2) -> PreparedDataset:
    """Slices S0, S1, ... of as many patients, with no patches to speak of."""
    sizes = [n_spots] * n_slices if isinstance(n_spots, int) else n_spots
    slides = {}
    for i, size in enumerate(sizes):
        ones = np.ones((size, n_genes))
        slide = prepared_slide(ones.astype(np.int32), np.ones(size, dtype=np.int64), ones.astype(np.float32), f"S{i}")
        slides[f"S{i}"] = replace(slide, patient=f"P{i}")
    names = tuple(slides)
    return PreparedDataset("made_up", "Made up", target(TARGET), ("G0", "G1"), 2, slides, names, ())


def choice(name: str, preset: str = "published", **changes: Any) -> MethodChoice:
    method = registry.method(name)
    return MethodChoice(name, method, preset, changes, configure(method, preset, "", changes))


def experiment(data: PreparedDataset, methods: Sequence[MethodChoice], seeds: Sequence[int] = (0,)) -> Experiment:
    """Every slice is held out once."""
    keys = {name: slide.key for name, slide in data.slides.items()}
    spec = DataSpec(data.name, data.name, None, "cache", data.target.name, keys)
    return Experiment(data, spec, methods, "loso", make_folds("loso", data.patients), seeds)


def finish(results: Path, key: str, test: str, tables: Mapping[str, str] = TABLES, **facts: Any) -> None:
    """Leave what a trial leaves that finished: the files of ``tables``, its spec and its state."""
    trial = results / "trials" / key
    trial.mkdir(parents=True)
    for name, text in tables.items():
        (trial / name).write_text(text.format(name=test), encoding="utf-8")
    (trial / "spec.json").write_bytes((results / "specs" / f"{key}.json").read_bytes())
    known: dict[str, Any] = {"state": "finished", "reason": "", "notes": [], "started": 100.0, "ended": 110.0}
    known |= {"device": "cpu", "fit_s": 8.0, "predict_s": 1.0, "peak_mem_mb": 1500.0, "files": list_files(trial)}
    state = EndedState(**known | facts).model_dump(mode="json", exclude_unset=True)
    (trial / "state.json").write_text(json.dumps(state), encoding="utf-8")
