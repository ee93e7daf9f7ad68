"""Trials on a GPU: memory that runs out ends one of them, and a slot sees the card that it was given."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from stbench.system.gpus import VISIBLE, visible_gpus

GREEDY = f"{Path(__file__).with_name('greedy_method.py')}:Greedy"
DEMO = ("--dataset", "demo", "--slices", "P1a,P1b,P2a", "--no-mlflow")
WHAT_IS_SEEN = """
import json, torch
there = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
total = torch.ones(4, device="cuda").sum().item()
print(json.dumps({"uuids": [str(each.uuid) for each in there], "total": total}))
"""


def test_a_trial_for_which_memory_runs_out_is_told_so_and_the_next_one_ends(
    device: str, tmp_path: Path, stbench_command: Callable
) -> None:
    """In one process, as a slot's trials are."""
    results = tmp_path / "results"
    without = ("--set", f"{GREEDY}.without=P1b")  # of the three folds, one has it as its test slice
    planned = stbench_command(
        "run", "--methods", GREEDY, *DEMO, *without, "--device", device, "--engine", "script", "--out", results
    )
    assert planned.code == 0, planned.err
    keys = sorted(path.stem for path in (results / "specs").iterdir())
    assert len(keys) == 3
    folds = {key: json.loads((results / "specs" / f"{key}.json").read_text())["test"] for key in keys}
    greedy = next(key for key, test in folds.items() if test == ["P1b"])
    states = {}
    for key in (greedy, *(key for key in keys if key != greedy)):
        stbench_command("trial", results, key)
        states[key] = json.loads((results / "trials" / key / "state.json").read_text())
    assert [state["state"] for state in states.values()] == ["failed", "finished", "finished"]
    where = "GPU memory" if device == "cuda" else "memory"
    assert f"out of {where} (" in states[greedy]["reason"]
    assert "\n" not in states[greedy]["reason"]


@pytest.mark.gpu
def test_a_process_that_is_given_a_gpu_by_its_token_sees_that_one_alone() -> None:
    """By the UUID of a card, or of a part of a card that is cut into parts (MIG)."""
    tokens = [gpu.token for gpu in visible_gpus(os.environ)]
    assert tokens
    for token in tokens:
        seen = _seen_with(token)
        assert len(seen["uuids"]) == 1
        assert seen["total"] == 4.0
        if token.startswith("GPU-"):
            assert seen["uuids"][0].startswith(token.removeprefix("GPU-"))


@pytest.mark.gpu
def test_two_slots_of_one_gpu_run_side_by_side(tmp_path: Path, stbench_command: Callable) -> None:
    results = tmp_path / "results"
    done = stbench_command(
        *("run", "--methods", "histogene", *DEMO, "--preset", "quick", "--set", "histogene.epochs=2"),
        *("--slots-per-gpu", "2", "--out", results),
    )
    assert done.code == 0, done.err
    states = [json.loads(path.read_text()) for path in sorted((results / "trials").glob("*/state.json"))]
    assert [state["state"] for state in states] == ["finished"] * 3
    assert {state["device"] for state in states} == {torch.cuda.get_device_name()}


def _seen_with(token: str) -> dict:
    environment = os.environ | {VISIBLE: token}
    done = subprocess.run(
        [sys.executable, "-c", WHAT_IS_SEEN], capture_output=True, text=True, env=environment, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
