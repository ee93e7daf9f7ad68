"""The engine on a real Slurm whose limits are narrow: few jobs, short arrays, memory that is watched, preemption.

And what every engine has to do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conformance import conforms, trouble
from one_node_slurm import lacking, one_node
from test_engines import planned
from test_slurm import FAST, Told, ask, begun, engine, logs, never

from stbench.trials.engines.slurm.submission import submissions

__all__ = ["planned"]  # a fixture
NARROW = """\
MaxArraySize=3
MaxJobCount=5
MinJobAge=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
PartitionName=low Nodes={host} PriorityTier=1 State=UP
PartitionName=high Nodes={host} PriorityTier=10 State=UP
"""

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(lacking()), reason=lacking() or "-")]


@pytest.fixture(scope="module")
def conf() -> Iterator[Path]:
    with one_node(NARROW, memory=True) as started:
        yield started


@pytest.fixture
def narrow(conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CONF", str(conf))


def test_every_trial_ends_as_it_should(tmp_path: Path, narrow: None) -> None:
    limits = ("--trial-time", "15s", "--trial-memory", "2500M")
    heard = conforms(engine("mem=4G", limits=limits), tmp_path, 15.0)
    assert len(heard.states) == 20


def test_more_workers_than_slurm_takes_at_a_time(
    planned: Callable, narrow: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stbench.trials.engines.slurm.lists.HOUR_S", 1e-9)  # a worker for each trial
    results, keys = planned(4)
    heard = Told()
    engine("mem=1G").run(results, keys, heard, never)
    assert Counter(heard.states[key].state for key in keys) == {"finished": 8}
    assert set(begun(results).values()) == {1}
    sizes = [each.record.n_workers for each in submissions(results)]
    assert sum(sizes) == 8
    assert max(sizes) <= 3


def test_slurm_says_that_memory_ran_out(planned: Callable, narrow: None) -> None:
    results, keys = planned(1)
    trouble(results, **{keys[0]: "allocate"})
    heard = Told()
    engine("mem=2G").run(results, keys, heard, never)
    state = heard.states[keys[0]]
    assert (state.state, state.cause, begun(results)[keys[0]]) == ("failed", "oom", 1)
    assert re.match("its worker took too much memory.*, as Slurm says - see ", state.reason)
    assert heard.states[keys[1]].state == "finished"


@pytest.mark.parametrize("times", [1, 4])
def test_a_preempted_worker_saves_what_there_is_and_is_run_again_by_slurm(
    planned: Callable, narrow: None, times: int
) -> None:
    """However often: what Slurm takes back is no failure, and no new job is needed."""
    results, keys = planned(1)
    trouble(results, **dict.fromkeys(keys, "wait"))
    n_preempted = 0

    def preempt() -> bool:
        """Whenever the first trial is begun, and is no wish to stop."""
        nonlocal n_preempted
        if n_preempted < times and sum(begun(results).values()) > n_preempted:
            n_preempted += 1
            if n_preempted == times:
                (results / "troubles.json").unlink()
            ask("sbatch", "--partition=high", "--cpus-per-task=2", "--output=/dev/null", "--wrap=sleep 2")
        return False

    heard = Told()
    calm = replace(FAST, cache_s=20.0)  # longer than a job takes to end
    engine("partition=low", "mem=1G", pace=calm).run(results, keys, heard, preempt)
    assert [heard.states[key].state for key in keys] == ["finished", "finished"]
    assert sorted(begun(results).values()) == [1, times + 1]
    (submission,) = submissions(results)  # no second one was needed
    assert submission.record.closed[0].how == "left"
    assert "JOB REQUEUE" in logs(results) or "PREEMPTION" in logs(results)  # and the log went on
