"""Attempts at a trial: each in its own folder, and one of them becomes the trial."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conformance import Heard

from stbench.cli import main
from stbench.errors import DeviceFailed, Interrupted
from stbench.system.beats import Observer
from stbench.system.processes import Process
from stbench.trials import attempts, run
from stbench.trials.engines.serial import SerialEngine
from stbench.trials.engines.waiting import Waiting
from stbench.trials.outcome import read_ended, state_of
from stbench.trials.run import end_from_outside, run_trial
from stbench.trials.state import TrialState

DEMO = ("--dataset", "demo", "--preset", "quick", "--slices", "P1a,P2a", "--no-mlflow")
GONE = Process.here().model_copy(update={"started": "0"})
ELSEWHERE = Process.here().model_copy(update={"boot": "another machine's"})


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    os.environ["STBENCH_CACHE"] = str(tmp_path_factory.getbasetemp() / "stbench-cache")
    results = tmp_path_factory.mktemp("finished") / "r"
    with pytest.raises(SystemExit) as left:
        main(["run", "--methods", "training_mean", *DEMO, "--out", str(results)])
    assert not left.value.code
    return results


@pytest.fixture
def results(tmp_path: Path, finished: Path) -> Path:
    """Two trials of a control that finished."""
    return Path(shutil.copytree(finished, tmp_path / "r"))


@pytest.fixture
def key(results: Path) -> str:
    """Of a trial that is to be run again."""
    key = sorted(path.name for path in (results / "trials").iterdir())[0]
    attempts.put_back(results, key)
    for attempt, _ in attempts.attempts_of(results, key):
        (attempt / "state.json").unlink()
        (attempt / "log.txt").unlink()
        attempt.rmdir()
    return key


def earlier(
    results: Path, key: str, process: Process, state: str = "running", epochs: int = 0, number: int = 1
) -> Path:
    """An attempt that left a checkpoint, and a history of so many epochs."""
    folder = results / "attempts" / key / f"attempt{number}"
    (folder / "checkpoint").mkdir(parents=True)
    (folder / "checkpoint" / "training.pt").write_text(f"of attempt {number}")
    (folder / "history.jsonl").write_text("".join(f'{{"epoch": {epoch}, "loss": 1.0}}\n' for epoch in range(epochs)))
    TrialState(state=state, started=1.0, attempts=number, token=folder.name, process=process).write(folder)  # type: ignore[arg-type]
    return folder


def test_a_trial_leaves_no_attempt_behind(results: Path) -> None:
    for trial in (results / "trials").iterdir():
        state = read_ended(trial)
        assert (state.attempts, state.process.is_alive(), len(state.token)) == (1, True, 8)
        assert state.cpu
        assert state.threads >= 1
        assert not (trial / "beat").exists()
        assert not (results / "attempts" / trial.name).exists()


def test_the_newest_checkpoint_is_gone_on_from_and_counted(results: Path, key: str) -> None:
    first = earlier(results, key, GONE, "interrupted", epochs=1, number=1)
    second = earlier(results, key, GONE, epochs=2, number=2)
    folder, number = attempts.begin(results, key)
    attempts.go_on_from_earlier(results, key, folder, Observer())
    assert number == 3
    assert (folder / "checkpoint" / "training.pt").read_text() == "of attempt 2"
    assert len((folder / "history.jsonl").read_text().splitlines()) == 2
    assert not (second / "checkpoint").exists()
    assert (first / "checkpoint").exists()


def test_the_checkpoint_of_one_that_may_come_back_is_left_to_it(results: Path, key: str) -> None:
    paused = earlier(results, key, ELSEWHERE)
    folder, _ = attempts.begin(results, key)
    attempts.go_on_from_earlier(results, key, folder, Observer())
    assert (folder / "checkpoint" / "training.pt").read_text() == "of attempt 1"
    (folder / "checkpoint" / "training.pt").write_text("new")
    assert (paused / "checkpoint" / "training.pt").read_text() == "of attempt 1"


def test_states_and_logs_of_earlier_attempts_stay(results: Path, key: str) -> None:
    lost = earlier(results, key, GONE)
    (lost / "log.txt").write_text("as far as it came")
    assert state_of(results, key).state == "interrupted"
    assert run_trial(results, key).attempts == 2
    assert sorted(path.name for path in lost.iterdir()) == ["log.txt", "state.json"]


def test_a_trial_that_is_worked_on_is_left_to_that_process(results: Path, key: str) -> None:
    earlier(results, key, Process.here())
    state = run_trial(results, key)
    assert (state.state, "is working on it" in state.reason) == ("running", True)
    assert read_ended(results / "trials" / key) is None


def test_of_two_attempts_one_becomes_the_trial_and_the_other_is_dropped(
    results: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is paused for long, thought dead, and comes back when the second has ended."""
    real, within = run.work_on, []

    def paused(attempt: object) -> dict:
        done = real(attempt)
        if not within:
            within.append(attempt.directory)  # type: ignore[attr-defined]
            state = attempts.read_state(within[0])
            state.model_copy(update={"process": GONE}).write(within[0])
            monkeypatch.setattr(attempts, "first_at_work", lambda *_: "")
            assert run_trial(results, key).state == "finished"
        return done

    monkeypatch.setattr(run, "work_on", paused)
    ended = run_trial(results, key)
    assert ended == read_ended(results / "trials" / key)
    assert ended.token != within[0].name
    assert ended.attempts == 2
    assert [path.name for path in (results / "attempts").glob("*/*/*") if path.name == "predictions"] == []
    left = attempts.read_state(within[0])
    assert (left.state, left.reason) == ("interrupted", f"attempt {ended.token} ended the trial first")
    last_line = (within[0] / "log.txt").read_text().strip().rpartition("\n")[2]
    assert last_line.endswith(f"INFO attempt {ended.token} ended the trial first; this one's work is dropped")
    assert state_of(results, key) == ended


def test_of_two_that_begin_at_once_one_withdraws(results: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "at_work", lambda *_: None)  # neither saw the other
    other = earlier(results, key, Process.here())
    other.rename(other.with_name("00000000"))
    assert run_trial(results, key).state == "running"
    assert [path.name for path in (results / "attempts" / key).iterdir()] == ["00000000"]
    other.with_name("00000000").rename(other.with_name("zzzzzzzz"))
    assert run_trial(results, key).state == "finished"


def test_a_rename_whose_answer_was_lost_has_happened(results: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = run.os.rename

    def lossy(source: Path, target: Path) -> None:
        real(source, target)
        if Path(target).parent.name == "trials":
            raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(run.os, "rename", lossy)
    assert run_trial(results, key).state == "finished"


def test_a_failure_that_is_retried_stays_to_be_read(results: Path, key: str) -> None:
    end_from_outside(results, key, "timeout", "it ran for too long")
    assert state_of(results, key).state == "failed"
    attempts.put_back(results, key)
    assert (state_of(results, key).state, state_of(results, key).attempts) == ("pending", 1)
    assert run_trial(results, key).attempts == 2
    ((_, before),) = attempts.attempts_of(results, key)
    assert (before.state, before.cause, before.reason) == ("failed", "timeout", "it ran for too long")


# What counts as lost --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "lost"),
    [
        ([("running", 0)], 1),
        ([("running", 0), ("running", 0)], 2),
        ([("interrupted", 3)], 0),
        ([("running", 0), ("interrupted", 0), ("running", 0)], 2),
        ([("running", 3), ("running", 5)], 1),  # the second got further
        ([("running", 5), ("running", 5), ("running", 5)], 3),
        ([("running", 0), ("running", 0), ("failed", 0)], 0),  # and was retried
        ([("failed", 9), ("running", 0)], 1),
    ],
)
def test_attempts_that_get_further_are_not_counted_against_a_trial(
    results: Path, key: str, history: list[tuple[str, int]], lost: int
) -> None:
    for number, (state, epochs) in enumerate(history, start=1):
        earlier(results, key, GONE, state, epochs, number)
    assert attempts.lost_in_a_row(results, key) == lost


def test_a_trial_that_killed_whoever_took_it_has_failed_under_any_engine(results: Path, key: str) -> None:
    for number in (1, 2):
        earlier(results, key, GONE, number=number)
    SerialEngine().run(results, [key], heard := Heard(), lambda: False)
    state = heard.states[key]
    assert (state.state, state.cause, state.attempts) == ("failed", "killed", 2)
    assert "2 times in a row, without getting further" in state.reason


def test_a_trial_of_which_nobody_knows_waits_until_that_is_clear(
    results: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = earlier(results, key, ELSEWHERE)
    (there / "beat").write_bytes(b"1")
    waiting = Waiting(results, [key], heard := Heard())
    now = [0.0]
    waiting._observer = Observer(clock=lambda: now[0])
    monkeypatch.setattr("stbench.trials.engines.waiting.DOUBT_S", 0.0)
    assert waiting.next() is None
    now[0] = 60.0
    assert waiting.next() is None
    now[0] = 95.0
    assert waiting.next() == key  # it gave no sign of life
    waiting.again(key)
    (there / "beat").write_bytes(b"2")
    assert waiting.next() is None
    assert heard.states[key].state == "running"  # it lives, and is left to it
    assert not waiting.open


def test_who_reuses_a_model_waits_for_it_and_comes_next(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taught = {"pupil": "teacher"}
    monkeypatch.setattr(
        "stbench.trials.engines.waiting.TrialSpec.read",
        classmethod(lambda cls, path: type("Spec", (), {"trained_by": taught.get(path.stem, "")})),
    )
    waiting = Waiting(results, ["pupil", "teacher", "other"], Heard())
    assert (waiting.next(), waiting.n_blocked) == ("teacher", 1)
    waiting.settle("teacher")
    assert [waiting.next(), waiting.next(), waiting.next()] == ["pupil", "other", None]
    assert waiting.n_blocked == 0


def test_stopping_leaves_the_trial_interrupted(results: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(attempt: object) -> dict:
        raise Interrupted("saved what there is")

    monkeypatch.setattr(run, "work_on", stopped)
    with pytest.raises(Interrupted):
        run_trial(results, key)
    state = state_of(results, key)
    assert (state.state, state.reason) == ("interrupted", "saved what there is")
    assert attempts.lost_in_a_row(results, key) == 0


def test_a_broken_device_is_not_the_methods_failure_at_once(
    results: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing computed after it counts, so the process leaves; a trial that breaks devices twice has failed."""

    def break_it(attempt: object) -> dict:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(run, "work_on", break_it)
    with pytest.raises(DeviceFailed, match="the device failed in trial training_mean") as failed:
        run_trial(results, key)
    assert "\n" not in str(failed.value)
    ((folder, state),) = attempts.attempts_of(results, key)
    state.model_copy(update={"process": GONE}).write(folder)  # the process has left
    assert attempts.lost_in_a_row(results, key) == 1
    assert state.reason == "the device failed: CUDA error: device-side assert triggered"
