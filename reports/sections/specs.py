"""What a section's trials were planned as: the facts behind the labels of ``summary.csv``."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pandas as pd

from stbench.results.record import spec_at
from stbench.training.pretrained import WeightsKind, kind_of_weights
from stbench.trials.spec import TrialSpec


def specs_of_rows(rows: pd.DataFrame) -> list[TrialSpec]:
    """The spec of each row's trial; a trial of several slices is read once."""
    places = zip(rows["directory"], rows["key"], strict=True)
    return [spec_at(Path(directory), key) for directory, key in places]


def specs_of_entries(rows: pd.DataFrame) -> dict[str, TrialSpec]:
    """Entry to the spec of its first trial; its other trials differ in fold, seed and place alone."""
    first = rows.drop_duplicates("entry")
    return dict(zip(first["entry"], specs_of_rows(first), strict=True))


def weights_kind(spec: TrialSpec) -> WeightsKind | Literal["none", "unknown"]:
    """The kind of weights that the encoder started from, by the trial's settings.

    A method with settings of its own, and predictions made elsewhere, have a label alone: it says ``none`` or
    ``random``, or nothing that is known.
    """
    setting = spec.config.get("weights")
    if "encoder" in spec.config and isinstance(setting, str):
        return kind_of_weights(setting)
    labelled: dict[str, Literal["none", "random"]] = {"none": "none", "random": "random"}
    return labelled.get(spec.weights, "unknown")


def chosen_encoder(spec: TrialSpec) -> str:
    """The encoder, where it was chosen and nothing else was changed against the preset; else empty."""
    return str(spec.changes["encoder"]) if set(spec.changes) == {"encoder"} else ""
