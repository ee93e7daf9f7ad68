"""What every engine has to do, and what happens when workers die, hang or take too much."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import psutil
import pytest
from conformance import TROUBLED, Heard, conforms, numbers, plan_trials, trouble

from stbench.errors import Interrupted, PlaceError, UserError
from stbench.system import cores
from stbench.system.processes import Process
from stbench.trials import attempts
from stbench.trials.engines import slots
from stbench.trials.engines.limits import Limits, bytes_of, seconds_of
from stbench.trials.engines.process import Slot
from stbench.trials.engines.serial import SerialEngine
from stbench.trials.engines.slots import SlotsEngine
from stbench.trials.outcome import state_of
from stbench.trials.state import TrialState

MIB = 2**20


@pytest.fixture
def planned(tmp_path: Path) -> Callable[..., tuple[Path, list[str]]]:
    """A results directory with trials of the troubled method: two folds, and as many seeds as are asked for."""

    def make(seeds: int, name: str = "results") -> tuple[Path, list[str]]:
        return tmp_path / name, plan_trials(tmp_path / name, seeds, TROUBLED)

    return make


def engine(n_slots: int = 2, **limits: float) -> SlotsEngine:
    return SlotsEngine([Slot(1)] * n_slots, Limits(**limits))  # type: ignore[arg-type]


def nothing_is_left(results: Path) -> bool:
    """No process of the run, no attempt at work, no pipe's log."""
    mine = [child for child in psutil.Process().children(recursive=True) if "worker" in " ".join(child.cmdline())]
    return not mine


def test_every_trial_ends_as_it_should_and_the_others_as_if_nothing_had_happened(tmp_path: Path) -> None:
    heard = conforms(engine(seconds=15.0, resident_bytes=2500 * MIB), tmp_path, 15.0)
    assert len(heard.lost) == 2
    assert {line.partition(" ")[2] for line in heard.lost} == {
        "its process was killed by signal 9 (SIGKILL)",
        "the device failed: CUDA error: an illegal memory access was encountered",
    }
    # every worker has its share of the threads
    begun = (tmp_path / "results" / "begun.txt").read_text()
    assert {line.split()[1] for line in begun.splitlines()} == {"1"}
    assert nothing_is_left(tmp_path / "results")


@pytest.mark.slow
def test_a_wish_to_stop_lets_trials_save_what_they_have(planned: Callable) -> None:
    results, keys = planned(2)
    trouble(results, **dict.fromkeys(keys, "wait"))
    heard = Heard()
    with pytest.raises(Interrupted, match="asked to save what they have"):
        engine().run(results, keys, heard, lambda: len(heard.begun) == 2)
    states = [state_of(results, key) for key in keys]
    assert Counter(state.state for state in states) == {"interrupted": 2, "pending": 2}
    assert {state.reason for state in states if state.state == "interrupted"} == {"saved what there is"}
    assert nothing_is_left(results)
    (results / "troubles.json").unlink()
    engine().run(results, keys, heard, lambda: False)
    assert [state.state for state in heard.states.values()] == ["finished"] * 4


@pytest.mark.slow
def test_a_signal_to_one_worker_alone_is_no_failure(planned: Callable) -> None:
    """Somebody, or a scheduler, asks a worker to stop: its trial is saved, and goes on in another."""
    results, keys = planned(1)
    trouble(results, **{keys[0]: "leave once"})
    heard = Heard()
    engine(1).run(results, keys, heard, lambda: False)
    assert [state.state for state in heard.states.values()] == ["finished", "finished"]
    assert heard.lost == [f"{keys[0]} its process was asked to stop from outside"]


@pytest.mark.slow
def test_a_trial_that_heeds_its_time_limit_has_failed_all_the_same(planned: Callable) -> None:
    results, keys = planned(1)
    trouble(results, **{keys[0]: "wait"})
    heard = Heard()
    engine(1, seconds=8.0).run(results, keys, heard, lambda: False)
    assert (heard.states[keys[0]].state, heard.states[keys[0]].cause) == ("failed", "timeout")
    assert heard.states[keys[1]].state == "finished"


PROGRAM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from conformance import Heard
from stbench.trials.engines import slots
from stbench.trials.engines.limits import Limits
slots.SlotsEngine([slots.Slot(1)] * 2, Limits()).run(Path(sys.argv[1]), sys.argv[2].split(","), Heard(), lambda: False)
"""


def test_workers_do_not_outlive_an_engine_that_is_killed(planned: Callable) -> None:
    results, keys = planned(1)
    trouble(results, **{keys[0]: "wait", keys[1]: "hold"})
    here = str(Path(__file__).parent)
    running = subprocess.Popen([sys.executable, "-c", PROGRAM, str(results), ",".join(keys), here])
    begun = results / "begun.txt"
    until = time.monotonic() + 120
    while not (begun.is_file() and len(begun.read_text().splitlines()) == 2):
        assert time.monotonic() < until
        time.sleep(0.1)
    workers = psutil.Process(running.pid).children()
    assert len(workers) == 2
    family = psutil.Process(running.pid).children(recursive=True)
    assert len(family) >= 5  # a shell that watches over each, and what one trial started
    running.kill()
    running.wait()
    _, alive = psutil.wait_procs(family, timeout=40)  # 20 s is promised, where a core is free
    assert alive == []
    assert {state_of(results, key).state for key in keys} == {"interrupted"}


def test_a_worker_that_cannot_start_stops_the_run_in_one_line(planned: Callable, monkeypatch) -> None:
    results, keys = planned(1)
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(slots, "WorkerProcess", _without_python)
    with pytest.raises(UserError, match=r"a worker cannot start on this machine \(exit code 3: no luck\)") as caught:
        engine().run(results, keys, Heard(), lambda: False)
    assert "\n" not in str(caught.value)
    assert {state_of(results, key).state for key in keys} == {"pending"}


def _without_python(results: Path, slot: Slot) -> object:
    from stbench.trials.engines import process

    with pytest.MonkeyPatch.context() as patch:
        script = results / "no-python"
        script.write_text("#!/bin/sh\necho no luck\nexit 3\n")
        script.chmod(0o755)
        patch.setattr(sys, "executable", str(script))
        return process.WorkerProcess(results, slot)


# The command line ---------------------------------------------------------------------------------------------------

DEMO = ("--dataset", "demo", "--preset", "quick", "--slices", "P1a,P2a", "--no-mlflow")


def test_a_run_with_two_slots_gives_the_numbers_of_one(tmp_path: Path, stbench_command: Callable) -> None:
    for n_slots in ("1", "2"):
        words = ("run", "--methods", "training_mean,position_knn", *DEMO, "--slots", n_slots)
        assert stbench_command(*words, "--out", tmp_path / n_slots).code == 0
    one, two = numbers(tmp_path / "1"), numbers(tmp_path / "2")
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    assert not (tmp_path / "2" / "workers").exists()  # nothing was printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--slots", "none"), "--slots none is no number of trials at a time - give 1 or more, or auto"),
        (("--slots", "0"), "--slots 0 is no number of trials at a time"),
        (("--trial-time", "soon"), "'soon' is no time - write seconds, or for example 15m, 2h, 1d12h"),
        (("--trial-memory", "much"), "'much' is no amount of memory - write for example 800M or 16G"),
    ],
)
def test_what_is_no_limit_is_one_line(
    tmp_path: Path, stbench_command: Callable, words: tuple[str, ...], message: str
) -> None:
    done = stbench_command("run", "--methods", "training_mean", *DEMO, *words, "--out", tmp_path / "r")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "r").exists()


def test_a_worker_runs_a_list(planned: Callable, tmp_path: Path, stbench_command: Callable) -> None:
    results, keys = planned(1)
    trouble(results, **{keys[1]: "raise"})
    (tmp_path / "list.txt").write_text("\n".join(keys))
    done = stbench_command("worker", results, "--trials", tmp_path / "list.txt")
    assert done.code == 1
    assert f"{keys[0]}: finished" in done.out
    assert f"{keys[1]}: failed - RuntimeError: the method was asked to raise" in done.out
    (tmp_path / "list.txt").write_text("0123456789abcdef")
    done = stbench_command("worker", results, "--trials", tmp_path / "list.txt")
    assert (done.code, "lists 0123456789abcdef, which is not planned" in done.err) == (2, True)
    done = stbench_command("worker", results)
    assert (done.code, "there is nothing to run" in done.err) == (2, True)


@pytest.mark.slow
def test_ctrl_c_twice_ends_a_run_at_once(planned: Callable) -> None:
    results, keys = planned(1)
    trouble(results, **dict.fromkeys(keys, "hang"))
    interrupted = threading.Event()
    pressed: list[float] = []

    def press() -> None:
        pressed.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    def interrupt() -> bool:
        if (results / "begun.txt").is_file() and not interrupted.is_set():
            interrupted.set()
            threading.Timer(1.0, press).start()
        return interrupted.is_set()

    with pytest.raises(KeyboardInterrupt):
        engine().run(results, keys, Heard(), interrupt)
    assert time.monotonic() - pressed[0] < 1.5, "it waited for workers to leave by themselves"
    assert nothing_is_left(results)
    assert "interrupted" in {state_of(results, key).state for key in keys}


# What may be taken --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d12h", 129600), ("1h1m1s", 3661)]
)
def test_times(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("800M", 800 * MIB), ("1.5g", 1536 * MIB), ("2GiB", 2**31)])
def test_sizes(text: str, size: int) -> None:
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "0", "-3", "h", "1x", "five"])
def test_what_is_no_time_or_size_is_refused(text: str) -> None:
    for read in (seconds_of, bytes_of):
        with pytest.raises(UserError, match=f"'{text}' is no"):
            read(text)


def test_cores_are_those_of_affinity_quota_and_allocation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert cores.usable_cores() == 8
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cores.usable_cores() == 8
    (tmp_path / "cpu.max").write_text("350000 100000\n")
    assert cores.usable_cores() == 3
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cores.usable_cores() == 1
    (tmp_path / "cpu.max").unlink()
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    assert cores.usable_cores() == 4


def test_memory_is_what_is_free_within_the_control_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    free = psutil.virtual_memory().available
    assert 0.8 * free < cores.usable_memory() <= 1.2 * free
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    assert cores.usable_memory() == 600000
    assert cores.memory_in_all() == 1000000
    (tmp_path / "memory.stat").write_text("anon 100000\ninactive_file 250000\nactive_file 50000\n")
    assert cores.usable_memory() == 850000  # files that were read are dropped when memory is asked for
    (tmp_path / "memory.max").write_text("max\n")
    assert cores.memory_in_all() == psutil.virtual_memory().total


# The place -----------------------------------------------------------------------------------------------------------


def run_in_order(engine: object, results: Path, keys: list[str]) -> str:
    """What stops the engine."""
    with pytest.raises(PlaceError) as caught:
        engine.run(results, keys, Heard(), lambda: False)  # type: ignore[attr-defined]
    return str(caught.value)


@pytest.mark.parametrize(
    "make", [SerialEngine, pytest.param(lambda: engine(1), marks=pytest.mark.slow)], ids=["serial", "slots"]
)
def test_code_that_was_edited_since_the_plan_fails_no_trial(
    planned: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[], object]
) -> None:
    plug_in = tmp_path / "mine.py"
    source = Path(TROUBLED.partition(":")[0]).read_text()
    plug_in.write_text(source)
    monkeypatch.setitem(globals(), "TROUBLED", f"{plug_in}:Troubled")
    results, keys = planned(1)
    plug_in.write_text(source + "\n# a comment changes nothing\n")
    make().run(results, keys[:1], heard := Heard(), lambda: False)  # type: ignore[attr-defined]
    assert heard.states[keys[0]].state == "finished"
    plug_in.write_text(source.replace("/ 255", "/ 256"))
    assert "changed since this trial was planned" in run_in_order(make(), results, keys)
    assert state_of(results, keys[1]).state == "interrupted"
    plug_in.write_text(source)
    make().run(results, keys, heard := Heard(), lambda: False)  # type: ignore[attr-defined]
    assert [state.state for state in heard.states.values()] == ["finished", "finished"]


def test_a_plug_in_that_was_named_by_a_relative_path_is_found_from_any_folder(
    planned: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "mine.py").write_text(Path(TROUBLED.partition(":")[0]).read_text())
    monkeypatch.chdir(home)
    monkeypatch.setitem(globals(), "TROUBLED", "mine.py:Troubled")
    results, keys = planned(1)
    monkeypatch.chdir("/")
    engine(1).run(results, keys, heard := Heard(), lambda: False)
    assert [state.state for state in heard.states.values()] == ["finished", "finished"]
    (home / "mine.py").rename(home / "theirs.py")
    again, keys = results.rename(tmp_path / "moved"), keys
    for key in keys:
        shutil.rmtree(again / "trials" / key)
    assert "there is no file" in run_in_order(SerialEngine(), again, keys)
    assert {state_of(again, key).state for key in keys} == {"interrupted", "pending"}


@pytest.mark.slow
def test_what_stops_the_run_lets_other_trials_save_what_they_have(planned: Callable, tmp_path: Path) -> None:
    results, keys = planned(1)
    trouble(results, **{keys[0]: "wait", keys[1]: "place"})
    with pytest.raises(PlaceError, match="there is no room on this node"):
        engine().run(results, keys, Heard(), lambda: False)
    states = [state_of(results, key) for key in keys]
    assert [state.state for state in states] == ["interrupted", "interrupted"]
    assert [state.reason for state in states] == ["saved what there is", "there is no room on this node"]
    assert nothing_is_left(results)


def test_memory_that_others_hold_costs_a_slot_and_no_trial(planned: Callable) -> None:
    """Where the last slot is gone the run stops, and goes on when there is room."""
    results, keys = planned(1)
    trouble(results, **{keys[0]: "crowded"})
    heard = Heard()
    with pytest.raises(PlaceError, match=r"the GPU is full in trial .* other processes hold 61.9 of the 79.2 GiB"):
        engine(1).run(results, keys, heard, lambda: False)
    assert [state_of(results, key).state for key in keys] == ["interrupted", "pending"]
    assert attempts.lost_in_a_row(results, keys[0]) == 0
    assert [line.split()[0] for line in heard.lost] == [keys[0]]
    (results / "troubles.json").unlink()
    SerialEngine().run(results, keys, heard, lambda: False)
    assert [state_of(results, key).state for key in keys] == ["finished", "finished"]


@pytest.mark.slow
def test_where_two_do_not_fit_on_a_card_one_goes_on(planned: Callable) -> None:
    results, keys = planned(2)
    trouble(results, **{keys[1]: "crowded once"})
    heard = Heard()
    engine(2).run(results, keys, heard, lambda: False)
    assert [state_of(results, key).state for key in keys] == ["finished"] * 4
    assert heard.notes == ["a slot is given up, as its GPU is full: 1 left"]


def test_a_trial_that_another_command_works_on_is_left_to_it(planned: Callable) -> None:
    results, keys = planned(1)
    folder, number = attempts.begin(results, keys[0])
    TrialState(state="running", started=1.0, attempts=number, process=Process.here()).write(folder)
    heard = Heard()
    engine(1).run(results, keys, heard, lambda: False)
    assert [heard.states[key].state for key in keys] == ["running", "finished"]
