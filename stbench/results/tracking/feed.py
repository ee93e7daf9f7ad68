"""Bringing MLflow up to what a results directory holds, as often as one likes.

Feeding is idempotent: what is recorded already is left alone, what was cut short is gone on with. A broken or absent
server never fails a benchmark: the caller catches ``TrackingError``, which says whether waiting helps.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import unquote, urlsplit

import pandas as pd

from ...errors import UserError
from ...trials.outcome import state_of
from ...trials.spec import TrialSpec
from ...trials.state import EndedState, TrialState
from ..record import read_run, spec_at
from ..run_record import RunRecord
from ..summary import SummaryTable
from . import content
from .asking import Asking
from .limits import Point, cut
from .runs import ENDED_TAG, EPOCHS_TAG, BenchmarkRuns, Gone, KnownRun
from .store import Store, opened, passes_by, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

Answer = TypeVar("Answer")

FEED_LIMIT_S = 600.0  # that a slow server may take, asked by a benchmark that is done
BEGINNINGS = 5  # of one piece of work, when others that feed the same benchmark delete what it works on


class TrackingError(Exception):
    """MLflow could not be fed; the message says where and why, in one line.

    ``passes``: the store was away, so that the same attempt may succeed later; else it refused and will again.
    """

    def __init__(self, message: str, passes: bool) -> None:
        super().__init__(message)
        self.passes = passes


@dataclass(frozen=True)
class Fed:
    """What one feed did.

    ``trials``: how many that ended were new. ``open``: how many have not ended. ``cut``: what was too long for MLflow,
    by the names of parameters and tags. ``refused``: why the report could not be kept as an artifact; empty: it was.
    """

    trials: int
    open: int = 0
    cut: tuple[str, ...] = ()
    refused: str = ""


def track(results: Path, report: Path | None = None) -> Fed:
    """Record every ended trial of ``results`` (and, as an artifact, a report directory).

    Raises ``TrackingError``, whatever MLflow stumbled over while it was fed the trials.
    """
    with contextlib.closing(Feed(results, FEED_LIMIT_S)) as feed:
        return feed.bring_up_to_date(report)


class Feed:
    """Feeds one results directory, again and again; it remembers what is recorded, until something goes wrong.

    ``limit_s``: the time of one feed. ``before_each`` is called before each request.
    """

    def __init__(self, results: Path, limit_s: float, before_each: Callable[[], object] = lambda: None) -> None:
        self.results = results
        self._ask = Asking(limit_s, before_each)
        self._table = SummaryTable(results)
        self._cut: dict[str, None] = {}  # names of what was too long for MLflow
        self._opened = contextlib.ExitStack()
        self.close()

    def close(self) -> None:
        """Close the store, and forget what is there; the next feed looks."""
        self._opened.close()
        self._store: Store | None = None
        self._known: BenchmarkRuns | None = None
        self._recorded: dict[str, int] = {}  # key of a trial that is recorded to when its state was written
        self._latest = 0.0  # end of a trial, seconds since the epoch

    def bring_up_to_date(self, report: Path | None = None, goes_on: bool = False) -> Fed:
        """Record what is new: trials that ended, and epochs of those at work.

        ``goes_on``: somebody runs the trials that are open. Raises ``TrackingError``, and ``UserError`` where something
        is wrong with the results.
        """
        record = read_run(self.results)
        try:
            self._ask.before_each()
            if self._store is None:
                self._store = self._opened.enter_context(opened(self.results))
            self._ask.begin(self._store.again, self._store.backoff_s)
            lost = self._ask.lost
            n_new, n_open = self._feed(record, goes_on)
            if self._ask.lost > lost:  # what was asked for in vain may have been done after it was looked for
                self._known = None
            parent = self._undisturbed(record, lambda runs: runs.parent)
            refused = "" if report is None else self._keep(self._store.client, parent, report)
            return Fed(n_new, n_open, tuple(self._cut), refused)
        except UserError:  # of the results, not of MLflow
            raise
        except Exception as error:
            self.close()
            where = tracking_uri(self.results)
            raise TrackingError(f"MLflow at {where} could not be fed: {_reason(error)}", passes_by(error)) from error

    def _runs(self, record: RunRecord) -> BenchmarkRuns:
        """What MLflow has, each once; it is looked at where that is not known."""
        if self._known is None:
            assert self._store is not None
            name = self.results.resolve().name
            self._known = BenchmarkRuns(
                self._store.client, self._ask, record.id, name, self._store.artifacts, self._cut
            )
            self._recorded.clear()
        return self._known

    def _undisturbed(self, record: RunRecord, work: Callable[..., Answer], *about: object) -> Answer:
        """``work(runs, *about)``; again where others that feed the same benchmark deleted a run that was worked on."""
        for beginning in range(BEGINNINGS):
            try:
                return work(self._runs(record), *about)
            except Gone:
                if beginning == BEGINNINGS - 1:
                    raise
                self._known = None
        raise AssertionError("the last beginning returns or raises")

    def _feed(self, record: RunRecord, goes_on: bool) -> tuple[int, int]:
        """How many trials that ended were new, and how many are open."""
        first = self._known is None
        self._undisturbed(record, _describe, record)
        ended: dict[str, tuple[EndedState, int]] = {}
        n_open = n_at_work = 0
        for key in record.trials:
            written = _written_at(self.results / "trials" / key / "state.json")
            if written and self._recorded.get(key) == written:
                continue
            state = state_of(self.results, key)
            if isinstance(state, EndedState):
                ended[key] = state, written
                continue
            n_open += 1
            n_at_work += state.state == "running"
            self._undisturbed(record, self._go_on, key, state)
        n_new = 0
        if ended:
            summary = self._table.collect()
            for label, rows in summary[summary["key"].isin(ended)].groupby("key", sort=False):
                key = str(label)
                state, written = ended[key]
                n_new += self._undisturbed(record, self._end, key, state, rows)
                self._recorded[key] = written
                self._latest = max(self._latest, state.ended)
        for key in self._runs(record).children.keys() - record.trials.keys():
            gone = TrialState(state="interrupted", reason="another trial answers its question now")
            self._undisturbed(record, _lay_down, key, gone)
        if n_new or first:
            self._undisturbed(record, self._means, record)
        status = "FINISHED" if not n_open else "RUNNING" if goes_on or n_at_work else "KILLED"
        when = int(self._latest * 1000) if status == "FINISHED" and self._latest else None
        self._undisturbed(record, _set_parent_status, status, when)
        return n_new, n_open

    def _end(self, runs: BenchmarkRuns, key: str, state: EndedState, rows: pd.DataFrame) -> bool:
        """Record a trial that ended; whether there was anything to record."""
        known = runs.children.get(key)
        if known is not None and known.tags.get(ENDED_TAG) == str(state.ended):
            return False
        spec = spec_at(self.results, key)
        run = _run_of(runs, key, spec, state.started)
        scores = [point for point in content.scores_of(rows, state) if run.metrics.get(point.name) != point.value]
        curve = content.curve(content.history_of_ended(self.results, key), run.epochs, run.started)
        runs.log(run, [*scores, *curve], tags=content.tags_of(spec, state))
        runs.set_status(run, "FAILED" if state.state == "failed" else "FINISHED", int(state.ended * 1000))
        runs.log(run, tags={ENDED_TAG: state.ended})  # last: a run without it is gone on with
        run.forget()
        return True

    def _go_on(self, runs: BenchmarkRuns, key: str, state: TrialState) -> None:
        """Record how far a trial has come that has not ended."""
        if state.state != "running":
            if key in runs.children:
                _lay_down(runs, key, state)
            return
        spec = spec_at(self.results, key)
        run = _run_of(runs, key, spec, state.started or time.time())
        runs.set_status(run, "RUNNING")
        history = content.history_at_work(self.results, key, state)
        complete = {epoch: values for epoch, values in history.items() if epoch < max(history)}
        mark = {EPOCHS_TAG: max(run.epochs, *complete)} if complete else {}
        runs.log(run, content.curve(complete, run.epochs, run.started), tags=content.tags_of(spec, state) | mark)

    def _means(self, runs: BenchmarkRuns, record: RunRecord) -> None:
        """On the parent: means over all slices."""
        values, tags = content.means_of(self._table.collect(), runs.latest_metrics(runs.parent))
        planned = datetime.strptime(record.updated, "%Y-%m-%dT%H:%M:%S%z").timestamp()
        when = int(max(self._latest, planned) * 1000)  # not now: two that feed the same are to say the same
        runs.log(runs.parent, [Point(name, value, when) for name, value in values.items()], tags=tags)
        # clocks of several machines differ: what MLflow takes for older than what was there is said as of now
        left, _ = content.means_of(self._table.collect(), runs.latest_metrics(runs.parent)) if values else ({}, {})
        now = int(time.time() * 1000)
        runs.log(runs.parent, [Point(name, value, now) for name, value in left.items()])

    def _keep(self, client: MlflowClient, parent: KnownRun, report: Path) -> str:
        """Keep the report as an artifact; returns why that could not be done. The trials are recorded anyway."""
        place = self._ask(lambda: client.get_run(parent.id)).info.artifact_uri or ""
        where = urlsplit(place)
        elsewhere = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).scheme in ("http", "https")
        if elsewhere and where.scheme in ("", "file") and not _has_its_root(Path(unquote(where.path))):
            return f"the server keeps no artifacts for others: they are to be written to {place}, which is not here"
        try:
            self._ask(lambda: client.log_artifacts(parent.id, str(report), artifact_path="report"))
        except Exception as error:  # noqa: BLE001 - each kind of artifact store has errors of its own
            return f"its artifacts, at {place}, could not be written: {_reason(error)}"
        return ""


def _describe(runs: BenchmarkRuns, record: RunRecord) -> None:
    """Say of the parent what was planned."""
    tags = {"stbench.command": record.commands[-1]} | {f"version.{name}": v for name, v in record.versions.items()}
    runs.log(runs.parent, params=content.benchmark_params(record, runs.parent.params), tags=tags)


def _set_parent_status(runs: BenchmarkRuns, status: str, ended: int | None) -> None:
    runs.set_status(runs.parent, status, ended)


def _lay_down(runs: BenchmarkRuns, key: str, state: TrialState) -> None:
    """Say of a trial that nobody works on it; what it has stays, to be gone on with."""
    run = runs.children.get(key)
    if run is not None and ENDED_TAG not in run.tags and run.status != "KILLED":
        runs.set_status(run, "KILLED")
        runs.log(run, tags={"stbench.state": state.state, "stbench.reason": state.reason})


def _run_of(runs: BenchmarkRuns, key: str, spec: TrialSpec, started: float) -> KnownRun:
    """The run of an attempt, with its parameters; one that tells of an earlier attempt is deleted."""
    params = content.params_of(spec)
    run = runs.children.get(key)
    if run is not None and (ENDED_TAG in run.tags or run.contradicts(params)):
        runs.remove(key)
    if key not in runs.children:
        runs.child(key, int(started * 1000), spec.label)
    runs.log(runs.children[key], params=params)
    return runs.children[key]


def _written_at(path: Path) -> int:
    """When a file was written last; 0 where it is not there."""
    return path.stat().st_mtime_ns if path.is_file() else 0


def _reason(error: Exception) -> str:
    named = "" if type(error).__module__.startswith(__package__) else f"{type(error).__name__}: "
    return cut(" ".join(f"{named}{error}".split()), 300)


def _has_its_root(path: Path) -> bool:
    """Whether the first folders of an absolute path are there: it is of this machine, or of a disk that it shares."""
    return not path.is_absolute() or Path(*path.parts[:3]).is_dir()
