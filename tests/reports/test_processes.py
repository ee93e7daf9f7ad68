"""A report that several processes make is the one that a single process makes, and so is what it says and refuses."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import psutil
import pytest
from synthetic import CONTROLS, HER2ST, METHODS, make_results

from stbench.errors import UserError
from stbench.reports import report
from stbench.reports.page import processes
from stbench.reports.page.processes import Make, fitting_processes, makers
from stbench.reports.parts.part import Context
from stbench.reports.sections.read import load

NOWHERE = Context([])


class Fussy(Exception):  # noqa: N818 - as a stranger names it
    """Cannot be pickled: it is made of two things, and keeps one."""

    def __init__(self, what: str, where: str) -> None:
        super().__init__(what)


# what helpers are asked for: they find these functions by name
def refuse(place: str, context: Context) -> None:
    raise UserError(f"{place} is not there - look elsewhere")


def fail(place: str, context: Context) -> None:
    raise Fussy("odd", place)


def tell(place: str, context: Context) -> str:
    logging.getLogger("stbench").warning("note: the font lacks %s", "Ω")
    warnings.warn("narrow", UserWarning, stacklevel=1)
    print("not a reply")
    return place


def die(place: str, context: Context) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def linger(place: str, context: Context) -> None:
    time.sleep(600)


def interrupt_at_work() -> None:
    with makers(["B4"], NOWHERE, 2) as submit:  # type: ignore[arg-type, list-item]
        future = submit(linger, 0)
        while not future.running():
            time.sleep(0.01)
        raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def ask(make: Make, *places: str, n: int = 2) -> list[object]:
    """``make`` of each of ``places``, which stand where sections do."""
    with makers(places, NOWHERE, n) as submit:  # type: ignore[arg-type]
        return [future.result() for future in [submit(make, place) for place in range(len(places))]]


def test_files_are_the_same(tmp_path: Path) -> None:
    results = make_results(tmp_path / "r", [METHODS[0], CONTROLS[4]], slices=["B4", "C2"])
    whole = []
    for n in (1, 2):
        files = report([results], tmp_path / str(n), processes=n)
        paths = [path for path in sorted(files.directory.rglob("*")) if path.is_file()]
        assert len(paths) > 20
        whole.append({path.relative_to(files.directory): path.read_bytes() for path in paths})
    assert whole[0] == whole[1]


def test_what_is_raised_said_and_printed_is_the_same(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    for n in (1, 2):
        caplog.clear()
        with pytest.raises(UserError, match=r"^B4 is not there - look elsewhere$"):
            ask(refuse, "B4", "C2", n=n)
        with pytest.warns(UserWarning, match="narrow") as caught:
            assert ask(tell, "B4", "C2", n=n) == ["B4", "C2"]
        assert {Path(warning.filename) for warning in caught} == {Path(__file__)}
        assert {record.getMessage() for record in caplog.records} == {"note: the font lacks Ω"}
    assert len(caplog.records) == 1, "each of the processes said it"
    with pytest.raises(RuntimeError, match=r"^Fussy: odd\n") as failed:
        ask(fail, "B4")
    assert re.search(r"test_processes\.py.*in fail", failed.value.__notes__[0])
    assert capfd.readouterr().out == "not a reply\n" * 2, "of the process itself; helpers print to stderr"


def test_a_helper_that_is_killed_is_one_line() -> None:
    with pytest.raises(UserError) as refused:
        ask(die, "B4", "C2")
    text = "a process that drew the report ended before its time (exit code -9), perhaps for want of memory - draw in"
    assert str(refused.value) == f"{text} one: 'stbench report --processes 1'"
    assert not psutil.Process().children()


def test_no_helper_outlives_who_asked_it(tmp_path: Path) -> None:
    """Neither after Ctrl-C, which does not wait for what is at work, nor where its process was killed while idle."""
    with pytest.raises(KeyboardInterrupt):
        interrupt_at_work()
    assert not psutil.Process().children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("report")]
    code = (
        "import os, psutil, test_processes as t\n"
        "with t.makers(['B4'], t.NOWHERE, 2) as submit:\n"
        "    print(*[child.pid for child in psutil.Process().children()], flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    asked = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, encoding="utf-8", check=False)
    deadline = time.monotonic() + 60
    while any(map(psutil.pid_exists, map(int, asked.stdout.split()))):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_as_many_processes_as_are_worth_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (load([make_results(tmp_path / str(n), METHODS[:2], slices=HER2ST[:n], n_genes=3)]) for n in (3, 14))
    monkeypatch.setattr(processes, "usable_cores", lambda: 8)
    monkeypatch.setattr(processes, "usable_memory", lambda: 3 * 2**30)
    assert (fitting_processes(few), fitting_processes(many)) == (1, 3)
    monkeypatch.setattr(processes, "usable_memory", lambda: 2**29)
    assert fitting_processes(many) == 1
    monkeypatch.setattr(processes, "usable_memory", lambda: 2**40)
    assert fitting_processes(many) == processes.MOST
    monkeypatch.setattr(processes, "usable_cores", lambda: 1)
    assert fitting_processes(many) == 1
