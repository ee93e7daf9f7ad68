"""Trials as tasks of a real Ray on this machine. Ray and a worker for every task take their time: marked slow."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import psutil
import pytest
from conformance import Heard, conforms, plan_trials, trouble

from stbench.errors import Interrupted, UserError
from stbench.trials.engines.limits import Limits
from stbench.trials.engines.ray_tasks import RayEngine
from stbench.trials.outcome import state_of

pytest.importorskip("ray", reason="Ray is not installed (pip install 'stbench[ray]')")

MIB = 2**20


def nothing_is_left(results: Path) -> bool:
    """No process of Ray or of a worker, no flag, no folder of Ray's."""
    words = [" ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)]
    mine = [text for text in words if "stbench.cli worker" in text or "raylet" in text or "gcs_server" in text]
    return not mine and not list(results.glob(".ray-*"))


@pytest.mark.slow
def test_every_trial_ends_as_it_should(tmp_path: Path) -> None:
    conforms(RayEngine(None, Limits(20.0, 2500 * MIB)), tmp_path, 20.0)
    assert nothing_is_left(tmp_path / "results")


@pytest.mark.slow
def test_a_wish_to_stop_lets_trials_save_what_they_have(tmp_path: Path) -> None:
    results = tmp_path / "r"
    keys = plan_trials(results, 1)
    trouble(results, **dict.fromkeys(keys, "wait"))
    begun = results / "begun.txt"
    with pytest.raises(Interrupted, match="asked to save what they have"):
        RayEngine(None, Limits()).run(
            results, keys, Heard(), lambda: begun.is_file() and len(begun.read_text().splitlines()) == 2
        )
    states = [state_of(results, key) for key in keys]
    assert Counter(state.reason for state in states) == {"saved what there is": 2}
    assert nothing_is_left(results)


@pytest.mark.slow
def test_no_trial_is_blamed_where_ray_ends_every_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others fill the node, so Ray's memory monitor lets no task begin."""
    monkeypatch.setenv("RAY_memory_usage_threshold", "0.01")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    results = tmp_path / "r"
    keys = plan_trials(results, 1)
    trouble(results, **dict.fromkeys(keys, "wait"))
    with pytest.raises(UserError, match=r"Ray lost 5 tasks one after the other.*memory was used up") as refused:
        RayEngine(None, Limits()).run(results, keys, Heard(), lambda: False)
    assert "\n" not in str(refused.value)
    assert not {state_of(results, key).state for key in keys} & {"failed", "finished"}


@pytest.mark.slow
def test_a_cluster_that_is_dead_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    results = tmp_path / "r"
    keys = plan_trials(results, 1)
    with pytest.raises(UserError) as refused:
        RayEngine(None, Limits()).run(results, keys, Heard(), lambda: False)
    assert "the Ray cluster at 127.0.0.1:9 cannot be used" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:9"
