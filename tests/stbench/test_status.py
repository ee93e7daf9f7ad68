"""How far a run is, as a person and as a program sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from stbench.results.status import Status, status_of
from stbench.system.processes import Process
from stbench.trials.state import TrialState

DEMO = ("--dataset", "demo", "--preset", "quick", "--slices", "P1a,P2a", "--no-mlflow")
PROBE = f"{Path(__file__).parent / 'probe_method.py'}:Probe"


@pytest.fixture
def results(tmp_path: Path, stbench_command: Callable) -> Path:
    """Two trials of a control, and two of a method of which one failed."""
    words = (
        "run",
        "--methods",
        f"training_mean,{PROBE}",
        "--set",
        f"{PROBE}.trouble=raise",
        "--set",
        f"{PROBE}.on=P1a",
    )
    assert stbench_command(*words, *DEMO, "--out", tmp_path / "r").code == 1
    return tmp_path / "r"


def content(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(folder.rglob("*"))}


def test_states_and_reasons_are_told_and_nothing_is_written(results: Path, stbench_command: Callable) -> None:
    before = content(results)
    done = stbench_command("status", results)
    assert done.code == 0
    assert "4 trials: 3 finished, 1 failed" in done.out
    assert "probe" in done.out
    assert "RuntimeError: the probe was asked to raise" in done.out
    assert "--retry-failed" in done.out
    told = json.loads(stbench_command("status", results, "--json").out)
    assert (told["trials"], told["counts"]) == (4, {"finished": 3, "failed": 1})
    assert [failure["reason"] for failure in told["failed"]] == ["RuntimeError: the probe was asked to raise"]
    assert content(results) == before


def test_a_trial_at_work_is_told_with_its_epochs_and_its_process(results: Path, stbench_command: Callable) -> None:
    (key, *_) = status_of(results).failed
    work = results / "attempts" / key.key / "0123abcd"
    work.parent.mkdir(parents=True)
    (results / "trials" / key.key).rename(work)
    state = TrialState(state="running", started=1.0, attempts=2, token="0123abcd", process=Process.here())
    state.write(work)
    (work / "history.jsonl").write_text('{"epoch": 1, "loss": 1.0}\n{"epoch": 2, "loss": 0.5}\n')
    (trial,) = status_of(results).at_work
    assert (trial.epochs, trial.attempt, trial.process) == (2, 2, str(Process.here()))
    assert "1 running" in stbench_command("status", results).out
    state.model_copy(update={"process": Process.here().model_copy(update={"started": "0"})}).write(work)
    assert status_of(results).counts == {"interrupted": 1, "finished": 3}


def test_watching_a_run_that_ended_ends(results: Path, stbench_command: Callable) -> None:
    assert stbench_command("status", results, "--watch").out.splitlines() == ["4 trials: 3 finished, 1 failed"]


def test_what_is_no_results_directory_is_one_line(tmp_path: Path, stbench_command: Callable) -> None:
    done = stbench_command("status", tmp_path)
    assert (done.code, "is not a results directory" in done.err) == (2, True)


def test_the_rate_is_of_the_latest_trials() -> None:
    def of(ended: list[float]) -> Status:
        return Status(Path(os.curdir), "", None, {}, [], [], ended)

    assert of([]).per_hour(100.0) is None
    assert of([50.0]).per_hour(100.0) is None
    assert of([0.0, 60.0, 120.0]).per_hour(120.0) == pytest.approx(60.0)
    old = [float(second) for second in range(100)]
    latest = [*old, 100_000.0, 100_060.0]  # the twenty of which two are recent: 82 is the first
    assert of(latest).per_hour(100_060.0) == pytest.approx(19 / (100_060 - 82) * 3600)
