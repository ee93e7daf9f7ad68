"""One process at a time, also where the file system has no locks."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import own_sections
import pytest

from stbench.errors import PlaceError
from stbench.system import locks
from stbench.system.locks import Timeout, is_locked, locked

CODES = [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS]


REFUSED = {"all": fcntl.LOCK_EX | fcntl.LOCK_SH, "exclusive": fcntl.LOCK_EX}
REFUSALS = [(code, kinds) for code in CODES for kinds in REFUSED]


def _named(refusal: tuple[int, str]) -> str:
    return f"{errno.errorcode[refusal[0]]}-{refusal[1]}"


@pytest.fixture(params=REFUSALS, ids=_named)
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    code, kinds = request.param
    flock = fcntl.flock

    def refuse(handle: int, operation: int) -> None:
        if operation & REFUSED[kinds]:
            raise OSError(code, os.strerror(code))
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    locks._say_once.cache_clear()


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    assert not is_locked(path)
    with locked(path):
        assert is_locked(path)
        with pytest.raises(Timeout), locked(path, timeout=0):
            pass
    assert not is_locked(path)
    with locked(path, timeout=0):
        pass


def test_asking_writes_nothing(tmp_path: Path) -> None:
    assert not is_locked(tmp_path / ".a.lock")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_marker_stands_for_one_and_that_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / ".a.lock"
    with caplog.at_level(logging.WARNING, "stbench"):
        with locked(path):
            assert is_locked(path)
            with pytest.raises(Timeout), locked(path, timeout=0):
                pass
        assert not is_locked(path)
        with locked(path, timeout=0):
            pass
    assert [record.message for record in caplog.records if "has no file locks" in record.message] == [
        caplog.records[0].message
    ]
    assert str(tmp_path) in caplog.records[0].message


@pytest.mark.usefixtures("no_locks")
def test_a_marker_of_a_dead_process_of_this_host_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / ".a.lock"
    with locked(path):
        (marker,) = [found for found in tmp_path.iterdir() if found.stat().st_size]
        record = marker.read_text()
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    marker.write_text(record.replace(str(os.getpid()), gone.stdout.decode().strip(), 1))
    marker.chmod(0o600)
    assert not is_locked(path)
    with locked(path, timeout=0):
        pass


def test_a_marker_that_stays_ends_the_wait_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(locks, "MARKER_WAIT_S", 0.05)
    path = tmp_path / ".a.lock"
    with (
        locked(path),
        pytest.raises(PlaceError, match=r"\.a\.lock\.marker, .* delete the file") as caught,
        locked(path),
    ):
        pass
    assert "\n" not in str(caught.value)


# a file system of each kind; that all errors are taken alike is shown above
@pytest.mark.parametrize("no_locks", [(errno.ENOLCK, "all"), (errno.ENOSYS, "exclusive")], ids=_named, indirect=True)
@pytest.mark.usefixtures("no_locks")
@pytest.mark.usefixtures("unsaved_pictures")
def test_a_run_and_its_report_need_no_locks(tmp_path: Path, stbench_command: Callable, monkeypatch) -> None:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    manifest = own_sections.write_manifest(tmp_path, {"S1": "p1", "S2": "p2"})
    words = ("--methods", "training_mean", "--dataset", manifest, "--no-mlflow", "--out", tmp_path / "r")
    done = stbench_command("run", *words)
    assert done.code == 0, done.err
    assert "2/2" in done.out
    assert stbench_command("report", tmp_path / "r").code == 0
    assert not list(tmp_path.rglob("*.marker"))
