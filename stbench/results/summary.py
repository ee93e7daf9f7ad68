"""The one table of what became of the trials, derived from their directories."""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.splits import same_patient
from ..errors import PlaceError
from ..system.files import write_text
from ..trials.outcome import read_table, state_of
from ..trials.spec import TrialSpec
from .record import read_run, spec_at
from .summary_schema import SUMMARY_COLUMNS

UNKNOWN_WEIGHTS = "unknown"  # the label of what cannot say where its weights come from

log = logging.getLogger("stbench")


def superseded(results: Path) -> dict[str, str]:
    """The trials of a results directory that ended and no longer count, key to label.

    A later command asked the same question with other code, data or precision. They stay in ``trials/``.
    """
    if not (results / "run.json").is_file():
        return {}
    found = read_run(results).superseded
    return {key: trial.label for key, trial in found.items() if (results / "trials" / key).is_dir()}


class SummaryTable:
    """The summary of one results directory, for whoever looks at it again and again while trials run.

    The rows of a trial that ended are kept: nothing changes them but another attempt, which is written later.
    """

    def __init__(self, results: Path) -> None:
        self.results = results
        self._specs: dict[str, TrialSpec] = {}
        self._ended: dict[str, tuple[tuple[int, int], list[dict[str, Any]]]] = {}

    def collect(self) -> pd.DataFrame:
        """One row per trial and test slice, whatever the trial's state (columns: ``SUMMARY_COLUMNS``).

        A trial without metrics (failed, skipped, pending, interrupted) has its rows too, with the reason and no
        metrics.
        """
        rows: list[dict[str, Any]] = []
        for key in read_run(self.results).trials:
            trial = self.results / "trials" / key
            written = (_written_at(trial / "state.json"), _written_at(trial / "metrics.csv"))
            known = self._ended.get(key)
            if known is None or known[0] != written:
                if key not in self._specs:
                    self._specs[key] = spec_at(self.results, key)
                known = written, _rows(self.results, key, self._specs[key])
            if written[0]:
                self._ended[key] = known
            rows += known[1]
        return pd.DataFrame(rows, columns=list(SUMMARY_COLUMNS))

    def write(self) -> pd.DataFrame:
        """Derive ``summary.csv`` from the trials and return it."""
        summary = self.collect()
        write_text(self.results / "summary.csv", summary.to_csv(index=False))
        return summary


def collect(results: Path) -> pd.DataFrame:
    """:meth:`SummaryTable.collect`, for who looks once."""
    return SummaryTable(results).collect()


def write_summary(results: Path) -> pd.DataFrame:
    """:meth:`SummaryTable.write`, for who looks once."""
    return SummaryTable(results).write()


def _written_at(path: Path) -> int:
    """When a file was written last; 0 where it is not there."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _rows(results: Path, key: str, spec: TrialSpec) -> list[dict[str, Any]]:
    state = state_of(results, key)
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
        "seed": spec.seed,
        "fit_s": state.fit_s,
        "predict_s": state.predict_s,
        "peak_mem_mb": state.peak_mem_mb,
        "n_parameters": state.n_parameters,
        "device": state.device,
        "precision": spec.precision,
        "tf32": " ".join(state.tf32 or []),  # what was computed in it, as far as the device has it
        "state": state.state,
        "reason": state.reason,
        "leak": spec.leak,
        "trained_by": spec.trained_by,
        "alarms": _joined(alarm.kind for alarm in state.alarms or []),
        "notes": _joined(state.notes or []),
    }
    scores: dict[str, dict[Hashable, Any]] = {}
    if state.state == "finished":
        table = read_table(results / "trials" / key, "metrics.csv", spec.test)
        assert table is not None  # a finished trial without it has no state
        scores = {str(row["slice"]): row for row in table.to_dict("records")}
    rows = []
    for name in spec.test:
        replicates = same_patient([name], spec.train, spec.patients)
        rows.append(
            common
            | {"slice": name, "patient": spec.patients[name], "same_patient_training_slices": len(replicates)}
            | {str(column): value for column, value in scores.get(name, {}).items()}
        )
    return rows


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
