"""An ablation study as tidy tables: each variant of each switch against the base, paired by slice and patient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from stbench.errors import UserError
from stbench.results.run_record import AblationRecord
from stbench.statistics import paired_by_patient
from stbench.trials.spec import TrialSpec

from ...numbers.means import board_of, eligible, slice_scores
from ...numbers.metrics import METRICS
from ...published.ablations import METHOD, printed
from ...sections.section import Section

SHOWN = ("pcc_acg", "pcc_heg", "mse", "mae")
LABELS = ("method", "preset", "variant", "weights", "lowered")  # the columns of AblationEntry.labels


def study_of(section: Section) -> AblationRecord | None:
    """The record of the ablation study among the section's runs; ``UserError`` where there are two different ones."""
    found = {str(run.directory): study for run in section.runs if (study := run.record.ablation) is not None}
    if len(found) > 1:
        raise UserError(f"{' and '.join(found)} each hold an ablation study - report them apart")
    return next(iter(found.values()), None)


def variant_table(section: Section, study: AblationRecord) -> pd.DataFrame:
    """One row for each switch and variant, in the study's order, with its scores on this section.

    Columns: switch, title, answers, variant, words, change, entry (empty: not on this section's target), base, reused
    (trials that reused a trained model), trials (finished), of_trials, each of ``SHOWN`` (mean over slices),
    ``pcc_acg_difference`` to the base with ``pcc_acg_low`` and ``pcc_acg_high`` (bootstrap over patients, then slices),
    ``interval_over`` (what was drawn again), and ``M_published`` where the supplement printed the metric.
    """
    board = board_of(section)
    names = {tuple(str(row[label]) for label in LABELS): str(entry) for entry, row in board.iterrows()}
    scores = _scores(section)
    base = names.get(study.base.labels, "") if study.base.target == section.target else ""
    trials = section.rows[section.rows["state"] == "finished"].drop_duplicates("key")
    n_reused = trials[trials["trained_by"] != ""].groupby("entry").size()
    rows = []
    for switch in study.switches:
        for variant in switch.variants:
            entry = names.get(variant.labels, "") if variant.target == section.target else ""
            row: dict[str, Any] = {
                "switch": switch.name,
                "title": switch.title,
                "answers": switch.answers,
                "variant": variant.name,
                "words": variant.words,
                "change": variant.variant,
                "target": variant.target,
                "entry": entry,
                "base": variant.base,
                "trials": int(board["n_trials"].loc[entry]) if entry else 0,
                "of_trials": int(board["of_trials"].loc[entry]) if entry else 0,
                "reused": int(n_reused.get(entry, 0)),
            }
            for metric in SHOWN:
                comparable = bool(entry) and bool(eligible(board, metric).loc[entry])
                row[metric] = float(board[metric].loc[entry]) if comparable else float("nan")
                if study.method == METHOD:
                    row[f"{metric}_published"] = printed(section.dataset, switch.answers, variant.name, metric)
            rows.append(row | _against(scores, entry, base))
    return pd.DataFrame(rows)


def _against(scores: pd.DataFrame, entry: str, base: str) -> dict[str, Any]:
    nothing = {"pcc_acg_difference": float("nan"), "pcc_acg_low": float("nan"), "pcc_acg_high": float("nan")}
    known = set(scores["entry"])
    if not entry or not base or entry == base or not {entry, base} <= known:
        return nothing | {"interval_over": ""}
    compared = paired_by_patient(scores, entry, base, higher_is_better=METRICS["pcc_acg"].higher_is_better)
    return {
        "pcc_acg_difference": compared.difference,
        "pcc_acg_low": compared.interval.low,
        "pcc_acg_high": compared.interval.high,
        "interval_over": compared.interval.over,
    }


def _scores(section: Section) -> pd.DataFrame:
    scores = slice_scores(section.rows).dropna(subset=["pcc_acg"])
    patients = scores["slice"].map(section.patients).fillna("")
    return pd.DataFrame(
        {"entry": scores["entry"], "slice": scores["slice"], "patient": patients, "value": scores["pcc_acg"]}
    ).reset_index(drop=True)


def sweep_values(variants: pd.DataFrame, specs: Mapping[str, TrialSpec]) -> list[float] | None:
    """The value of the one setting in which the entries of ``variants`` differ, for each of its rows.

    ``variants``: rows of :func:`variant_table` that have an entry. ``None`` where they change several settings, or one
    that is no number.
    """
    changed = {setting for entry in variants["entry"] for setting in specs[entry].changes}
    if len(changed) != 1:
        return None
    (setting,) = changed
    values = [specs[entry].config.get(setting) for entry in variants["entry"]]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return numbers if len(numbers) == len(values) else None
