"""What a trial will take: from past trials of its kind, else from the table beside the methods."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from made_up_runs import choice, experiment, finish, made_up_data

from stbench.registry import method_names
from stbench.results.plan import Execution, plan
from stbench.results.record import spec_at
from stbench.trials import cost_table
from stbench.trials.cost import REST_S, Costs, Size
from stbench.trials.counted import counted_memory
from stbench.trials.spec import TrialSpec

SIZES = (10, 20, 40)  # spots of S0, S1, S2


def planned(results: Path, device: str = "cpu") -> list[TrialSpec]:
    """BLEEP, for 50 epochs, on three slices, S0 held out first."""
    chosen = [choice("bleep", weights="random")]
    keys = plan(experiment(made_up_data(3, SIZES), chosen), Execution(results, "stbench run", device))
    return [spec_at(results, key) for key in keys]


def test_without_past_trials_the_table_tells(tmp_path: Path) -> None:
    spec, *_ = planned(tmp_path)
    row = cost_table.rate("bleep", "published")
    found = Costs(tmp_path).of(spec)
    assert (found.basis, found.n_past, found.gpu_memory_bytes) == ("table", 0, None)
    training = row.core_s * (20 + 40) * 50
    assert found.seconds == pytest.approx(training + REST_S, rel=0.01)
    assert Costs(tmp_path, threads=2).of(spec).seconds == pytest.approx(training / 2 + REST_S, rel=0.01)
    assert found.memory_bytes == row.memory_mib * 2**20


def test_on_a_gpu_its_memory_is_told_apart(tmp_path: Path) -> None:
    spec, *_ = planned(tmp_path, device="auto")
    found = Costs(tmp_path, on_gpu=True).of(spec)
    assert found.basis == "counted"
    assert found.seconds < Costs(tmp_path, on_gpu=False).of(spec).seconds
    assert found.memory_bytes == cost_table.rate("bleep", "published").memory_mib * 2**20
    assert found.gpu_memory_bytes > counted_memory("bleep", "published", 60, 2) > 2**30


def test_what_was_not_counted_comes_from_the_table_on_a_gpu_too(tmp_path: Path) -> None:
    chosen = [choice("training_mean")]
    keys = plan(experiment(made_up_data(3, SIZES), chosen), Execution(tmp_path, "stbench run", "cuda"))
    row = cost_table.rate("training_mean", "published")
    found = Costs(tmp_path).of(spec_at(tmp_path, keys[0]))
    assert (found.basis, found.gpu_memory_bytes) == ("table", row.gpu_memory_mib * 2**20)
    # what a TOML file describes is another method, whatever its name
    named = replace(planned(tmp_path / "b", device="cuda")[0], origin=str(tmp_path / "mine.toml"))
    assert Costs(tmp_path).of(named).basis == "table"


def test_a_past_trial_of_the_same_kind_is_scaled_by_spots_and_epochs(tmp_path: Path) -> None:
    first, second, third = planned(tmp_path)
    finish(tmp_path, first.key, "S0", fit_s=60.0, started=0.0, ended=61.0)  # 60 spots trained on, 10 tested
    costs = Costs(tmp_path)
    found = costs.of(third)  # 30 spots trained on, 40 tested
    assert (found.basis, found.n_past) == ("past", 1)
    assert found.seconds == pytest.approx(30.0 + 4.0)
    assert found.memory_bytes == 1500 * 2**20
    assert Costs(tmp_path, threads=4).of(third).seconds == found.seconds  # nobody knows with how many threads it ran
    longer = replace(second, config={**second.config, "epochs": 100})
    assert costs.of(longer).seconds == pytest.approx(2 * 50.0 + 2.0)


def test_on_a_cpu_threads_count(tmp_path: Path) -> None:
    first, _, third = planned(tmp_path)
    finish(tmp_path, first.key, "S0", fit_s=60.0, started=0.0, ended=60.0, predict_s=0.0, threads=2)
    assert Costs(tmp_path, threads=1).of(third).seconds == pytest.approx(60.0)
    assert Costs(tmp_path, threads=4).of(third).seconds == pytest.approx(15.0)


def test_the_median_of_past_trials_tells(tmp_path: Path) -> None:
    first, second, third = planned(tmp_path)
    finish(tmp_path, first.key, "S0", fit_s=60.0, started=0.0, ended=60.0, predict_s=0.0)
    finish(tmp_path, second.key, "S1", fit_s=500.0, started=0.0, ended=500.0, predict_s=0.0)
    found = Costs(tmp_path).of(third)
    assert (found.basis, found.n_past) == ("past", 2)
    assert found.seconds == pytest.approx((30.0 + 300.0) / 2)


def test_what_did_not_finish_or_ran_elsewhere_tells_nothing(tmp_path: Path) -> None:
    first, second, third = planned(tmp_path)
    finish(tmp_path, first.key, "S0", state="failed", reason="it broke")
    finish(tmp_path, second.key, "S1", device="NVIDIA H200")
    assert Costs(tmp_path).of(third).basis == "table"
    on_gpu = Costs(tmp_path).of(replace(third, device="cuda"))
    assert (on_gpu.basis, on_gpu.gpu_memory_bytes) == ("past", 1500 * 2**20)
    assert on_gpu.memory_bytes == cost_table.rate("bleep", "published").memory_mib * 2**20


def test_a_past_trial_of_another_preset_is_scaled_by_the_table(tmp_path: Path) -> None:
    first, *_ = planned(tmp_path)
    finish(tmp_path, first.key, "S0", fit_s=60.0, started=0.0, ended=60.0, predict_s=0.0)
    rates = [cost_table.rate("bleep", preset).core_s for preset in ("quick", "published")]
    found = Costs(tmp_path).of(replace(first, preset="quick"))
    assert (found.basis, found.seconds) == ("past", pytest.approx(60.0 * rates[0] / rates[1]))


def test_a_trial_that_reuses_a_model_does_not_train(tmp_path: Path) -> None:
    first, *_ = planned(tmp_path)
    reuses = replace(first, trained_by=first.key, variant="k=50")
    finish(tmp_path, first.key, "S0")
    found = Costs(tmp_path).of(reuses)
    assert found.basis == "table"
    assert found.seconds < REST_S + 10 * cost_table.rate("bleep", "published").core_s


def test_slides_that_are_planned_only_now_are_told_to_it(tmp_path: Path) -> None:
    spec, *_ = planned(tmp_path / "r")
    (tmp_path / "r" / "run.json").unlink()
    keys = spec.data.keys
    known = Costs(tmp_path / "new", {keys[name]: Size(size, 2) for name, size in zip(keys, SIZES, strict=True)})
    unknown = Costs(tmp_path / "new")
    assert known.of(spec).seconds < unknown.of(spec).seconds  # sections of a typical size are assumed


def test_every_registered_method_has_a_row_and_others_have_a_stated_default() -> None:
    for name in method_names():
        assert cost_table.rate(name, "published") != cost_table.UNKNOWN, name
        for row in (cost_table.rate(name, "published"), cost_table.rate(name, "quick")):
            assert all(math.isfinite(value) and value >= 0 for _, value in row), name
        assert cost_table.rate(name, "released") == cost_table.rate(name, "published")
    assert cost_table.rate("somebody_elses", "published") == cost_table.UNKNOWN


def test_looking_at_costs_imports_no_method_and_no_torch() -> None:
    code = (
        "import sys\n"
        "from stbench.trials.cost import Costs\n"
        "from stbench.trials.cost_table import rate\n"
        "from stbench.trials.counted import counted_memory\n"
        "rate('stnet', 'published'), rate('feature_knn', 'quick'), counted_memory('hist2st', 'published', 361, 785)\n"
        "heavy = {'torch', 'sklearn', 'pandas', 'stbench.methods.stnet', 'stbench.methods.controls'}\n"
        "assert not heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
