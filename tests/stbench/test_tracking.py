"""MLflow holds what the results directory holds; feeding it twice changes nothing, a broken server harms nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import own_sections
import pandas as pd
import pytest

PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"


@pytest.fixture(scope="module")
def benchmark_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six trials, of which one failed, recorded beside them; nothing that the tests do changes what is recorded."""
    from stbench.cli import main

    results = tmp_path_factory.mktemp("benchmark") / "demo"
    words = [
        "--dataset",
        "demo",
        "--slices",
        "P1a,P1b,P2a",
        "--set",
        f"{PROBE}.on=P1b",
        "--set",
        f"{PROBE}.trouble=raise",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setenv("STBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "stbench-cache"))
        with pytest.raises(SystemExit) as left:
            main(["run", "--methods", f"{PROBE},training_mean", *words, "--out", str(results)])
    assert left.value.code == 1
    assert (results.parent / "mlflow.db").is_file()
    return results


@pytest.fixture(autouse=True)
def own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def _runs(results: Path) -> tuple[list, list]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{results.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("stbench")
    found = client.search_runs([experiment.experiment_id])
    children = [run for run in found if "stbench.key" in run.data.tags]
    return [run for run in found if run not in children], children


def test_one_parent_and_one_child_a_trial_with_everything_that_matters(benchmark_run: Path) -> None:
    from mlflow import MlflowClient

    parents, children = _runs(benchmark_run)
    assert len(parents) == 1
    # numbers are recorded exactly as they stand there, which pandas' default parser does not always give
    summary = pd.read_csv(benchmark_run / "summary.csv", float_precision="round_trip").set_index("key")
    assert sorted(child.data.tags["stbench.key"] for child in children) == sorted(summary.index)
    spec_keys = json.loads(next((benchmark_run / "specs").iterdir()).read_text())["data"]["keys"]
    client = MlflowClient(tracking_uri=f"sqlite:///{benchmark_run.parent / 'mlflow.db'}")
    for child in children:
        row = summary.loc[child.data.tags["stbench.key"]]
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert child.data.params["method"] == row["method"]
        assert child.data.tags["stbench.state"] == row["state"]
        assert child.info.status == ("FAILED" if row["state"] == "failed" else "FINISHED")
        assert child.data.tags["data.P1a"] == spec_keys["P1a"]
        if row["state"] == "finished":
            assert child.data.metrics[f"mse/{row['slice']}"] == row["mse"]
            assert child.data.tags["version.torch"]
        if row["method"] == "probe" and row["state"] == "finished":
            curve = client.get_metric_history(child.info.run_id, "train/loss")
            assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5)]


def test_means_stand_on_the_parent_only_where_no_slice_is_missing(benchmark_run: Path) -> None:
    (parent,), _ = _runs(benchmark_run)
    metrics = parent.data.metrics
    names = {name.rsplit("/", 1)[0].split("/")[3]: name for name in metrics if name.endswith("slices_finished")}
    assert metrics[names["probe"]] == 2
    assert not [name for name in metrics if "/probe/" in name and name.endswith("/mse")]
    assert [name for name in metrics if "/training_mean/" in name and name.endswith("/mse")]


def test_feeding_again_adds_nothing(benchmark_run: Path, stbench_command: Callable) -> None:
    _, before = _runs(benchmark_run)
    done = stbench_command("track", benchmark_run)
    assert "0 trials recorded" in done.out
    _, after = _runs(benchmark_run)
    assert {run.info.run_id for run in after} == {run.info.run_id for run in before}


def test_a_recording_that_was_cut_short_is_made_again(benchmark_run: Path, stbench_command: Callable) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{benchmark_run.parent / 'mlflow.db'}")
    _, children = _runs(benchmark_run)
    client.delete_tag(children[0].info.run_id, "stbench.ended")
    assert "1 trials recorded in sqlite:" in stbench_command("track", benchmark_run).out
    _, again = _runs(benchmark_run)
    assert sorted(run.data.tags["stbench.key"] for run in again) == sorted(
        run.data.tags["stbench.key"] for run in children
    )


def test_a_broken_server_never_fails_a_run_and_track_catches_up(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    results = tmp_path / "results" / "demo"
    words = ("--methods", "training_mean", "--dataset", "demo", "--slices", "P1a,P1b", "--out", results)
    done = stbench_command("run", *words)
    assert done.code == 0
    assert "could not be fed" in done.err
    assert "stbench track" in done.err
    broken = stbench_command("track", results)
    assert broken.code == 2
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert "2 trials recorded" in stbench_command("track", results).out
    assert len(_runs(results)[1]) == 2


def _histories(results: Path) -> dict[str, list[float]]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{results.parent / 'mlflow.db'}")
    (parent,), _ = _runs(results)
    return {
        name: [metric.value for metric in client.get_metric_history(parent.info.run_id, name)]
        for name in parent.data.metrics
    }


def test_two_datasets_in_one_directory_have_metrics_of_their_own_each_with_one_value(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = tmp_path / "results" / "both"
    for name, slices in (("one", {"A+B": "p1", "NA": "p2"}), ("other", {"S3": "p1", "S4": "p2", "S5": "p2"})):
        manifest = own_sections.write_manifest(tmp_path / name, slices, name)
        words = ("--methods", "colour_ridge", "--preset", "quick", "--dataset", manifest, "--out", results)
        done = stbench_command("run", *words)
        assert "recorded in MLflow" in done.err, done.err
    before = _histories(results)
    summary = pd.read_csv(results / "summary.csv").groupby("dataset")
    for name, mean in summary["mse"].mean().items():
        assert before[f"{name}/loso/spot-log10-cp10k/colour_ridge/quick/mse"] == [pytest.approx(mean)]
    assert {name: values for name, values in before.items() if len(values) != 1} == {}
    assert "0 trials recorded" in stbench_command("track", results).out
    assert _histories(results) == before
    (parent,), children = _runs(results)
    # no parameter can be changed: what a later command adds has a number
    assert (parent.data.params["dataset"], parent.data.params["dataset.2"]) == ("one", "other")
    assert (parent.data.params["method"], parent.data.params["seed"]) == ("colour_ridge", "0")
    assert not {"method.2", "seed.2", "split.2"} & parent.data.params.keys()
    assert parent.data.tags["stbench.command"] == parent.data.params.get("command.2", parent.data.params["command"])
    (child,) = [child for child in children if "mse/A_x2B_B" in child.data.metrics]
    assert child.data.tags["stbench.name.A_x2B_B"] == "A+B"
    assert child.data.params["fold"] == "A+B"


@pytest.mark.parametrize("folder", ["a?b", "a%20b", "a#b", "a b"])
def test_any_path_holds_the_store(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the store and the artifacts appears, and both are beside the results."""
    import sqlite3

    from mlflow import MlflowClient

    from stbench.results.tracking.store import opened

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / folder).mkdir()
    with opened(tmp_path / folder / "r") as store:
        client = store.client
        assert isinstance(client, MlflowClient)
        experiment = client.create_experiment("stbench", artifact_location=store.artifacts)
        run = client.create_run(experiment)
        client.log_metric(run.info.run_id, "mse", 0.5)
        (tmp_path / "report.html").write_text("page")
        client.log_artifact(run.info.run_id, str(tmp_path / "report.html"))
    with sqlite3.connect(tmp_path / folder / "mlflow.db") as database:
        assert database.execute("select key, value from metrics").fetchall() == [("mse", 0.5)]
    (kept,) = (tmp_path / folder / "mlartifacts").rglob("report.html")
    assert kept.read_text() == "page"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([folder, "report.html"])


@pytest.fixture
def small_run(tmp_path: Path, stbench_command: Callable) -> Path:
    manifest = own_sections.write_manifest(tmp_path / "data", {"S1": "p1", "S2": "p2"})
    results = tmp_path / "results" / "r"
    words = ("--methods", "training_mean", "--preset", "quick", "--no-mlflow", "--dataset", manifest, "--out", results)
    assert stbench_command("run", *words).code == 0
    return results


def test_a_store_that_cannot_be_is_refused_at_once_and_promises_nothing(
    small_run: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (small_run.parent / "mlflow.db").mkdir()
    began = time.monotonic()
    done = stbench_command("track", small_run)
    assert time.monotonic() - began < 30
    assert done.code == 2
    assert "unable to open database file" in done.err
    assert "set MLFLOW_TRACKING_URI to a place that can" in done.err
    assert "when it is back" not in done.err


def test_what_passes_and_what_stays() -> None:
    import sqlite3

    import requests
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED, TEMPORARILY_UNAVAILABLE

    from stbench.results.tracking.store import passes_by

    for error in (
        MlflowException("API request failed with exception HTTPConnectionPool: refused"),
        MlflowException("503", TEMPORARILY_UNAVAILABLE),
        sqlite3.OperationalError("database is locked"),
        requests.ConnectionError("refused"),
        requests.Timeout("20 s"),
        TimeoutError("600 s"),
    ):
        assert passes_by(error), error
    for lasting in (
        MlflowException("Invalid value", INVALID_PARAMETER_VALUE),
        MlflowException("403", PERMISSION_DENIED),
        MlflowException("Detected out-of-date database schema (found version a, but expected b)"),
        sqlite3.OperationalError("attempt to write a readonly database"),
        sqlite3.DatabaseError("file is not a database"),
        requests.exceptions.InvalidURL("no host"),
        PermissionError(13, "Permission denied"),
        TypeError("a fault of ours"),
    ):
        assert not passes_by(lasting), lasting


def test_a_server_without_artifacts_is_said_as_that_and_has_the_trials(
    small_run: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (small_run / "report").mkdir()

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("Endpoint disabled due to the mlflow server running without `--serve-artifacts`")

    monkeypatch.setattr(MlflowClient, "log_artifacts", refuse)
    done = stbench_command("track", small_run)
    assert done.code == 0
    assert "2 trials recorded" in done.out
    assert "MLflow did not take the report: its artifacts, at file:" in done.err
    assert "without `--serve-artifacts`" in done.err
