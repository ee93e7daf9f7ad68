"""The one table of what became of the trials, derived from their directories."""

from __future__ import annotations

import logging
import math
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import pandas as pd

from ..data.splits import same_patient
from ..errors import PlaceError
from ..system.files import write_text
from ..trials.scores_file import read_scores
from ..trials.spec import TrialSpec
from ..trials.state import EndedState, TrialState
from ..trials.survey import ended_keys, states_of
from .record import read_run, spec_at
from .summary_schema import SUMMARY_COLUMNS

Row = list[object]  # in the order of SUMMARY_COLUMNS
Rows = list[Row]

PLACE = {name: place for place, name in enumerate(SUMMARY_COLUMNS)}
BLANK: Row = [math.nan] * len(SUMMARY_COLUMNS)
UNKNOWN_WEIGHTS = "unknown"  # the label of what cannot say where its weights come from

log = logging.getLogger("stbench")


def superseded(results: Path) -> dict[str, str]:
    """The trials of a results directory that ended and no longer count, key to label.

    A later command asked the same question with other code, data or precision. They stay in ``trials/``.
    """
    if not (results / "run.json").is_file():
        return {}
    ended = ended_keys(results)
    return {key: trial.label for key, trial in read_run(results).superseded.items() if key in ended}


class SummaryTable:
    """The summary of one results directory, for whoever looks at it again and again while trials run.

    The rows of a trial that ended are kept: nothing changes them but another attempt, which is written later. Of the
    others what their specs say is kept. So a further look costs a listing, and a look at each trial that was begun.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._planned: dict[str, Rows] = {}
        self._ended: dict[str, tuple[tuple[int, int], Rows]] = {}

    def collect(self) -> pd.DataFrame:
        """One row per trial and test slice, whatever the trial's state (columns: ``SUMMARY_COLUMNS``).

        A trial without metrics (failed, skipped, pending, interrupted) has its rows too, with the reason and no
        metrics.
        """
        ended = ended_keys(self.results)
        # looked at before the files are read: what changes meanwhile is read again the next time
        written = {key: self._written_at(key, ended) for key in read_run(self.results).trials}
        changed = [key for key, stamp in written.items() if key not in self._ended or self._ended[key][0] != stamp]
        anew = {key: self._rows(key, state, written[key]) for key, state in states_of(self.results, changed)}
        rows = [row for key in written for row in (anew[key] if key in anew else self._ended[key][1])]
        return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))

    def write(self) -> pd.DataFrame:
        """Derive ``summary.csv`` from the trials and return it."""
        summary = self.collect()
        write_text(self.results / "summary.csv", summary.to_csv(index=False))
        return summary

    def _written_at(self, key: str, ended: set[str]) -> tuple[int, int]:
        """When the files that the rows of a trial are made of were written last; 0 where one is not there."""
        if key not in ended:
            return 0, 0
        trial = os.path.join(self.results, "trials", key)
        return _written_at(os.path.join(trial, "state.json")), _written_at(os.path.join(trial, "metrics.csv"))

    def _rows(self, key: str, state: TrialState, written: tuple[int, int]) -> Rows:
        if key not in self._planned:
            self._planned[key] = _of_spec(key, spec_at(self.results, key))
        rows = _with_outcome(self._planned[key], state, self.results / "trials" / key)
        if written[0]:
            self._ended[key] = written, rows
            del self._planned[key]
        return rows


def collect(results: Path) -> pd.DataFrame:
    """:meth:`SummaryTable.collect`, for who looks once."""
    return SummaryTable(results).collect()


def write_summary(results: Path) -> pd.DataFrame:
    """:meth:`SummaryTable.write`, for who looks once."""
    return SummaryTable(results).write()


def _written_at(path: str) -> int:
    """When a file was written last; 0 where it is not there."""
    try:
        return os.stat(path).st_mtime_ns
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _of_spec(key: str, spec: TrialSpec) -> Rows:
    """What a trial's spec says: a row for each of its test slices, blank in all other columns."""
    common = {
        "key": key,
        "dataset": spec.data.name,
        "split": spec.split,
        "fold": spec.fold,
        "target": spec.data.target,
        "method": spec.name,
        "title": spec.title,
        "kind": spec.kind,
        "oracle": spec.oracle,
        "preset": spec.preset,
        "variant": spec.variant,
        "weights": spec.weights,
        "seed": spec.repetition,
        "precision": spec.precision,
        "leak": spec.leak,
        "trained_by": spec.trained_by,
    }
    rows = []
    for name in spec.test:
        replicates = same_patient([name], spec.train, spec.patients)
        own = {"slice": name, "patient": spec.patients[name], "same_patient_training_slices": len(replicates)}
        rows.append(_filled(BLANK, common | own))
    return rows


def _with_outcome(planned: Rows, state: TrialState, trial: Path) -> Rows:
    """The rows of a trial's spec with what became of it."""
    common = {
        "fit_s": state.fit_s,
        "predict_s": state.predict_s,
        "peak_mem_mb": state.peak_mem_mb,
        "n_parameters": state.n_parameters,
        "device": state.device,
        "tf32": " ".join(state.tf32 or []),  # what was computed in it, as far as the device has it
        "compiled": "" if state.compiled is None else state.compiled.choice,
        "state": state.state,
        "reason": state.reason,
        "alarms": _joined(alarm.kind for alarm in state.alarms or []),
        "notes": _joined(state.notes or []),
    }
    scores: Mapping[str, Mapping[str, object]] = {}
    if isinstance(state, EndedState) and state.state == "finished":
        scores = read_scores(trial, state, [str(row[PLACE["slice"]]) for row in planned])
    return [_filled(row, common | dict(scores.get(str(row[PLACE["slice"]]), {}))) for row in planned]


def _filled(row: Row, values: Mapping[str, object]) -> Row:
    """A copy of ``row`` with ``values`` in their columns; what has no column is left out."""
    filled = list(row)
    for name, value in values.items():
        place = PLACE.get(name)
        if place is not None:
            filled[place] = sys.intern(value) if type(value) is str else value  # the same words stand in many rows
    return filled


def _joined(texts: Iterable[object]) -> str:
    return "; ".join(dict.fromkeys(map(str, texts)))


def summary_text(results: Path) -> str:
    """``summary.csv`` as the trials give it now; the file is brought up to date where the place can be written.

    What only reads results (a report of a colleague's, of an archive) needs no right to write there.
    """
    text = collect(results).to_csv(index=False)
    path = results / "summary.csv"
    if not path.is_file() or path.read_bytes() != text.encode():
        try:
            write_text(path, text)
        except PlaceError as error:
            log.warning("note: %s; what is read are the trials themselves", str(error).partition(" - ")[0])
    return text
