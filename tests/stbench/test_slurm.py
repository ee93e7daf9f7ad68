"""The engine on a real Slurm of one node: arrays, signals, limits, and what is left of workers that are gone."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conformance import Heard, trouble
from one_node_slurm import lacking, one_node
from test_engines import planned

from stbench.errors import Interrupted, LeftToOthers, UserError
from stbench.trials.engines.slurm.arrays import Layout
from stbench.trials.engines.slurm.engine import SlurmEngine
from stbench.trials.engines.slurm.options import SbatchOptions
from stbench.trials.engines.slurm.script import WorkerCommand
from stbench.trials.engines.slurm.sight import Pace
from stbench.trials.outcome import state_of

__all__ = ["planned"]  # a fixture
FAST = Pace(look_s=0.3, poll_s=1.0, cache_s=3.0, answers=2, call_s=10.0, submit_s=20.0, retry_s=3.0, stop_s=40.0)

pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")


@pytest.fixture(scope="module")
def conf() -> Iterator[Path]:
    with one_node() as started:
        yield started


@pytest.fixture
def cluster(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(conf))


class Told(Heard):
    """Writes down notes, too."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def engine(
    *words: str, at_a_time: int | None = None, detach: bool = False, pace: Pace = FAST, **command: Any
) -> SlurmEngine:
    options = SbatchOptions.parse(["cpus-per-task=1", *words])
    return SlurmEngine(Layout(options, WorkerCommand(**command), at_a_time), detach, pace)


def never() -> bool:
    return False


def ask(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=60).stdout


def jobs(*states: str) -> list[str]:
    """``ARRAY_TASK`` of all jobs in these states."""
    return ask("squeue", "-h", "-r", f"--states={','.join(states) or 'all'}", "-o", "%i").split()


def begun(results: Path) -> Counter[str]:
    """How often each trial was begun."""
    path = results / "begun.txt"
    return Counter(line.split()[0] for line in path.read_text().splitlines()) if path.is_file() else Counter()


class Once:
    """Does something once, as soon as trials have been begun ``number`` times in all; is no wish to stop."""

    def __init__(self, results: Path, number: int, action: Callable[[], object]) -> None:
        self.results, self.number, self.action, self.is_done = results, number, action, False

    def __call__(self) -> bool:
        if not self.is_done and sum(begun(self.results).values()) >= self.number:
            self.is_done = True
            self.action()
        return False


def all_left() -> bool:
    """Whether no job is there any more, a moment after the last trial ended."""
    until = time.monotonic() + 30
    while time.monotonic() < until and jobs("PENDING", "RUNNING", "COMPLETING"):
        time.sleep(0.2)
    return not jobs("PENDING", "RUNNING", "COMPLETING")


def logs(results: Path) -> str:
    return "\n".join(path.read_text() for path in sorted((results / "batch").glob("*/logs/*.log")))


def test_trials_run_in_arrays_and_one_that_kills_its_worker_costs_no_other(planned: Callable, cluster: None) -> None:
    results, keys = planned(2)
    trouble(results, **{keys[0]: "raise", keys[1]: "die"})
    heard = Told()
    engine().run(results, keys, heard, never)
    states = {key: heard.states[key] for key in keys}
    assert [states[key].state for key in keys] == ["failed", "failed", "finished", "finished"]
    assert states[keys[0]].reason == "RuntimeError: the method was asked to raise"
    assert (states[keys[1]].cause, begun(results)[keys[1]]) == ("killed", 2)
    assert "its worker was ended from outside" in states[keys[1]].reason
    assert [line.split()[0] for line in heard.lost] == [keys[1]]
    assert begun(results)[keys[2]] == begun(results)[keys[3]] == 1
    assert {line.split()[1] for line in (results / "begun.txt").read_text().splitlines()} == {"1"}  # threads
    assert all_left()
    assert "\r" not in logs(results)
    again = Told()
    engine().run(results, [], again, never)
    assert not again.states


def test_the_warning_before_the_end_of_a_job_saves_what_there_is(planned: Callable, cluster: None) -> None:
    """And another worker goes on with it."""
    results, keys = planned(1)
    trouble(results, **dict.fromkeys(keys, "wait"))

    def warn() -> None:
        (results / "troubles.json").unlink()
        ask("scancel", "--batch", "--signal=USR2", *jobs("RUNNING"))

    heard = Told()
    engine().run(results, keys, heard, Once(results, 1, warn))
    assert [heard.states[key].state for key in keys] == ["finished", "finished"]
    assert sorted(begun(results).values()) == [1, 2]
    assert [line.partition(" ")[2] for line in heard.lost] == ["its worker left (saved what there is)"]
    assert len(list((results / "batch").iterdir())) == 2


@pytest.mark.slow
def test_a_job_that_is_cancelled_saves_what_there_is(planned: Callable, cluster: None) -> None:
    results, keys = planned(1)
    trouble(results, **dict.fromkeys(keys, "wait"))

    def cancel() -> None:
        (results / "troubles.json").unlink()
        ask("scancel", *jobs("RUNNING"))

    heard = Told()
    engine().run(results, keys, heard, Once(results, 1, cancel))
    assert [heard.states[key].state for key in keys] == ["finished", "finished"]
    assert [line.partition(" ")[2] for line in heard.lost] == ["its worker left (saved what there is)"]


@pytest.mark.slow
def test_a_trial_that_gets_nowhere_within_its_time_is_left_after_two_jobs(planned: Callable, cluster: None) -> None:
    results, keys = planned(1)
    trouble(results, **{keys[0]: "wait"})
    heard = Told()
    with pytest.raises(UserError, match="1 trials stay to be run: they made no progress in 2 jobs in a row"):
        engine("time=1").run(results, keys, heard, never)
    assert heard.states[keys[0]].state == "interrupted"
    assert "no progress in 2 jobs" in heard.states[keys[0]].reason
    assert heard.states[keys[1]].state == "finished"
    assert begun(results)[keys[0]] == 2
    assert state_of(results, keys[0]).reason == "saved what there is"


@pytest.mark.slow
def test_ctrl_c_saves_what_is_at_work_and_takes_back_what_waits(planned: Callable, cluster: None) -> None:
    results, keys = planned(2)
    trouble(results, **dict.fromkeys(keys, "wait"))
    heard = Told()
    with pytest.raises(Interrupted):
        engine(at_a_time=1).run(results, keys, heard, lambda: bool(begun(results)))
    assert all_left()
    assert Counter(state_of(results, key).state for key in keys) == {"interrupted": 1, "pending": 3}


@pytest.mark.slow
def test_detached_workers_are_found_again(planned: Callable, cluster: None) -> None:
    """A worker whose time is up asks to be run again by itself, and its log goes on."""
    results, keys = planned(1)
    trouble(results, **dict.fromkeys(keys, "wait"))
    with pytest.raises(LeftToOthers, match="1 workers for 2 trials are with Slurm"):
        engine(detach=True).run(results, keys, Told(), never)
    with pytest.raises(LeftToOthers, match="1 workers for 2 trials are with Slurm"):
        engine(detach=True).run(results, keys, Told(), never)
    assert len(jobs()) >= 1
    until = time.monotonic() + 120
    while not begun(results):
        assert time.monotonic() < until
        time.sleep(0.5)
    (results / "troubles.json").unlink()
    ask("scancel", "--batch", "--signal=USR2", *jobs("RUNNING"))
    heard = Told()
    engine().run(results, keys, heard, never)
    assert [heard.states[key].state for key in keys] == ["finished", "finished"]
    assert len(list((results / "batch").iterdir())) == 1, "one array did it all"


@pytest.mark.slow
def test_what_was_written_for_hands_is_sent_by_hand_and_found(planned: Callable, cluster: None) -> None:
    from stbench.trials.engines.script import ScriptEngine

    results, keys = planned(1)
    layout = Layout(SbatchOptions.parse(["cpus-per-task=1", "mem="]), WorkerCommand(setup=("export HELLO=1",)), None)
    with pytest.raises(LeftToOthers, match="nothing was run") as left:
        ScriptEngine(layout).run(results, keys, Told(), never)
    (line,) = [line for line in str(left.value).splitlines() if "sbatch" in line]
    ask(*line.split()[1:])
    heard = Told()
    engine().run(results, keys, heard, never)
    assert [heard.states[key].state for key in keys] == ["finished", "finished"]
    assert set(begun(results).values()) == {1}
    assert len(list((results / "batch").glob("*/worker.sbatch"))) == 1


@pytest.mark.slow
def test_within_an_allocation_of_one_core_jobs_may_ask_for_two(
    planned: Callable, cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1")
    monkeypatch.setenv("SBATCH_EXPORT", "NONE")
    monkeypatch.chdir("/")
    results, keys = planned(1)
    heard = Told()
    engine("cpus-per-task=2", "export=NONE").run(results, keys, heard, never)
    assert [heard.states[key].state for key in keys] == ["finished", "finished"]
    assert {line.split()[1] for line in (results / "begun.txt").read_text().splitlines()} == {"2"}


@pytest.mark.slow
def test_sbatch_that_refuses_is_one_line(planned: Callable, cluster: None) -> None:
    results, keys = planned(1)
    with pytest.raises(UserError, match=r"sbatch refuses the jobs .*partition.* - change them with --slurm") as caught:
        engine("partition=nix").run(results, keys, Told(), never)
    assert "\n" not in str(caught.value)
    assert list((results / "batch").iterdir()) == []


@pytest.mark.slow
def test_reasons_of_what_waits_are_told(planned: Callable, cluster: None) -> None:
    results, keys = planned(1)
    heard = Told()
    with pytest.raises(Interrupted):
        engine("partition=short", "time=4:00:00").run(results, keys, heard, lambda: bool(heard.notes))
    assert re.search("Partition(TimeLimit|Config) - this does not pass by itself", heard.notes[0])
    assert jobs("PENDING") == []
    assert os.listdir(results / "specs")
