"""Scoring predictions that were made elsewhere: finished trials of the usual layout, without running anybody's code."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.prepared import PreparedDataset
from ..data.splits import Fold
from ..errors import UserError
from ..results.plan import record_finished
from ..results.record import read_run
from ..results.run_record import SectionRecord
from ..scores.alarms import Alarm
from ..system.environment import versions
from ..system.files import replacing_directory, write_text, writing_to
from ..trials.history import History
from ..trials.outcome import list_files, read_ended
from ..trials.scoring import mean_target, score_predictions
from ..trials.spec import EXTERNAL, DataSpec, TrialSpec
from ..trials.state import AlarmRecord, EndedState
from .prediction_checks import check_prediction
from .predictions import ExternalPrediction

PRESET = "external"
DECLARED = "predictions made elsewhere; that no test slice of a fold was trained on is declared by whoever made them"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Submission:
    """Somebody's predictions and what they are to be called in the table."""

    name: str
    title: str
    split: str  # as whoever made the predictions declares it
    seed: int
    predictions: Mapping[str, ExternalPrediction]  # by slice


def require_name(name: str) -> None:
    """A method's name stands in file names, in keys and in the table; ``UserError`` where it cannot."""
    if not NAME.fullmatch(name):
        raise UserError(
            f"--name '{name}' is not a name - use letters, digits, _ . and -, and --title for what is printed"
        )


def earlier_slices(results: Path, dataset: str, split: str, target: str) -> list[str]:
    """The slices that ``results`` is about; none where it is new, or has nothing of this dataset, split and target."""
    recorded = _recorded(results, dataset, split, target)
    return [] if recorded is None else list(recorded.dataset.slices_present)


def _recorded(results: Path, dataset: str, split: str, target: str) -> SectionRecord | None:
    if not (results / "run.json").is_file():
        return None
    return read_run(results).section(dataset, split, target)


def require_same_protocol(results: Path, data: PreparedDataset, folds: Sequence[Fold], split: str) -> None:
    """Refuse to put scores beside others that were made with other folds, or on other content of a slice."""
    recorded = _recorded(results, data.name, split, data.target.name)
    if recorded is None:
        return
    theirs = {(fold.name, fold.test, fold.train) for fold in recorded.folds}
    if theirs != {(fold.name, fold.test, fold.train) for fold in folds}:
        raise UserError(
            f"{results} holds {len(theirs)} other folds of {data.name}, {split} - give --slices and --folds as there, "
            "or another --out"
        )
    for name, slide in data.slides.items():
        if recorded.slides[name].key != slide.key:
            raise UserError(f"slice {name} has changed since {results} was written - give another --out")


def score_submission(
    results: Path,
    data: PreparedDataset,
    data_spec: DataSpec,
    folds: Sequence[Fold],
    submission: Submission,
    command: str,
) -> tuple[list[str], int]:
    """Score ``submission`` into ``results`` (new, or of an earlier run): the trials' keys, and how many are new.

    A fold all of whose test slices are predicted is one trial. The table changes in one step, after every trial is
    complete on disk. Trials of the same predictions are reused; one of an older version of the same name, fold and seed
    leaves the table. Raises ``UserError`` for a fold that is predicted in part.
    """
    specs = [_spec(fold, data, data_spec, submission) for fold in _predicted(folds, submission)]
    new = [spec for spec in specs if read_ended(results / "trials" / spec.key) is None]
    with writing_to(results):
        for spec in new:
            with replacing_directory(results / "trials" / spec.key) as work:
                _write_trial(work, spec, data, submission)
    record_finished(results, SectionRecord.of(data, tuple(folds), submission.split), specs, command)
    return [spec.key for spec in specs], len(new)


def scores_kept(summary: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """A note on earlier scores under the same name that those of ``keys`` did not replace, if there are any."""
    question = ["dataset", "split", "target", "method", "preset", "seed"]
    ours = summary["key"].isin(keys)
    same = summary.merge(summary.loc[ours, question].drop_duplicates(), on=question)
    kept = same.loc[~same["key"].isin(keys), "slice"].drop_duplicates()
    if kept.empty:
        return []
    return [f"earlier scores under this name stay on {', '.join(kept)}; another version should have another --name"]


def _predicted(folds: Sequence[Fold], submission: Submission) -> list[Fold]:
    chosen = []
    for fold in folds:
        lacking = [name for name in fold.test if name not in submission.predictions]
        if not lacking:
            chosen.append(fold)
        elif len(lacking) < len(fold.test):
            raise UserError(
                f"fold {fold.name} of {submission.split} is predicted in part: {', '.join(lacking)} of "
                f"{', '.join(fold.test)} is missing - give all slices of a fold, or none"
            )
    if not chosen:
        raise UserError("none of the slices is predicted - name at least one file with a slice of this dataset")
    return chosen


def _spec(fold: Fold, data: PreparedDataset, data_spec: DataSpec, submission: Submission) -> TrialSpec:
    return TrialSpec(
        method=f"{EXTERNAL}{submission.name}",
        name=submission.name,
        method_source="",  # no code: what determines the outcome is the predictions' content, in the config
        title=submission.title,
        kind="method",
        oracle=False,
        preset=PRESET,
        variant="",
        config={"predictions": {name: submission.predictions[name].digest for name in fold.test}},
        weights="unknown",
        data=data_spec,
        split=submission.split,
        fold=fold.name,
        train=fold.train,
        test=fold.test,
        patients={name: data.patients[name] for name in (*fold.train, *fold.test)},
        seed=submission.seed,
        precision="",
    )


def alarms_of(prediction: ExternalPrediction, data: PreparedDataset) -> list[Alarm]:
    """Signs that the predictions of a slice are on another scale, or the truth itself; of the genes predicted."""
    slide = data.slides[prediction.slice]
    return list(
        check_prediction(
            prediction.slice,
            prediction.values,
            slide.target,
            slide.counts,
            slide.total_counts,
            slide.n_measured,
            data.target,
        )
    )


def _write_trial(work: Path, spec: TrialSpec, data: PreparedDataset, submission: Submission) -> None:
    started = time.time()
    training = [data.slides[name] for name in spec.train]
    floor = mean_target(training).astype(np.float32)
    given = [submission.predictions[name] for name in spec.test]
    completed = {found.slice: np.where(np.isnan(found.values), floor, found.values) for found in given}
    notes = [DECLARED, *dict.fromkeys(note for found in given for note in found.notes)]
    notes += score_predictions(spec, data, training, completed, work).notes
    raised = [alarm for found in given for alarm in alarms_of(found, data)]
    write_text(work / "spec.json", spec.as_json())
    History(work / "history.jsonl").write_csv(work / "history.csv")
    lines = [f"trial {spec.key}: {spec.label}, scored from predictions made elsewhere"]
    lines += [f"slice {found.slice}: {found.source}, content {found.digest}" for found in given]
    lines += [f"alarm: {alarm.kind}: {alarm.text}" for alarm in raised]
    (work / "log.txt").write_text("\n".join([*lines, *notes]) + "\n", encoding="utf-8")
    state = EndedState(
        state="finished",
        reason="",
        notes=notes,
        started=started,
        ended=time.time(),
        device="",  # where and how long the method ran is not known
        precision="",
        alarms=[AlarmRecord(kind=alarm.kind, text=alarm.text) for alarm in raised],
        versions=versions(),
        files=list_files(work),
    )
    state.write(work)
