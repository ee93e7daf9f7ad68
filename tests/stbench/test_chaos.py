"""Nothing finished is lost and nothing is counted twice, whatever dies, and whatever the disk does meanwhile."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil
import pytest

from stbench.results.status import status_of
from stbench.trials.attempts import read_state

pytestmark = pytest.mark.slow

RUN = [sys.executable, "-m", "stbench.cli", "run", "--methods", "training_mean,position_knn,nearest_replicate"]
RUN += ["--dataset", "demo", "--preset", "quick", "--device", "cpu", "--no-mlflow"]
N_TRIALS, SEEDS = 72, "0,1,2,3"
ALLOWED = {"run.json", "summary.csv", "specs", "trials", "evidence", "attempts", "workers"}


def start(results: Path, *words: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*RUN, "--seeds", SEEDS, "--out", str(results), *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def numbers(results: Path) -> pd.DataFrame:
    table = pd.read_csv(results / "summary.csv").drop(columns=["fit_s", "predict_s", "peak_mem_mb"])
    return table.sort_values(["key", "slice"], ignore_index=True)


def workers_of(results: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if "worker" in process.cmdline() and str(results) in process.cmdline():
                found.append(process)
    return found


def workers_at_work(results: Path) -> list[int]:
    """The process numbers of those that are within a trial just now."""
    processes = [read_state(attempt).process for attempt in results.glob("attempts/*/*")]
    return [process.pid for process in processes if process is not None and process.is_alive()]


def assert_complete(results: Path, calm: Path) -> None:
    """Every trial is done once, as in a calm sequential run; no process, lock or temporary file is left."""
    pd.testing.assert_frame_equal(numbers(results), numbers(calm), check_exact=True)
    assert status_of(results).counts == {"finished": N_TRIALS}
    assert len(list((results / "trials").iterdir())) == N_TRIALS
    assert workers_of(results) == []
    assert {path.name for path in results.iterdir()} - {".run.lock"} <= ALLOWED
    kept = {path.name for path in (results / "attempts").glob("*/*/*")}
    assert kept <= {"state.json", "log.txt"}
    assert [path for path in results.rglob(".*") if path.name != ".run.lock"] == []


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    results = tmp_path_factory.mktemp("calm") / "r"
    process = start(results)
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == 0, printed
    return results


def test_workers_and_runs_that_are_killed_lose_nothing(tmp_path: Path, calm: Path) -> None:
    results, rng = tmp_path / "r", random.Random(0)
    n_killed, over = 0, threading.Event()

    def kill_workers() -> None:
        """By what was done since the last, not by the clock: a slow machine is not to be kept from all progress."""
        nonlocal n_killed
        due = 2
        while not over.wait(0.05):
            n_finished = len(list(results.glob("trials/*/metrics.csv")))
            at_work = workers_at_work(results) if n_finished >= due else []
            if at_work:
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(rng.choice(at_work)).kill()
                    n_killed += 1
                    due = n_finished + rng.randint(1, 6)

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        for n_finished in (15, 40):
            process = start(results, "--slots", "2", "--retry-failed")
            while process.poll() is None and len(list(results.glob("trials/*/metrics.csv"))) < n_finished:
                time.sleep(0.2)
            assert process.poll() is None, process.communicate()[0]
            process.kill()
            process.communicate()
        for _ in range(10):  # one that was killed twice in a row has failed, and is retried
            process = start(results, "--slots", "2", "--retry-failed")
            printed, _ = process.communicate(timeout=900)
            assert process.returncode in (0, 1), printed
            if process.returncode == 0:
                break
    finally:
        over.set()
        killer.join()
    assert n_killed >= 5
    psutil.wait_procs(workers_of(results), timeout=30)
    process = start(results, "--slots", "2", "--retry-failed")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert f"{N_TRIALS} trials, 0 to run" in printed
    assert_complete(results, calm)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with little room and few inodes."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=4000", "tmpfs", str(place)]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may mount nothing")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.parametrize("what", ["room", "inodes"])
def test_a_disk_that_fills_up_stops_the_run_in_one_line_and_it_goes_on(small_disk: Path, calm: Path, what: str) -> None:
    results, ballast = small_disk / "r", small_disk / "ballast"
    process = start(results, "--slots", "2")
    while process.poll() is None and len(list(results.glob("trials/*/metrics.csv"))) < 10:
        time.sleep(0.1)
    ballast.mkdir()
    with contextlib.suppress(OSError):
        if what == "room":
            with open(ballast / "large", "wb") as handle:
                while True:
                    handle.write(bytes(4096))
                    handle.flush()
        else:
            for number in range(5000):
                (ballast / str(number)).touch()
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 2, printed
    last = [line for line in printed.splitlines() if line.startswith("stbench:")]
    assert len(last) == 1
    assert ("the disk is full" if what == "room" else "its inodes are used up") in last[0]
    assert "Traceback" not in printed
    for path in ballast.iterdir():
        path.unlink()
    ballast.rmdir()
    process = start(results, "--slots", "2")
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed
    assert_complete(results, calm)


def test_ctrl_c_and_a_stopped_worker_cost_only_time(tmp_path: Path, calm: Path) -> None:
    results = tmp_path / "r"
    process = start(results, "--slots", "2")
    while process.poll() is None and len(list(results.glob("trials/*/metrics.csv"))) < 5:
        time.sleep(0.1)
    paused = workers_of(results)[0]
    paused.suspend()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130, printed
    assert "Traceback" not in printed
    process = start(results, "--slots", "2")
    printed, _ = process.communicate(timeout=600)
    assert process.returncode == 0, printed
    assert_complete(results, calm)
