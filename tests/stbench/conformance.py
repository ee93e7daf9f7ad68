"""Twenty small trials, one of which raises, one dies, one hangs and one takes all memory, under any engine."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pandas as pd

from stbench import registry
from stbench.data.prepare import prepare
from stbench.data.splits import loso
from stbench.method import configure
from stbench.results.plan import Execution, Experiment, MethodChoice, plan
from stbench.results.summary import write_summary
from stbench.trials.engines.protocol import Engine
from stbench.trials.engines.serial import SerialEngine
from stbench.trials.spec import DataSpec
from stbench.trials.state import TrialState

TROUBLED = f"{Path(__file__).parent / 'troubled_method.py'}:Troubled"
MIB = 2**20


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.lost: list[str] = []
        self.notes: list[str] = []
        self.states: dict[str, TrialState] = {}

    def started(self, key: str) -> None:
        self.begun.append(key)

    def progress(self, key: str, done: int, total: int, text: str) -> None:
        pass

    def again(self, key: str, reason: str) -> None:
        self.lost.append(f"{key} {reason}")

    def note(self, text: str) -> None:
        self.notes.append(text)

    def ended(self, key: str, state: TrialState) -> None:
        assert key not in self.states, "a trial ended twice"
        self.states[key] = state


def plan_trials(results: Path, seeds: int, reference: str = TROUBLED) -> list[str]:
    """Plan trials of the troubled method: two folds, and as many seeds as are asked for."""
    cache = os.environ["STBENCH_CACHE"]
    data = prepare(registry.dataset("demo"), "spot-log10-cp10k", Path(cache), slices=["P1a", "P2a"])
    keys = {name: slide.key for name, slide in data.slides.items()}
    spec = DataSpec("demo", data.name, None, cache, data.target.name, keys)
    method = registry.method(reference)
    choice = MethodChoice(reference, method, "quick", {}, configure(method, "quick", "demo", {}))
    experiment = Experiment(data, spec, [choice], "loso", loso(data.patients), range(seeds))
    return plan(experiment, Execution(results, "stbench run", "cpu"))


def trouble(results: Path, **of_keys: str) -> None:
    (results / "troubles.json").write_text(json.dumps(of_keys))


def numbers(results: Path) -> pd.DataFrame:
    table = write_summary(results)
    return table.drop(columns=["fit_s", "predict_s", "peak_mem_mb"]).sort_values(["key", "slice"], ignore_index=True)


def conforms(engine: Engine, folder: Path, seconds: float) -> Heard:
    """Run twenty trials with ``engine``, which ends one after ``seconds`` and one at 2500 MiB, and look at all of them.

    Those that finish have the numbers of sequential execution, bit for bit.
    """
    results = folder / "results"
    keys = plan_trials(results, 10)
    raises, dies, hangs, allocates, breaks_once = keys[3], keys[6], keys[9], keys[14], keys[10]
    trouble(results, **{raises: "raise", dies: "die", hangs: "hang", allocates: "allocate", breaks_once: "break once"})
    heard = Heard()
    engine.run(results, keys, heard, lambda: False)
    states = heard.states
    assert Counter(state.state for state in states.values()) == {"finished": 16, "failed": 4}
    assert set(states) == set(keys)
    assert states[raises].cause is None
    assert states[raises].reason == "RuntimeError: the method was asked to raise"
    assert (states[dies].cause, states[dies].attempts) == ("killed", 2)
    assert states[dies].reason.startswith("its process was killed by signal 9 (SIGKILL), 2 times")
    assert (states[breaks_once].state, states[breaks_once].attempts) == ("finished", 2)
    assert (states[hangs].cause, states[allocates].cause) == ("timeout", "oom")
    assert f"more than the {seconds:g} s that a trial may take" in states[hangs].reason
    assert "of memory that a trial may take" in states[allocates].reason
    for state in states.values():
        assert state.process is not None
        assert state.cpu

    calm = folder / "calm"
    plan_trials(calm, 10)
    fine = [key for key in keys if states[key].state == "finished"]
    SerialEngine().run(calm, fine, Heard(), lambda: False)
    both = [table[table["key"].isin(fine)].reset_index(drop=True) for table in map(numbers, (results, calm))]
    pd.testing.assert_frame_equal(*both, check_exact=True)

    # what ended is not run again, by whichever engine
    begun = (results / "begun.txt").read_text()
    again = Heard()
    engine.run(results, keys, again, lambda: False)
    assert again.states == states
    assert (results / "begun.txt").read_text() == begun
    return heard
