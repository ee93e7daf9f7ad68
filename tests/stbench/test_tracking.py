"""MLflow holds what the results directory holds; feeding it twice changes nothing, a broken server harms nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"


@pytest.fixture
def benchmark_run(tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    results = tmp_path / "results" / "demo"
    words = (
        "--dataset",
        "demo",
        "--slices",
        "P1a,P1b,P2a",
        "--set",
        f"{PROBE}.on=P1b",
        "--set",
        f"{PROBE}.trouble=raise",
    )
    done = stbench_command("run", "--methods", f"{PROBE},training_mean", *words, "--out", results)
    assert done.code == 1, done.err
    assert "recorded in MLflow: sqlite:" in done.err
    return results


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
    names = {name.rsplit("/", 1)[0].split("/")[2]: name for name in metrics if name.endswith("slices_finished")}
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
    assert "1 trials recorded" in stbench_command("track", benchmark_run).out
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
