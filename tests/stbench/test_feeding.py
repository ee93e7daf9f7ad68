"""MLflow is fed while trials run; lost answers, others that feed the same, and outages double and lose nothing."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import own_sections
import psutil
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from stbench import registry
from stbench.cli import feeding as owner
from stbench.cli.recording import Announcements
from stbench.data.prepare import prepare
from stbench.data.splits import loso
from stbench.errors import Interrupted
from stbench.method import configure
from stbench.results.plan import Execution, Experiment, MethodChoice, plan
from stbench.results.tracking import feed as feed_module
from stbench.results.tracking import follow as follow_module
from stbench.results.tracking.feed import Fed, Feed, TrackingError, track
from stbench.results.tracking.follow import Report, follow
from stbench.results.tracking.limits import LONGEST_PARAM, Point, batches
from stbench.trials.run import run_trial
from stbench.trials.spec import DataSpec

CURVE = f"{Path(__file__).parent / 'curve_method.py'}:Curve"


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # put back, whatever threads left there


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results directory of twelve trials that ended, which nothing recorded yet."""
    from stbench.cli import main

    folder = tmp_path_factory.mktemp("ended")
    manifest = own_sections.write_manifest(folder / "data", {"S1": "p1", "S2": "p2"})
    words = ["run", "--methods", "training_mean", "--preset", "quick", "--no-mlflow", "--seeds", "0,1,2,3,4,5"]
    with pytest.raises(SystemExit) as left:
        main([*words, "--dataset", str(manifest), "--out", str(folder / "results")])
    assert not left.value.code
    return folder / "results"


@pytest.fixture
def results(ended: Path, tmp_path: Path) -> Path:
    """The same directory, with a store of its own beside it."""
    (tmp_path / "r").symlink_to(ended)
    return tmp_path / "r"


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty SQLite file as MLflow makes it, which takes seconds."""
    from stbench.results.tracking.store import opened

    folder = tmp_path_factory.mktemp("tables")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with opened(folder / "r"):
            return folder / "mlflow.db"


@pytest.fixture
def store(results: Path, tables: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MlflowClient:
    """Names the store by its URI, so that it does not lie beside the linked directory."""
    shutil.copy(tables, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    return MlflowClient(tracking_uri=uri)


def runs_of(client: MlflowClient) -> tuple[list[Run], list[Run]]:
    """Parents and children."""
    experiment = client.get_experiment_by_name("stbench")
    assert experiment is not None
    found = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in found if "stbench.key" in run.data.tags]
    return [run for run in found if run not in children], children


def require_each_once(client: MlflowClient, n_trials: int) -> None:
    (parent,), children = runs_of(client)
    assert Counter(Counter(run.data.tags["stbench.key"] for run in children).values()) == {1: n_trials}
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert child.info.status == "FINISHED"
        assert "stbench.ended" in child.data.tags
        assert "mse" in child.data.metrics
    for name in parent.data.metrics:
        assert len(client.get_metric_history(parent.info.run_id, name)) == 1, name
    assert parent.info.status == "FINISHED"
    assert [parent.data.params[name] for name in ("dataset", "split", "method", "seed", "seed.6")] == [
        *("mine", "loso", "training_mean", "0", "5")
    ]
    assert parent.data.params["command"].startswith("stbench ")


def test_lost_answers_and_outages_double_nothing(
    results: Path, store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third request is done, and its answer lost, as behind a proxy that gives up."""
    n_asked: Counter[str] = Counter()
    every = 3

    def losing(name: str) -> Callable[..., object]:
        really = getattr(MlflowClient, name)

        def call(*words: object, **named: object) -> object:
            answer = really(*words, **named)
            n_asked[name] += 1
            if n_asked[name] % every == 0 or name == "create_experiment":
                raise MlflowException("API request failed: too many 502 error responses", INTERNAL_ERROR)
            return answer

        return call

    for name in ("create_experiment", "create_run", "log_batch", "set_terminated", "update_run"):
        monkeypatch.setattr(MlflowClient, name, losing(name))

    @contextlib.contextmanager
    def opened(place: Path) -> Iterator[object]:
        with really_opened(place) as found:
            yield dataclasses.replace(found, again=2, backoff_s=0.0)

    really_opened = feed_module.opened
    monkeypatch.setattr(feed_module, "opened", opened)
    assert track(results).trials == 12
    require_each_once(store, 12)
    assert n_asked["create_run"] == 13  # what was created, though nobody heard of it, was found
    assert track(results).trials == 0

    # where nobody asks again at once, the next feed goes on
    monkeypatch.setattr(feed_module, "opened", really_opened)
    every = 9
    for run in chain(*runs_of(store)):
        store.delete_run(run.info.run_id)
    for _ in range(40):
        with contextlib.suppress(TrackingError):
            track(results)
            break
    require_each_once(store, 12)


def test_two_that_feed_at_once_end_with_one_run_a_trial(
    results: Path, store: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both find nothing, and create, at the same moment; each time."""
    together = threading.Barrier(2)
    really = MlflowClient.create_run
    n_created = []

    def create_run(*words: object, **named: object) -> object:
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(0.3)
        together.reset()
        n_created.append(1)
        return really(*words, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "create_run", create_run)
    wrong: list[BaseException] = []

    def feed() -> None:
        try:
            track(results)
        except BaseException as error:  # noqa: BLE001 - shown below
            wrong.append(error)

    threads = [threading.Thread(target=feed) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(n_created) > 13, "they never met"
    track(results)
    require_each_once(store, 12)


def test_a_deleted_experiment_is_one_clear_line(results: Path, store: MlflowClient) -> None:
    store.delete_experiment(store.create_experiment("stbench"))
    with pytest.raises(
        TrackingError, match=r"'stbench' is deleted; 'mlflow experiments restore --experiment-id 1'"
    ) as e:
        track(results)
    assert not e.value.passes


@pytest.fixture
def at_work(tmp_path: Path, tables: Path) -> tuple[Path, str, Path]:
    """A planned trial, its key, and the file that says how many epochs may pass."""
    manifest = own_sections.write_manifest(tmp_path / "data", {"S1": "p1", "S2": "p2"})
    dataset, cache = registry.dataset(str(manifest)), os.environ["STBENCH_CACHE"]
    data = prepare(dataset, "spot-log10-cp10k", Path(cache))
    keys = {name: slide.key for name, slide in data.slides.items()}
    spec = DataSpec(str(manifest), data.name, None, cache, data.target.name, keys)
    method, clock = registry.method(CURVE), tmp_path / "epochs.txt"
    clock.write_text("0")
    config = configure(method, "quick", "mine", {"clock": str(clock)})
    experiment = Experiment(
        data, spec, [MethodChoice(CURVE, method, "quick", {}, config)], "loso", loso(data.patients)[:1], [0]
    )
    results = tmp_path / "results" / "r"
    results.parent.mkdir()
    shutil.copy(tables, results.parent)
    (key,) = plan(experiment, Execution(results, "stbench run", "cpu"))
    return results, key, clock


class Worker(threading.Thread):
    def __init__(self, results: Path, key: str) -> None:
        super().__init__(daemon=True)
        self.results, self.key, self.stop, self.reason = results, key, False, ""
        self.start()

    def run(self) -> None:
        try:
            run_trial(self.results, self.key, should_stop=lambda: self.stop)
        except Interrupted as pause:
            self.reason = str(pause)


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_a_curve_grows_while_its_trial_runs_and_goes_on_after_an_interruption(
    at_work: tuple[Path, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    results, key, clock = at_work
    sent: list[int] = []
    really = MlflowClient.log_batch

    def log_batch(client: MlflowClient, run_id: str, metrics: object = (), **named: object) -> object:
        sent.extend(point.step for point in metrics if point.key == "train/loss")  # type: ignore[attr-defined]
        return really(client, run_id, metrics=metrics, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    client = MlflowClient(tracking_uri=f"sqlite:///{results.parent / 'mlflow.db'}")

    def child() -> Run:
        ((found,),) = runs_of(client)[1:]
        return found

    def history(name: str) -> list[tuple[int, float]]:
        return [(point.step, point.value) for point in client.get_metric_history(child().info.run_id, name)]

    with contextlib.closing(Feed(results, 60)) as feed:
        assert feed.bring_up_to_date(goes_on=True) == Fed(0, 1)
        worker = Worker(results, key)
        clock.write_text("3")
        # the newest epoch may not be complete yet
        until(lambda: feed.bring_up_to_date(goes_on=True) and sent == [1, 2])
        assert (child().info.status, child().data.tags["stbench.state"]) == ("RUNNING", "running")
        assert child().data.params["method"] == "curve"
        first = child().info.run_id
        worker.stop = True
        worker.join()
        assert worker.reason == "saved what there is"
        feed.bring_up_to_date()
    assert (child().info.status, child().data.tags["stbench.reason"]) == ("KILLED", "saved what there is")
    assert runs_of(client)[0][0].info.status == "KILLED"
    with contextlib.closing(Feed(results, 60)) as feed:  # of another command
        worker = Worker(results, key)
        clock.write_text("4")
        until(lambda: feed.bring_up_to_date(goes_on=True) and sent == [1, 2, 3])
        assert (child().info.run_id, child().info.status) == (first, "RUNNING")
        clock.write_text("5")
        worker.join()
        assert feed.bring_up_to_date() == Fed(1, 0)
    assert (child().info.run_id, child().info.status) == (first, "FINISHED")
    assert sent == [1, 2, 3, 4, 5]  # each once
    assert history("train/loss") == [(epoch, 1 / epoch) for epoch in range(1, 6)]
    assert runs_of(client)[0][0].info.status == "FINISHED"


def test_away_and_back_are_said_once_each(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes: list[object] = [
        Fed(0, 2, ("config.words",)),
        *[TrackingError("MLflow at http://there could not be fed: refused", passes=True)] * 3,
        Fed(1, 1, ("config.words",)),
        Fed(1, 0),
    ]
    goes_on, rests = [], []

    class Scripted:
        def bring_up_to_date(self, goes_on: bool) -> object:
            asked.append(goes_on)
            outcome = outcomes.pop(0)
            if isinstance(outcome, Exception):
                raise outcome
            return outcome

    asked = goes_on
    announcements = Announcements("'stbench track r'")

    def rest(seconds: float) -> bool:
        rests.append(seconds)
        return len(rests) == 5

    last: list[bool] = []

    def hear(report: Report) -> None:
        words = dataclasses.asdict(report)
        last.append(words.pop("is_last"))
        announcements.hear(**words)

    follow(Scripted(), hear, rest, is_owned=True)  # type: ignore[arg-type]
    assert last == [False] * 5 + [True]
    assert goes_on == [True] * 5 + [False]
    assert max(rests) + follow_module.INTERVAL_S <= 60  # a trial is recorded within a minute
    said = capsys.readouterr().err.replace("\n", " ")
    assert said.count("warning: MLflow at http://there could not be fed: refused; the trials go on") == 1
    assert said.count("MLflow is back") == 1
    assert said.count("too long for MLflow, and cut there: config.words") == 1


def test_batches_are_what_mlflow_takes() -> None:
    from mlflow.utils.validation import _validate_batch_log_api_req

    params = {f"p{i:03}": "Ж" * LONGEST_PARAM for i in range(150)}  # six bytes a letter, as JSON writes it
    points = [Point("é" * 250, float(step), 0, step) for step in range(2500)]
    parts = list(batches(points, params, {f"t{i}": "x" for i in range(250)}))
    assert {name: value for part in parts for name, value in part.params.items()} == params
    assert [point for part in parts for point in part.metrics] == points
    assert [len(part.tags) for part in parts if part.tags] == [100, 100, 50]
    assert max(len(part.metrics) for part in parts) <= 1000
    for part in parts:
        from mlflow.entities import Metric, Param
        from mlflow.protos.service_pb2 import LogBatch
        from mlflow.utils.proto_json_utils import message_to_json

        request = LogBatch(
            run_id="0" * 32,
            metrics=[Metric(point.name, point.value, point.when, point.step).to_proto() for point in part.metrics],
            params=[Param(name, value).to_proto() for name, value in part.params.items()],
        )
        _validate_batch_log_api_req(message_to_json(request))


OWNER = """
import sys, time
from pathlib import Path
from stbench.cli import feeding
feeding.START_S = 0.0
with feeding.feeding(Path(sys.argv[1]), True):
    time.sleep(600)
"""


def test_the_process_that_feeds_starts_late_and_leaves_with_its_owner(results: Path, store: MlflowClient) -> None:
    began = time.monotonic()
    with owner.feeding(results, True):
        time.sleep(0.1)
    assert time.monotonic() - began < 2
    assert not psutil.Process().children()

    running = subprocess.Popen([sys.executable, "-c", OWNER, str(results)])
    try:
        until(lambda: store.get_experiment_by_name("stbench"), 120)
        until(lambda: len(runs_of(store)[1]) == 12, 120)
        (feeder,) = psutil.Process(running.pid).children()
        assert feeder.nice() > psutil.Process().nice() or psutil.Process().nice() >= 19
    finally:
        running.send_signal(signal.SIGKILL)
        running.wait()
    gone, alive = psutil.wait_procs([feeder], timeout=follow_module.LEAVE_S + 5)
    assert (len(gone), alive) == (1, [])
    require_each_once(store, 12)


ANSWERS_AT_THE_END = """
import json, os, sys
def say(**words):
    os.write(int(sys.argv[1]), json.dumps({"error": "", "passes": True, "cut": [], **words}).encode() + b"\\n")
say(is_last=False)
sys.stdin.read()
say(is_last=True, error=sys.argv[2])
"""


@pytest.mark.parametrize("error", ["", "MLflow at http://there could not be fed: refused"])
def test_all_is_recorded_where_the_feed_after_the_last_trial_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    started, real = threading.Event(), subprocess.Popen

    def popen(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.set()
        return real([sys.executable, "-c", ANSWERS_AT_THE_END, command[-1], error], **options)

    monkeypatch.setattr(owner, "START_S", 0.0)
    monkeypatch.setattr(owner.subprocess, "Popen", popen)
    with owner.feeding(tmp_path, True) as all_is_fed:
        assert started.wait(10)
        assert not all_is_fed()
    assert all_is_fed() == (not error)
