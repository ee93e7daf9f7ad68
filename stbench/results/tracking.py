"""MLflow, fed from a results directory by the one collecting process: a parent run per benchmark, a child per trial.

Feeding is idempotent: what is recorded already is left alone, what was cut short is recorded again. A broken or absent
server never fails a benchmark: the caller catches ``TrackingError``, which says whether waiting helps.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pandas as pd

from ..errors import UserError
from ..scores.exchange import COLUMNS as EXCHANGED
from ..trials.outcome import read_table, state_of
from ..trials.spec import TrialSpec
from ..trials.state import EndedState
from .mlflow_names import LONGEST, joined
from .mlflow_store import opened, passes_by, tracking_uri
from .record import read_run, trial_specs
from .run_record import RunRecord
from .summary import collect
from .summary_schema import METRICS

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

__all__ = ["Fed", "TrackingError", "track", "tracking_uri"]

EXPERIMENT = "stbench"


FEED_LIMIT_S = 600.0  # that a slow server may take, asked by a benchmark that is done
LONGEST_PARAM, LONGEST_TAG = 6000, 4000  # characters
CUT = " ... (cut)"


class TrackingError(Exception):
    """MLflow could not be fed; the message says where and why, in one line.

    ``passes``: the store was away, so that the same attempt may succeed later; else it refused and will again.
    """

    def __init__(self, message: str, passes: bool) -> None:
        super().__init__(message)
        self.passes = passes


@dataclass(frozen=True)
class Fed:
    """``trials``: how many were new. ``refused``: why the report could not be kept as an artifact; empty: it was."""

    trials: int
    refused: str = ""


def track(results: Path, report: Path | None = None) -> Fed:
    """Record every ended trial of ``results`` (and, as an artifact, a report directory).

    Raises ``TrackingError``, whatever MLflow stumbled over while it was fed the trials.
    """
    uri = tracking_uri(results)
    record = read_run(results)
    try:
        with opened(results) as (client, artifacts):
            return _Feed(results, record, client, artifacts).run(report)
    except UserError:  # of the results, not of MLflow
        raise
    except Exception as error:
        raise TrackingError(f"MLflow at {uri} could not be fed: {_reason(error)}", passes_by(error)) from error


class _Feed:
    def __init__(self, results: Path, record: RunRecord, client: MlflowClient, artifacts: str | None) -> None:
        self.results = results
        self.client = client
        self.record = record
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            self.experiment = experiment.experiment_id
        else:
            self.experiment = self.client.create_experiment(EXPERIMENT, artifact_location=artifacts)

    def run(self, report: Path | None) -> Fed:
        began = time.monotonic()
        parent = self._parent()
        children = {
            child.data.tags["stbench.key"]: child
            for child in self._search(f"tags.`mlflow.parentRunId` = '{parent}'")
            if "stbench.key" in child.data.tags
        }
        summary = collect(self.results)
        new = 0
        for key, spec in trial_specs(self.results).items():
            state = state_of(self.results, key)
            if not isinstance(state, EndedState):
                continue
            child = children.get(key)
            # the stamp is written last, so a child without it, or of an earlier attempt, is incomplete
            if child is not None:
                if child.data.tags.get("stbench.ended") == str(state.ended):
                    continue
                self.client.delete_run(child.info.run_id)
            if time.monotonic() - began > FEED_LIMIT_S:
                raise TimeoutError(f"{new} trials took it {FEED_LIMIT_S:.0f} s, and there are more")
            self._trial(parent, key, spec, state, summary[summary["key"] == key])
            new += 1
        self._means(parent, summary)
        return Fed(new, "" if report is None else self._keep(parent, report))

    def _keep(self, parent: str, report: Path) -> str:
        """Keep the report as an artifact; returns why that could not be done. The trials are recorded anyway."""
        place = self.client.get_run(parent).info.artifact_uri or ""
        where = urlsplit(place)
        elsewhere = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).scheme in ("http", "https")
        if elsewhere and where.scheme in ("", "file") and not _has_its_root(Path(unquote(where.path))):
            return f"the server keeps no artifacts for others: they are to be written to {place}, which is not here"
        try:
            self.client.log_artifacts(parent, str(report), artifact_path="report")
        except Exception as error:  # noqa: BLE001 - each kind of artifact store has errors of its own
            return f"its artifacts, at {place}, could not be written: {_reason(error)}"
        return ""

    def _search(self, condition: str) -> list[Any]:
        found: list[Any] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment], condition, max_results=1000, page_token=token)
            found += list(page)
            token = page.token
            if not token:
                return found

    def _parent(self) -> str:
        found = self._search(f"tags.`stbench.run` = '{self.record.id}'")
        if found:
            return found[0].info.run_id
        name = self.results.resolve().name
        tags = {
            "stbench.run": self.record.id,
            "mlflow.runName": name,
            "stbench.command": _cut(self.record.commands[-1], LONGEST_TAG),
        }
        parent = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        for package, number in self.record.versions.items():
            self.client.set_tag(parent, f"version.{package}", number)
        return parent

    def _trial(self, parent: str, key: str, spec: TrialSpec, state: EndedState, rows: pd.DataFrame) -> None:
        tags = {
            "mlflow.parentRunId": parent,
            "mlflow.runName": spec.label,
            "stbench.key": key,
            "stbench.state": state.state,
            "stbench.reason": _cut(state.reason, LONGEST_TAG),
            "stbench.weights": spec.weights,
            "stbench.device": str(state.device),
            "stbench.notes": _cut("; ".join(state.notes or []), LONGEST_TAG),
        }
        if spec.trained_by:
            tags["stbench.trained_by"] = spec.trained_by
        tags |= {f"version.{name}": number for name, number in (state.versions or {}).items()}
        tags |= {f"data.{joined(name)}": content for name, content in spec.data.keys.items()}
        tags |= _originals([*spec.data.keys, spec.name])
        start = int(state.started * 1000)
        run = self.client.create_run(self.experiment, start_time=start, tags=tags, run_name=spec.label).info.run_id
        params = {
            "method": spec.name,
            "dataset": spec.data.name,
            "target": spec.data.target,
            "split": spec.split,
            "fold": spec.fold,
            "seed": spec.seed,
            "preset": spec.preset,
            "variant": spec.variant,
            "precision": spec.precision,
            **{f"config.{name}": value for name, value in spec.config.items()},
        }
        self._log(run, params, self._metrics(key, rows, state))
        self.client.set_terminated(
            run, status="FAILED" if state.state == "failed" else "FINISHED", end_time=int(state.ended * 1000)
        )
        self.client.set_tag(run, "stbench.ended", str(state.ended))

    def _metrics(self, key: str, rows: pd.DataFrame, state: EndedState) -> Iterable[Metric]:
        from mlflow.entities import Metric

        when = int(state.ended * 1000)
        for name in ("fit_s", "predict_s", "peak_mem_mb", "n_parameters"):
            value = getattr(state, name)
            if value is not None:
                yield Metric(name, float(value), when, 0)
        for row in rows.to_dict("records"):
            for name in (*METRICS, *EXCHANGED):
                if pd.notna(row[name]):
                    yield Metric(joined(name, str(row["slice"])), float(row[name]), when, 0)
        for name in (*METRICS, *EXCHANGED):
            values = rows[name].dropna()
            if len(values) == len(rows):  # a mean that skips a slice would not be the trial's
                yield Metric(name, float(values.mean()), when, 0)
        history = read_table(self.results / "trials" / key, "history.csv", ())
        for row in () if history is None else history.to_dict("records"):
            for column, value in row.items():
                if column != "epoch" and math.isfinite(value):
                    yield Metric(joined("train", str(column)), float(value), when, int(row["epoch"]))

    def _log(self, run: str, params: dict[str, Any], metrics: Iterable[Metric]) -> None:
        """MLflow takes at most 1,000 metrics and 100 parameters at once, and parameters of at most 6,000 characters."""
        from mlflow.entities import Param

        listed, values = [Param(name, _cut(str(value), LONGEST_PARAM)) for name, value in params.items()], list(metrics)
        for first in range(0, len(listed), 100):
            self.client.log_batch(run, params=listed[first : first + 100])
        for first in range(0, len(values), 1000):
            self.client.log_batch(run, metrics=values[first : first + 1000])

    def _means(self, parent: str, summary: pd.DataFrame) -> None:
        """On the parent: every entry's mean over the slices, where no slice is missing, and k and n.

        MLflow keeps every value that it is given, so a value is given once: when it is new. A mean that stood there and
        is none any more (further slices are planned, say) becomes NaN.
        """
        run = self.client.get_run(parent)
        known, named = run.data.metrics, run.data.tags
        columns = ["dataset", "split", "target", "method", "preset", "variant", "weights", "precision"]
        for labels, rows in summary.fillna(dict.fromkeys(columns, "")).groupby(columns, sort=False):
            *named_by, weights, precision = map(str, labels)
            departures = ("" if weights == "none" else weights, "" if precision == "fp32" else precision)
            parts = [part for part in (*named_by, *departures) if part]
            for tag, original in _originals(parts).items():
                if tag not in named:
                    self.client.set_tag(parent, tag, original)
            values = {
                "slices_finished": float((rows["state"] == "finished").sum()),
                "slices_planned": float(len(rows)),
                **{name: float(rows[name].mean()) if rows[name].notna().all() else math.nan for name in METRICS},
            }
            for metric, value in values.items():
                name = joined(*parts, metric)
                if name not in known and math.isnan(value):
                    continue
                before = known.get(name, math.inf)
                if before != value and not (math.isnan(before) and math.isnan(value)):
                    self.client.log_metric(parent, name, value)


def _originals(names: Iterable[str]) -> dict[str, str]:
    """Tags that say what a name is which MLflow does not take as it is."""
    return {f"stbench.name.{joined(name)}"[:LONGEST]: name for name in names if joined(name) != name}


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - len(CUT)] + CUT


def _reason(error: Exception) -> str:
    return _cut(" ".join(f"{type(error).__name__}: {error}".split()), 300)


def _has_its_root(path: Path) -> bool:
    """Whether the first folders of an absolute path are there: it is of this machine, or of a disk that it shares."""
    return not path.is_absolute() or Path(*path.parts[:3]).is_dir()
