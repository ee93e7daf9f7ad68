"""What share of its slots' time an engine fills with trials: at least 0.95, on 1, 2, 4 and 8 slots.

The states of the trials tell: from a slot's first trial to the end of the last trial of all, trials are at work in it,
or it waits. How long workers take to start is not counted, and told apart: it is paid once, and depends on the machine.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from stbench import registry
from stbench.data.prepare import prepare
from stbench.data.splits import loso
from stbench.method import configure
from stbench.results.plan import Execution, Experiment, MethodChoice, plan
from stbench.trials.engines.limits import Limits
from stbench.trials.engines.process import Slot
from stbench.trials.engines.slots import SlotsEngine
from stbench.trials.outcome import state_of
from stbench.trials.spec import DataSpec
from stbench.trials.state import TrialState

SLEEPING = f"{Path(__file__).parent / 'sleeping_method.py'}:Sleeping"
TRIALS_A_SLOT = 16
AT_LEAST = 0.95


class Silent:
    def started(self, key: str) -> None: ...
    def progress(self, key: str, done: int, total: int, text: str) -> None: ...
    def again(self, key: str, reason: str) -> None: ...
    def ended(self, key: str, state: TrialState) -> None: ...
    def note(self, text: str) -> None: ...


def planned(results: Path, n_trials: int) -> list[str]:
    cache = os.environ["STBENCH_CACHE"]
    data = prepare(registry.dataset("demo"), "spot-log10-cp10k", Path(cache), slices=["P1a", "P2a"])
    keys = {name: slide.key for name, slide in data.slides.items()}
    spec = DataSpec("demo", data.name, None, cache, data.target.name, keys)
    method = registry.method(SLEEPING)
    choice = MethodChoice(SLEEPING, method, "published", {}, configure(method, "published", "demo"))
    experiment = Experiment(data, spec, [choice], "loso", loso(data.patients), range(n_trials // 2))
    return plan(experiment, Execution(results, "stbench run", "cpu"))


def efficiency(states: list[TrialState]) -> float:
    """The share of the slots' time in which trials were at work."""
    spans: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for state in states:
        assert state.process is not None
        assert state.started is not None
        assert state.ended is not None
        spans[state.process.pid].append((state.started, state.ended))
    last = max(end for of_slot in spans.values() for _, end in of_slot)
    at_work = sum(end - begin for of_slot in spans.values() for begin, end in of_slot)
    return at_work / sum(last - min(begin for begin, _ in of_slot) for of_slot in spans.values())


@pytest.mark.parametrize("n_slots", [1, 2, 4, 8])
def test_slots_are_filled(
    n_slots: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    benchmark: BenchmarkFixture,
    tell: Callable[[str], None],
) -> None:
    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    keys = planned(tmp_path / "r", TRIALS_A_SLOT * n_slots)
    engine = SlotsEngine([Slot(1, None)] * n_slots, Limits())
    benchmark.pedantic(lambda: engine.run(tmp_path / "r", keys, Silent(), lambda: False), rounds=1, iterations=1)
    states = [state_of(tmp_path / "r", key) for key in keys]
    assert {state.state for state in states} == {"finished"}
    found = efficiency(states)
    at_work = max(state.ended or 0 for state in states) - min(state.started or 0 for state in states)
    benchmark.extra_info.update(efficiency=round(found, 3))
    tell(
        f"{found:.3f} of the time of {n_slots} slots is filled, {len(keys)} trials in {at_work:.0f} s; "
        f"{benchmark.stats['min'] - at_work:.0f} s before and after"
    )
    assert found >= AT_LEAST
