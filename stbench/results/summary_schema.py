"""The columns of ``summary.csv``, in order: who writes the table and who reads it have them from here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ..errors import UserError
from ..system.tables import numbers

METRICS = ("pcc_acg", "pcc_heg", "mse", "mae", "strict_pcc_acg", "strict_pcc_heg")


@dataclass(frozen=True)
class Column:
    """``kind``: text (empty: there is none), number (blank: NaN), or flag (``True`` or ``False``)."""

    name: str
    kind: Literal["text", "number", "flag"]
    meaning: str


COLUMNS = (
    Column("key", "text", "the trial's key, and its folder's name"),
    Column("dataset", "text", "the dataset's name"),
    Column("split", "text", "the rule that held the slice out"),
    Column("fold", "text", "the fold's name"),
    Column("target", "text", "the target's name"),
    Column("method", "text", "the method's name"),
    Column("title", "text", "the method's name as it is printed"),
    Column("kind", "text", "method or control"),
    Column("oracle", "flag", "the method sees what no method may"),
    Column("preset", "text", "the preset of settings"),
    Column("variant", "text", "what was changed against the preset, in words"),
    Column("weights", "text", "label of the pretrained weights"),
    Column("seed", "text", "the name of a repetition: the seed, a whole number; of a fold's model elsewhere FOLD-SEED"),
    Column("slice", "text", "the test slice"),
    Column("patient", "text", "the test slice's patient"),
    Column("n_spots", "number", "spots that were scored"),
    Column("n_genes", "number", "genes that were scored"),
    Column("pcc_acg", "number", "mean over all genes of Pearson's r; genes where it is undefined are left out"),
    Column("pcc_heg", "number", "the same over the highly expressed genes of the test slice"),
    Column("mse", "number", "mean squared error over spots and genes"),
    Column("mae", "number", "mean absolute error over spots and genes"),
    Column("strict_pcc_acg", "number", "pcc_acg where a gene whose prediction is constant counts as 0"),
    Column("strict_pcc_heg", "number", "strict_pcc_acg over the highly expressed genes of the training slices"),
    Column("exchanged_move", "number", "how far the prediction moves when patches are exchanged between spots"),
    Column("exchanged_pcc_acg", "number", "pcc_acg with exchanged patches; blank for predictions made elsewhere"),
    Column("exchanged_strict_pcc_acg", "number", "strict_pcc_acg with exchanged patches"),
    Column("n_constant_truth", "number", "genes that are constant in truth"),
    Column("n_constant_prediction", "number", "further genes that are constant in the prediction"),
    Column("same_patient_training_slices", "number", "training slices of the test slice's patient"),
    Column("fit_s", "number", "seconds that training took"),
    Column("predict_s", "number", "seconds that prediction took"),
    Column("peak_mem_mb", "number", "peak memory of the process (CPU) or of the device (GPU)"),
    Column("n_parameters", "number", "parameters that are trained"),
    Column("device", "text", "what it was computed on"),
    Column("precision", "text", "what it was computed in; empty where predictions were made elsewhere"),
    Column("tf32", "text", "what was computed in TF32, as far as the device has it"),
    Column("compiled", "text", "compiled or eager: how it was trained; empty where compiling was not asked for"),
    Column("state", "text", "what became of the trial"),
    Column("reason", "text", "why it did not finish"),
    Column("leak", "text", "what the method does with the test slide's own expression; empty: nothing"),
    Column("trained_by", "text", "key of the trial whose model was reused; empty where the trial trained its own"),
    Column("alarms", "text", "what speaks against the number, each once, '; ' between"),
    Column("notes", "text", "what the number's reader must know, each once, '; ' between"),
)
SUMMARY_COLUMNS = tuple(column.name for column in COLUMNS)


def require_columns(table: pd.DataFrame, path: Path, remedy: str) -> None:
    """Raises ``UserError``, with ``remedy``, where ``table``, read from ``path``, lacks columns of :data:`COLUMNS`."""
    absent = [name for name in SUMMARY_COLUMNS if name not in table.columns]
    if absent:
        raise UserError(f"{path} has no column {', '.join(absent)} - {remedy}")


def typed(table: pd.DataFrame, path: Path, remedy: str) -> pd.DataFrame:
    """``table``, all of it text as it stands in ``path``, with the types of :data:`COLUMNS`.

    Raises ``UserError``, with ``remedy``, for a number that is none.
    """
    out = table.copy()
    for column in COLUMNS:
        if column.kind == "number":
            out[column.name] = numbers(table[column.name], path, remedy).astype(float)
        elif column.kind == "flag":
            out[column.name] = table[column.name] == "True"
    return out
