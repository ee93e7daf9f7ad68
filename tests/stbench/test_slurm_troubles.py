"""Slurm's commands fail, hang, lie or say nothing: nothing is sent twice, nothing is lost, and one line says it.

The commands are stand-ins at the front of PATH. No worker runs: the test itself ends the trials.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conformance import Heard
from test_engines import planned

from stbench.errors import Interrupted, LeftToOthers, UserError
from stbench.system.interrupt import StopRequest
from stbench.trials.engines.slurm import node
from stbench.trials.engines.slurm.arrays import Layout
from stbench.trials.engines.slurm.engine import SlurmEngine
from stbench.trials.engines.slurm.node import Leaving, Left
from stbench.trials.engines.slurm.options import SbatchOptions
from stbench.trials.engines.slurm.queue import HEADER, jobs_of_run
from stbench.trials.engines.slurm.script import WorkerCommand
from stbench.trials.engines.slurm.sight import Pace
from stbench.trials.engines.slurm.submission import submissions
from stbench.trials.outcome import state_of
from stbench.trials.run import end_from_outside

__all__ = ["planned"]  # a fixture
FAST = Pace(look_s=0.1, poll_s=0.2, cache_s=1.0, answers=2, call_s=5.0, submit_s=5.0, retry_s=0.5, stop_s=3.0)

SBATCH = """#!/bin/bash
here=$(dirname "$0")
script=${@: -1}
echo "$script" >> "$here/sent.txt"
name=$(sed -n 's/^#SBATCH --job-name=//p' "$script")
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
number=$(wc -l < "$here/sent.txt")
if [ -f "$here/most" ] && [ "$last" -ge "$(cat "$here/most")" ]; then
  echo "sbatch: error: $(cat "$here/refusal")" >&2
  exit 1
fi
[ -f "$here/lost" ] || for task in $(seq 0 "$last"); do
  echo "$number|$task|$(cat "$here/state")|n1|$name|$(cat "$here/reason")" >> "$here/queue.txt"
done
[ -f "$here/sbatch.hangs" ] && sleep 60
[ -f "$here/sbatch.fails" ] && { echo "sbatch: error: nobody knows why" >&2; exit 1; }
echo "$number"
"""
SQUEUE = f"""#!/bin/bash
here=$(dirname "$0")
case "$(cat "$here/mood")" in
  fails) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1;;
  hangs) sleep 60;;
  empty) exit 0;;
  *) echo "{HEADER}"; cat "$here/queue.txt";;
esac
"""


class FakeSlurm:
    """The folder of the stand-ins; files beside them say how they behave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        noted = f'#!/bin/sh\necho $(basename "$0") "$@" >> {folder}/asked.txt\n'
        for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scontrol": noted, "scancel": noted}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        self.say(mood="fine", state="RUNNING", reason="None", queue="")

    def say(self, **files: str) -> None:
        for name, text in files.items():
            (self.folder / {"queue": "queue.txt"}.get(name, name)).write_text(text)

    @property
    def sent(self) -> list[Path]:
        """The folders of arrays, as often as they were given to sbatch."""
        return [Path(line).parent for line in self._lines("sent.txt")]

    @property
    def asked(self) -> str:
        return "\n".join(self._lines("asked.txt"))

    def _lines(self, name: str) -> list[str]:
        path = self.folder / name
        return path.read_text().splitlines() if path.is_file() else []


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    fake = FakeSlurm(tmp_path / "fake")
    monkeypatch.setenv("PATH", f"{fake.folder}:{os.environ['PATH']}")
    return fake


class Told(Heard):
    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def engine(detach: bool = False, **pace: float) -> SlurmEngine:
    return SlurmEngine(Layout(SbatchOptions(), WorkerCommand()), detach, replace(FAST, **pace))  # type: ignore[arg-type]


def run(results: Path, keys: list[str], *actions: Callable[[], bool]) -> Told:
    """Run the engine; each action is called again and again until it says that it is done, then the next one."""
    heard, left = Told(), list(actions)
    until = time.monotonic() + 60

    def step() -> bool:
        if left and left[0]():
            left.pop(0)
        return time.monotonic() > until

    engine().run(results, keys, heard, step)
    assert not left
    return heard


def ends(results: Path, keys: list[str]) -> Callable[[], bool]:
    def end() -> bool:
        for key in keys:
            end_from_outside(results, key, "killed", "the test ended it")  # the quickest way in which a trial ends
        return True

    return end


@pytest.mark.parametrize(
    ("mood", "said"),
    [
        ("fails", "squeue gives no answer (slurm_load_jobs error: Unable to contact slurm controller)"),
        ("hangs", "squeue gives no answer (no answer in time)"),
        ("empty", "squeue gives no answer (it said nothing that can be read)"),
    ],
)
def test_trials_are_collected_whatever_squeue_does(planned: Callable, slurm: FakeSlurm, mood: str, said: str) -> None:
    results, keys = planned(1)
    slurm.say(mood=mood)
    heard = Told()
    began = time.monotonic()

    def step() -> bool:
        if heard.notes and time.monotonic() - began > 2.5 and not heard.states:  # longer than squeue would be believed
            ends(results, keys)()
        return time.monotonic() - began > 60

    engine(call_s=1.0 if mood == "hangs" else 5.0).run(results, keys, heard, step)
    assert {state.state for state in heard.states.values()} == {"failed"}
    assert [note.partition(";")[0] for note in heard.notes] == [said]
    assert len(slurm.sent) == 1


def test_a_state_that_nobody_knows_is_not_the_end(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(1)
    slurm.say(state="INVENTED")
    began = time.monotonic()
    run(results, keys, lambda: time.monotonic() - began > 2.5, ends(results, keys))
    assert len(slurm.sent) == 1


@pytest.mark.parametrize("how", ["sbatch.fails", pytest.param("sbatch.hangs", marks=pytest.mark.slow)])
def test_sbatch_that_submits_and_does_not_say_so_is_not_asked_again(
    planned: Callable, slurm: FakeSlurm, how: str
) -> None:
    results, keys = planned(1)
    slurm.say(**{how: ""})
    began = time.monotonic()
    run(results, keys, lambda: time.monotonic() - began > 4, ends(results, keys))
    assert len(slurm.sent) == 1
    (submission,) = submissions(results)
    assert submission.record.job == "1"


@pytest.mark.slow
def test_jobs_that_never_came_are_sent_anew_after_they_were_looked_for(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(1)
    slurm.say(**{"sbatch.hangs": "", "lost": ""})
    heard, doubted = Told(), 0.0
    began = time.monotonic()

    def step() -> bool:
        nonlocal doubted
        if heard.notes and not doubted:
            doubted = time.monotonic()
            for name in ("sbatch.hangs", "lost"):
                (slurm.folder / name).unlink()
        if len(slurm.sent) == 2 and not heard.states:
            assert time.monotonic() - doubted > FAST.cache_s
            ends(results, keys)()
        return time.monotonic() - began > 120

    engine().run(results, keys, heard, step)
    assert "sbatch did not say whether it took the jobs" in heard.notes[0]
    assert len(slurm.sent) == 2


@pytest.mark.slow
def test_as_many_workers_as_may_be_had_are_sent_and_others_later(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(4)
    slurm.say(most="3", refusal="QOSMaxSubmitJobPerUserLimit")
    heard = Told()

    def step() -> bool:
        given = [key for each in submissions(results) for n in range(each.record.n_workers) for key in each.keys(n)]
        if len(set(given)) == len(keys):
            ends(results, keys)()
        return False

    # a worker for each trial, so that there are more than Slurm takes
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stbench.trials.engines.slurm.lists.HOUR_S", 1e-9)
        engine().run(results, keys, heard, step)
    assert {state.state for state in heard.states.values()} == {"failed"}
    arrays = [each.record.n_workers for each in submissions(results)]
    assert sum(arrays) == len(keys)
    assert max(arrays) <= 3


def test_what_slurm_does_not_take_at_all_waits(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(1)
    slurm.say(most="0", refusal="Slurm temporarily unable to accept job, sleeping and retrying")

    def accept() -> bool:
        if len(slurm.sent) >= 2:
            (slurm.folder / "most").unlink(missing_ok=True)
            return bool(list(submissions(results)))
        return False

    heard = run(results, keys, accept, ends(results, keys))
    assert heard.notes.count("Slurm takes no more jobs now; what is left is sent later") == 1


def test_a_refusal_for_good_is_one_line(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(1)
    slurm.say(most="0", refusal="invalid partition specified: nix")
    with pytest.raises(
        UserError, match=r"sbatch refuses the jobs .*invalid partition specified: nix.* - change them"
    ) as no:
        engine().run(results, keys, Told(), lambda: False)
    assert "\n" not in str(no.value)
    assert list((results / "batch").iterdir()) == []


def test_jobs_that_begin_nothing_are_sent_twice_and_no_more(planned: Callable, slurm: FakeSlurm) -> None:
    """As on a node that lacks something: the log tells what."""
    results, keys = planned(1)
    slurm.say(state="FAILED")

    def log() -> bool:
        for folder in slurm.sent:
            (folder / "logs" / "0.log").write_text("stbench: there is no Python at /x (on n1, job 7)\n")
        return False

    heard = Told()
    with pytest.raises(UserError, match="2 trials stay to be run: they made no progress in 2 jobs in a row") as told:
        engine().run(results, keys, heard, log)
    assert "it said last: stbench: there is no Python at /x" in str(told.value)
    assert len(slurm.sent) == 2
    assert [state_of(results, key).state for key in keys] == ["pending", "pending"]


def test_another_command_finds_the_jobs_of_an_earlier_one(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(1)
    for _ in range(2):
        with pytest.raises(LeftToOthers, match="1 workers for 2 trials are with Slurm"):
            engine(detach=True).run(results, keys, Told(), lambda: False)
    found = jobs_of_run(results)
    assert found is not None
    assert [job.state for job in found] == ["RUNNING"]
    run(results, keys, ends(results, keys))
    assert len(slurm.sent) == 1


def test_ctrl_c_reaches_jobs_and_hears_of_a_hanging_sbatch(planned: Callable, slurm: FakeSlurm) -> None:
    results, keys = planned(1)
    slurm.say(**{"sbatch.hangs": ""})
    began = time.monotonic()
    with pytest.raises(Interrupted):
        engine().run(results, keys, Told(), lambda: bool((slurm.folder / "queue.txt").read_text()))
    assert time.monotonic() - began < FAST.stop_s + 5
    assert "scancel --state=PENDING 1" in slurm.asked
    assert "scancel --state=RUNNING --batch --signal=USR2 1" in slurm.asked


# The worker's side ---------------------------------------------------------------------------------------------------


def leaving(results: Path, keys: list[str], path: Path, signal_number: int | None, **options: bool) -> Left:
    """A run of a worker that is stopped, and what it says of it."""
    request = StopRequest()
    request.signal = signal_number
    with pytest.raises(Interrupted), Leaving(path, results, keys, request, options.get("requeue", False)):
        raise Interrupted("saved")
    left = Left.read(path)
    assert left is not None
    return left


def test_a_worker_says_how_it_left(planned: Callable, tmp_path: Path) -> None:
    results, keys = planned(1)
    path = tmp_path / "left.json"
    assert leaving(results, keys, path, None) == Left(why="time", said="saved")
    assert leaving(results, keys, path, 12).why == "time"
    assert leaving(results, keys, path, 15).why == "asked"
    with Leaving(path, results, keys, StopRequest(), False):
        assert not path.exists()
    assert Left.read(path) == Left(why="done")
    with pytest.raises(UserError), Leaving(path, results, keys, StopRequest(), False):
        raise UserError("there is no cache here")
    assert Left.read(path) == Left(why="place", said="there is no cache here")
    path.write_text("{")
    assert Left.read(path) is None


def test_a_worker_asks_to_be_run_again_as_long_as_there_is_progress(
    planned: Callable, tmp_path: Path, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    results, keys = planned(1)
    path = tmp_path / "left.json"
    first = leaving(results, keys, path, 12, requeue=True)
    assert (first.requeued, first.fruitless) == (True, 1)
    assert slurm.asked == "scontrol requeue 7_3"
    second = leaving(results, keys, path, 12, requeue=True)
    assert (second.requeued, second.fruitless) == (False, 2)
    assert slurm.asked == "scontrol requeue 7_3"
    assert not leaving(results, keys, path, 15, requeue=True).requeued  # somebody asked it to leave


def test_a_site_that_forbids_it_is_told(
    planned: Callable,
    tmp_path: Path,
    slurm: FakeSlurm,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (slurm.folder / "scontrol").write_text("#!/bin/sh\necho Requested operation is presently disabled >&2\nexit 1\n")
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    results, keys = planned(1)
    assert not leaving(results, keys, tmp_path / "left.json", 12, requeue=True).requeued
    assert "Slurm does not run job 9 again (Requested operation is presently disabled)" in caplog.text
    monkeypatch.setattr(node, "CALL_S", 0.5)
    (slurm.folder / "scontrol").write_text("#!/bin/sh\nexec sleep 60\n")
    assert not leaving(results, keys, tmp_path / "left.json", 12, requeue=True).requeued


def test_status_tells_why_jobs_wait(planned: Callable, slurm: FakeSlurm, stbench_command: Callable) -> None:
    results, keys = planned(1)
    slurm.say(state="PENDING", reason="QOSMaxGRESPerUser")
    with pytest.raises(LeftToOthers):
        engine(detach=True).run(results, keys, Told(), lambda: False)
    shown = stbench_command("status", results).out
    assert "1 worker waits in Slurm's queue: QOSMaxGRESPerUser - this does not pass by itself: more was asked" in shown
    (job,) = json.loads(stbench_command("status", results, "--json").out)["slurm"]
    assert (job["state"], job["reason"]) == ("PENDING", "QOSMaxGRESPerUser")
    slurm.say(mood="fails")
    assert "Slurm" not in stbench_command("status", results).out
