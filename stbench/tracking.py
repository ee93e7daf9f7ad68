"""MLflow, fed from a results directory by the one collecting process: one parent run a benchmark, one child a trial.

Feeding is idempotent: what is recorded already is left alone, what was cut short is recorded again. A broken or absent
server never fails a benchmark: the caller catches ``TrackingError``, and ``stbench track RESULTS`` catches up later.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .errors import UserError
from .exchange import COLUMNS as EXCHANGED
from .results import METRICS, collect, read_run, trial_specs
from .trial import FINAL_STATES, TrialSpec, state_of
from .trial_files import read_table

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "stbench"


class TrackingError(Exception):
    """MLflow could not be fed; the message says where and why, in one line."""


def tracking_uri(results: Path) -> str:
    """``MLFLOW_TRACKING_URI`` where it is set, else a SQLite file beside the results directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{results.resolve().parent / 'mlflow.db'}"


def track(results: Path, report: Path | None = None) -> int:
    """Record every ended trial of ``results`` (and, as an artifact, a report directory). Returns how many were new.

    Raises ``TrackingError``, whatever MLflow stumbled over.
    """
    uri = tracking_uri(results)
    try:
        return _Feed(results, uri).run(report)
    except UserError:  # of the results, not of MLflow
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise TrackingError(f"MLflow at {uri} could not be fed: {type(error).__name__}: {reason}") from error


class _Feed:
    def __init__(self, results: Path, uri: str) -> None:
        # the server is asked a few times, not for minutes: a benchmark must not wait for a broken one
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        from mlflow import MlflowClient

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)  # that it makes its tables is no news
        self.results = results
        self.client: MlflowClient = MlflowClient(tracking_uri=uri)
        self.record = read_run(results)
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            self.experiment = experiment.experiment_id
        else:
            artifacts = None if not uri.startswith("sqlite:") else (results.resolve().parent / "mlartifacts").as_uri()
            self.experiment = self.client.create_experiment(EXPERIMENT, artifact_location=artifacts)

    def run(self, report: Path | None) -> int:
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
            if state["state"] not in FINAL_STATES:
                continue
            child = children.get(key)
            # the stamp is written last, so a child without it, or of an earlier attempt, is incomplete
            if child is not None:
                if child.data.tags.get("stbench.ended") == str(state["ended"]):
                    continue
                self.client.delete_run(child.info.run_id)
            self._trial(parent, key, spec, state, summary[summary["key"] == key])
            new += 1
        self._means(parent, summary)
        if report is not None:
            self.client.log_artifacts(parent, str(report), artifact_path="report")
        return new

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
        found = self._search(f"tags.`stbench.run` = '{self.record['id']}'")
        if found:
            return found[0].info.run_id
        name = self.results.name
        tags = {
            "stbench.run": self.record["id"],
            "mlflow.runName": name,
            "stbench.command": self.record["commands"][-1],
        }
        parent = self.client.create_run(self.experiment, tags=tags, run_name=name).info.run_id
        for package, number in self.record["versions"].items():
            self.client.set_tag(parent, f"version.{package}", number)
        return parent

    def _trial(self, parent: str, key: str, spec: TrialSpec, state: dict[str, Any], rows: pd.DataFrame) -> None:
        tags = {
            "mlflow.parentRunId": parent,
            "mlflow.runName": spec.label,
            "stbench.key": key,
            "stbench.state": state["state"],
            "stbench.reason": state["reason"][:4000],
            "stbench.weights": spec.weights,
            "stbench.device": str(state.get("device")),
            "stbench.notes": "; ".join(state.get("notes", []))[:4000],
        }
        if spec.trained_by:
            tags["stbench.trained_by"] = spec.trained_by
        tags |= {f"version.{name}": number for name, number in state.get("versions", {}).items()}
        tags |= {f"data.{name}": content for name, content in spec.data.keys.items()}
        start = int(state["started"] * 1000)
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
            run, status="FAILED" if state["state"] == "failed" else "FINISHED", end_time=int(state["ended"] * 1000)
        )
        self.client.set_tag(run, "stbench.ended", str(state["ended"]))

    def _metrics(self, key: str, rows: pd.DataFrame, state: dict[str, Any]) -> Iterable[Metric]:
        from mlflow.entities import Metric

        when = int(state["ended"] * 1000)
        for name in ("fit_s", "predict_s", "peak_mem_mb", "n_parameters"):
            if state.get(name) is not None:
                yield Metric(name, float(state[name]), when, 0)
        for row in rows.to_dict("records"):
            for name in (*METRICS, *EXCHANGED):
                if pd.notna(row[name]):
                    yield Metric(f"{name}/{row['slice']}", float(row[name]), when, 0)
        for name in (*METRICS, *EXCHANGED):
            values = rows[name].dropna()
            if len(values) == len(rows):  # a mean that skips a slice would not be the trial's
                yield Metric(name, float(values.mean()), when, 0)
        history = read_table(self.results / "trials" / key, "history.csv", ())
        for row in () if history is None else history.to_dict("records"):
            for column, value in row.items():
                if column != "epoch" and math.isfinite(value):
                    yield Metric(f"train/{column}", float(value), when, int(row["epoch"]))

    def _log(self, run: str, params: dict[str, Any], metrics: Iterable[Metric]) -> None:
        """MLflow takes at most 1,000 metrics and 100 parameters at once, and parameters of at most 6,000 characters."""
        from mlflow.entities import Param

        listed, values = [Param(name, str(value)[:6000]) for name, value in params.items()], list(metrics)
        for first in range(0, len(listed), 100):
            self.client.log_batch(run, params=listed[first : first + 100])
        for first in range(0, len(values), 1000):
            self.client.log_batch(run, metrics=values[first : first + 1000])

    def _means(self, parent: str, summary: pd.DataFrame) -> None:
        """On the parent: every method's mean over the slices, where no slice is missing, and k and n."""
        entry = ["dataset", "split", "target", "method", "preset", "variant", "precision"]
        for (_, *named, precision), rows in summary.groupby(entry, dropna=False):
            labels = [*map(str, named), "" if precision == "fp32" else str(precision)]
            name = "/".join(_safe(label) for label in labels if label)
            finished = rows[rows["state"] == "finished"]
            self.client.log_metric(parent, f"{name}/slices_finished", len(finished))
            self.client.log_metric(parent, f"{name}/slices_planned", len(rows))
            for metric in METRICS:
                if rows[metric].notna().all():
                    self.client.log_metric(parent, f"{name}/{metric}", float(rows[metric].mean()))


def _safe(text: str) -> str:
    """MLflow's metric names allow letters, digits and ``_-. :/`` only."""
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in text)
