"""A run that is killed or interrupted goes on where it was, and ends with the numbers of one that never stopped."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest

from stbench.cli import main
from stbench.training import checkpoint

COMMAND = (
    "run",
    "--methods",
    "training_mean,stnet",
    "--preset",
    "quick",
    "--dataset",
    "demo",
    "--slices",
    "P1a,P1b,P2a",
)
SETTINGS = ("--weights", "random", "--device", "cpu", "--no-mlflow", "--set", "stnet.epochs=3")
SMALL = ("--set", "stnet.encoder=test_resnet", "--set", "stnet.input_px=32")
# a checkpoint after every step, so that these short trainings have some; their number changes no result
CHECKPOINTS = {"EPOCH_CHECKPOINT_S": 0, "STEP_CHECKPOINT_S": 0, "CHECKPOINT_SHARE": "inf"}
PROGRAM = f"""
from stbench.training import checkpoint
for name, value in {CHECKPOINTS}.items():
    setattr(checkpoint, name, float(value))
from stbench.cli import main
main()
"""
NUMBERS = ["pcc_acg", "pcc_heg", "mse", "mae", "strict_pcc_acg", "strict_pcc_heg"]


def _start(results: Path) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", PROGRAM, *COMMAND, *SETTINGS, *SMALL, "--out", str(results)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(results: Path) -> str:
    """The same command, to its end, in this process: numbers hang on no process."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        for name, value in CHECKPOINTS.items():
            patch.setattr(checkpoint, name, float(value))
        patch.setenv("COLUMNS", "300")
        with pytest.raises(SystemExit) as left:
            main([*COMMAND, *SETTINGS, *SMALL, "--out", str(results)])
    assert not left.value.code, printed.getvalue()
    return printed.getvalue()


def _wait_for_a_checkpoint(results: Path, process: subprocess.Popen[str], n_finished: int) -> None:
    """Until ``n_finished`` trials are done and another has saved something."""
    for _ in range(3000):
        done = len(list((results / "trials").glob("*/metrics.csv")))
        if done >= n_finished and list((results / "attempts").glob("*/*/checkpoint/*")):
            return
        assert process.poll() is None, f"the run ended too early:\n{process.communicate()[0]}"
        time.sleep(0.02)
    raise AssertionError("no checkpoint appeared")


def _assert_same_numbers(one: Path, other: Path) -> None:
    tables = [pd.read_csv(place / "summary.csv", index_col=["key", "slice"]).sort_index() for place in (one, other)]
    pd.testing.assert_frame_equal(tables[0][NUMBERS], tables[1][NUMBERS], check_exact=True)
    for key, name in tables[0].index:
        pair = [anndata.read_h5ad(place / "trials" / key / "predictions" / f"{name}.h5ad").X for place in (one, other)]
        np.testing.assert_array_equal(*pair)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = tmp_path_factory.getbasetemp() / "stbench-cache"
    os.environ["STBENCH_CACHE"] = str(cache)
    results = tmp_path_factory.mktemp("uninterrupted")
    _finish(results)
    return results


def test_after_kill_9_the_same_command_ends_with_the_same_numbers(tmp_path: Path, uninterrupted: Path) -> None:
    process = _start(tmp_path)
    _wait_for_a_checkpoint(tmp_path, process, n_finished=3)
    process.kill()
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "trials").glob("*/metrics.csv")}
    assert 0 < len(finished) < 6
    printed = _finish(tmp_path)
    assert f"reused: {len(finished)} finished" in printed
    assert "1 resume where they were interrupted" in printed
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    _assert_same_numbers(tmp_path, uninterrupted)


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)], ids=["SIGINT", "SIGTERM"]
)
def test_a_signal_saves_says_how_to_go_on_and_does_go_on(
    tmp_path: Path, uninterrupted: Path, number: signal.Signals
) -> None:
    process = _start(tmp_path)
    _wait_for_a_checkpoint(tmp_path, process, n_finished=2)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=150)
    assert process.returncode == 130
    assert "run the same command again to resume" in printed
    assert "Traceback" not in printed
    assert "interrupted" in set(pd.read_csv(tmp_path / "summary.csv")["state"])
    _finish(tmp_path)
    _assert_same_numbers(tmp_path, uninterrupted)
