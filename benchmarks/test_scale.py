"""A run at 100,000 trials, and the start of one that is nearly done: time, memory and files.

Synthetic: trials are planned as they always are, given out by what gives them out to worker processes, and collected
into the summary; instead of training anything, what a finished trial leaves is laid down beforehand and renamed.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

HERE = Path(__file__).parent
SLICES = 32  # as HER2+ has
MANY = 100_000
SECONDS, GIB = 60.0, 2.0  # allowed for planning, giving out and collecting them
START_SECONDS = 5.0  # allowed for the start of a run over the trials of the paper's Table 1
TABLE_1 = 318


def made_up(results: Path, n_trials: int) -> list[str]:
    """Plan trials of a control, and leave what they leave when they finished."""
    sys.path.insert(0, str(HERE.parent / "tests" / "stbench"))
    from made_up_runs import choice, experiment, finish, made_up_data

    from stbench.results.plan import Execution, plan
    from stbench.results.record import spec_at

    n_seeds = -(-n_trials // SLICES)
    chosen = experiment(made_up_data(SLICES), [choice("training_mean")], range(n_seeds))
    keys = plan(chosen, Execution(results, "stbench run", "cpu"))
    for key in keys:
        finish(results, key, spec_at(results, key).fold)
    return keys


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not stay, as pytest's own do: a million files."""
    yield tmp_path
    shutil.rmtree(tmp_path)


# In a process of its own, whose memory is that of the work alone.
WORK = """
import json, os, resource, sys, time
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from made_up_runs import choice, experiment, made_up_data

from stbench.results.plan import Execution, plan
from stbench.results.status import status_of
from stbench.results.summary import SummaryTable
from stbench.trials.cost import Costs
from stbench.trials.engines.waiting import Waiting
from stbench.trials.forecast import Forecast
from stbench.trials.survey import states_of

results, finished, n_seeds = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
data = made_up_data(32)
seconds = {}


def clock(name, work):
    began = time.perf_counter(), time.process_time()
    found = work()
    seconds[name] = time.perf_counter() - began[0], time.process_time() - began[1]
    return found


class Heard:
    def __init__(self):
        self.n_ended = 0

    def ended(self, key, state):
        self.n_ended += 1


def planned():
    forecast = Forecast(Costs(results))
    keys = plan(experiment(data, [choice("training_mean")], range(n_seeds)), Execution(results, "stbench run", "cpu"),
                forecast.see)
    open_ = [key for key, state in states_of(results, keys) if state.state == "pending"]
    return forecast.longest_first(open_)


def given_out(keys):
    waiting = Waiting(results.absolute(), keys, Heard())
    n_given = 0
    while waiting.open:
        waiting.settle(waiting.next())
        n_given += 1
    return n_given


keys = clock("planned", planned)
assert clock("given out", lambda: given_out(keys)) == len(keys)
(results / "trials").rmdir()
finished.rename(results / "trials")
table = SummaryTable(results)
summary = clock("collected", table.write)
assert (summary["state"] == "finished").all() and len(summary) == len(keys)
clock("collected again", table.write)
clock("status", lambda: status_of(results))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(json.dumps({"trials": len(keys), "seconds": seconds, "gib": peak}))
"""


def test_100_000_trials_are_planned_given_out_and_collected(
    place: Path, benchmark: BenchmarkFixture, tell: Callable[[str], None]
) -> None:
    keys = made_up(place / "before", MANY)
    finished = place / "before" / "trials"
    n_seeds = -(-MANY // SLICES)

    def work() -> dict[str, Any]:
        command = [sys.executable, "-c", WORK, HERE.parent / "tests" / "stbench", place / "r", finished, n_seeds]
        done = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True, timeout=600)
        return json.loads(done.stdout.splitlines()[-1])

    found = benchmark.pedantic(work, rounds=1, iterations=1)
    benchmark.extra_info.update(found)
    told = ", ".join(f"{name} {wall:.1f} s ({cpu:.1f} s of a core)" for name, (wall, cpu) in found["seconds"].items())
    tell(f"{found['trials']:,} trials: {told}; {found['gib']:.2f} GiB")
    assert found["trials"] == len(keys)
    assert found["gib"] < GIB
    assert sum(found["seconds"][name][0] for name in ("planned", "given out", "collected")) < SECONDS


def test_a_run_over_318_finished_trials_starts_at_once(
    tmp_path: Path, benchmark: BenchmarkFixture, tell: Callable[[str], None]
) -> None:
    """From the plan to the moment at which an engine would begin, the summary written; data are not counted."""
    keys = made_up(tmp_path, TABLE_1)
    sys.path.insert(0, str(HERE.parent / "tests" / "stbench"))
    from made_up_runs import choice, experiment, made_up_data

    from stbench.cli.outstanding import outstanding
    from stbench.results.plan import Execution, plan
    from stbench.results.summary import SummaryTable
    from stbench.trials.cost import Costs
    from stbench.trials.forecast import Forecast

    chosen = experiment(made_up_data(SLICES), [choice("training_mean")], range(-(-TABLE_1 // SLICES)))

    def start() -> None:
        forecast = Forecast(Costs(tmp_path))
        again = plan(chosen, Execution(tmp_path, "stbench run", "cpu"), forecast.see)
        assert again == keys
        assert forecast.longest_first(outstanding(tmp_path, again, False, None)) == []
        SummaryTable(tmp_path).write()

    benchmark.pedantic(start, rounds=3, iterations=1)
    tell(f"{len(keys)} finished trials: a run over them starts in {benchmark.stats['min']:.2f} s")
    assert benchmark.stats["min"] < START_SECONDS
