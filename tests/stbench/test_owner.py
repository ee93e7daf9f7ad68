"""One owner a results directory: who may have it, who takes over, and what nobody can see from here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stbench.errors import Interrupted, UserError
from stbench.system import beats, processes
from stbench.system.beats import Beat, Observer
from stbench.system.processes import Process
from stbench.trials import owner
from stbench.trials.owner import owner_of, owning

ELSEWHERE = {"boot": "another machine's", "host": "localhost"}  # with a number that lives here, too
DEAD = {"started": "0"}  # a number that another process has by now


def left_by(results: Path, **of_process: str) -> Path:
    """What an owner leaves that was killed; its record."""
    folder = results / owner.FOLDER
    folder.mkdir(parents=True)
    process = Process.here().model_copy(update=of_process)
    record = {"token": "0123abcd", "process": process.model_dump(), "since": 0.0, "command": "stbench run"}
    (folder / "0123abcd.json").write_text(json.dumps(record))
    (folder / "0123abcd.beat").write_bytes(b"000000000007\n")
    return folder / "0123abcd.json"


class Clock:
    """Monotonic time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def wait_until(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_an_owner_leaves_nothing(tmp_path: Path) -> None:
    with owning(tmp_path / "r", "stbench run") as taken_away:
        assert not taken_away()
        found = owner_of(tmp_path / "r")
        assert found is not None
        assert (found.process, found.command) == (Process.here(), "stbench run")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "run.json").touch()
    with owning(tmp_path / "r", "stbench run"):
        pass
    assert [path.name for path in (tmp_path / "r").iterdir()] == ["run.json"]


def test_a_second_command_is_refused_in_one_line(tmp_path: Path) -> None:
    with owning(tmp_path / "r", "stbench run --methods all"):
        with pytest.raises(UserError) as refused, owning(tmp_path / "r", "stbench ablate"):
            pass
        assert f"process {os.getpid()}" in str(refused.value)
        assert "stbench run --methods all" in str(refused.value)
        assert "stbench status" in str(refused.value)
        assert "\n" not in str(refused.value)
        assert owner_of(tmp_path / "r").command == "stbench run --methods all"


def test_one_that_waits_gets_it_when_the_first_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "LOOK_S", 0.01)
    said: list[str] = []
    order: list[str] = []

    def second() -> None:
        with owning(tmp_path, "second", wait=True, say=said.append):
            order.append("second")

    thread = threading.Thread(target=second)
    with owning(tmp_path, "first"):
        thread.start()
        while not said:
            time.sleep(0.01)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert said[0].startswith("waiting for process")


def test_one_that_waits_can_be_stopped(tmp_path: Path) -> None:
    with owning(tmp_path, "first"), pytest.raises(Interrupted, match="while waiting for"):  # noqa: SIM117
        with owning(tmp_path, "second", wait=True, should_stop=lambda: True):
            pass


def test_a_dead_owner_is_taken_over_at_once(tmp_path: Path) -> None:
    left_by(tmp_path, **DEAD)
    said: list[str] = []
    with owning(tmp_path, "second", say=said.append):
        assert owner_of(tmp_path).command == "second"
    assert len(said) == 1
    assert "is taken over from process" in said[0]
    assert list(tmp_path.iterdir()) == []


def test_an_owner_elsewhere_is_judged_by_its_beat_and_ones_own_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever time its machine thinks it is, and though its number lives here."""
    monkeypatch.setattr(owner, "LOOK_S", 0.0)
    beat = left_by(tmp_path, **ELSEWHERE).with_suffix(".beat")
    clock, said = Clock(), []
    os.utime(beat, (0, 0))  # the clock of its machine is years behind

    def pass_time() -> bool:
        clock.now += 30
        if 0 < clock.now <= 60:
            beat.write_bytes(b"%012d\n" % clock.now)  # it lives
        return False

    with pytest.raises(UserError, match="another command works in"):  # noqa: SIM117
        with owning(tmp_path, "second", should_stop=pass_time, observer=Observer(clock=clock)):
            pass
    assert clock.now == 30

    clock.now = 100  # it beats no more
    with owning(tmp_path, "second", should_stop=pass_time, observer=Observer(clock=clock), say=said.append):
        assert owner_of(tmp_path).command == "second"
    assert clock.now == 100 + 90
    assert "whether it lives cannot be seen from here" in said[0]


def test_a_doubtful_owner_is_taken_over_on_request(tmp_path: Path) -> None:
    left_by(tmp_path, **ELSEWHERE)
    with owning(tmp_path, "second", take_over=True):
        assert owner_of(tmp_path).command == "second"


def test_who_was_taken_over_learns_it(tmp_path: Path) -> None:
    with owning(tmp_path, "first") as taken_away:
        with owning(tmp_path, "second", take_over=True):
            assert taken_away()
            assert owner_of(tmp_path).command == "second"
        assert taken_away()
    assert list(tmp_path.iterdir()) == []


def test_of_many_that_take_over_one_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of them is held up between looking and taking."""
    left_by(tmp_path, **DEAD)
    held_up, go_on = threading.Event(), threading.Event()
    real = owner._succeed

    def slow(record: Path, me: owner.Owner) -> bool:
        if me.command == "slow":
            held_up.set()
            assert go_on.wait(30)
        return real(record, me)

    monkeypatch.setattr(owner, "_succeed", slow)
    together = threading.Barrier(7)
    winners, losers = [], []

    def compete(command: str) -> None:
        if command != "slow":
            together.wait(30)
        try:
            with owning(tmp_path, command):
                winners.append(command)
                go_on.set()
                wait_until(lambda: len(losers) == 7)
        except UserError:
            losers.append(command)

    threads = [threading.Thread(target=compete, args=(name,)) for name in ("slow", *"abcdefg")]
    threads[0].start()
    assert held_up.wait(30)
    for thread in threads[1:]:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(winners), len(losers)) == (1, 7)
    assert winners != ["slow"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": 1}'])
def test_a_record_that_cannot_be_read_is_doubtful(tmp_path: Path, content: str) -> None:
    left_by(tmp_path).write_text(content)
    clock = Clock()

    def pass_time() -> bool:
        clock.now += 100
        return False

    with owning(tmp_path, "second", should_stop=pass_time, observer=Observer(clock=clock)):
        assert owner_of(tmp_path).command == "second"


def test_what_an_owner_left_that_died_while_it_left_is_no_hindrance(tmp_path: Path) -> None:
    left_by(tmp_path).unlink()
    with owning(tmp_path, "second"):
        assert owner_of(tmp_path).command == "second"


# Processes and their beats --------------------------------------------------------------------------------------------


def test_a_process_is_told_from_a_stranger_with_its_number() -> None:
    here = Process.here()
    assert here.is_alive() is True
    assert here.model_copy(update=DEAD).is_alive() is False
    assert here.model_copy(update={"boot": "another"}).is_alive() is None
    assert here.model_copy(update={"namespace": "pid:[1]"}).is_alive() is None
    assert here.model_copy(update={"host": "another name"}).is_alive() is True


def test_a_stopped_process_may_never_go_on_and_a_zombie_does_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.here().model_copy(update={"pid": child.pid, "started": processes._start(child.pid)})
    assert process.is_alive() is True
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED)
    assert process.is_alive() is None
    child.send_signal(signal.SIGCONT)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.is_alive() is False
    child.communicate()
    assert process.is_alive() is False


def test_a_beat_counts_and_is_not_made_again(tmp_path: Path) -> None:
    path = tmp_path / "beat"
    with Beat(path, interval_s=0.01) as beat:
        wait_until(lambda: int(path.read_bytes()) > 3)
        assert path.stat().st_size == beats.WIDTH + 1
        path.unlink()
        wait_until(beat.is_lost)
        assert not path.exists()
    with Beat(path, interval_s=60):
        assert path.exists()
    assert not path.exists()


def test_an_observer_needs_to_see_a_beat_move(tmp_path: Path) -> None:
    path, clock = tmp_path / "beat", Clock()
    observer = Observer(patience_s=90, clock=clock)
    path.write_bytes(b"1")
    assert observer.sees(None, path) == "unknown"
    clock.now = 89
    assert observer.sees(None, path) == "unknown"
    path.write_bytes(b"2")
    assert observer.sees(None, path) == "alive"
    clock.now = 178
    assert observer.sees(None, path) == "alive"
    clock.now = 179
    assert observer.sees(None, path) == "dead"
    path.write_bytes(b"3")  # it was merely slow
    assert observer.sees(None, path) == "alive"
    path.unlink()
    assert observer.sees(None, path) == "unknown"
    clock.now = 270
    assert observer.sees(None, path) == "dead"
