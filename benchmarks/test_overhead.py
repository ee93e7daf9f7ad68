"""A whole trial against the bare loop: what preparing, checking, scoring, recording and writing cost on top of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from plain_step import opened, plain_loss

from stbench.methods.stnet import STNet, STNetwork
from stbench.training import augment
from stbench.trials.run import run_trial
from stbench.trials.spec import TrialSpec
from stbench.trials.work import open_data

EPOCHS = 8


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialSpec:
    """STnet's quick preset on three slices of the demo; planned, and run once with a single epoch as a warm-up."""
    from stbench.cli import main

    monkeypatch.setenv("STBENCH_CACHE", str(tmp_path / "cache"))
    words = "run --methods stnet --dataset demo --slices P1a,P1b,P2a --preset quick --set stnet.epochs=1 --no-mlflow"
    with pytest.raises(SystemExit) as left:
        main([*words.split(), "--device", "cpu", "--out", str(tmp_path / "planned")])
    assert not left.value.code
    planned = TrialSpec.read(min((tmp_path / "planned" / "specs").iterdir()))
    return replace(planned, config={**planned.config, "epochs": EPOCHS})


def bare_loop(spec: TrialSpec) -> None:
    """Build the network, train it on the training slices, predict the test slice; keep nothing."""
    slides = open_data(spec.data).slides
    method = STNet(STNet.Config(**spec.config))
    start = opened(method, [slides[name].for_training() for name in spec.train], "cpu")
    assert isinstance(start.network, STNetwork)
    start.network.to(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        order = torch.randperm(start.data.n_spots, generator=generator)
        for batch in start.data.batches(order.split(method.batch_size)):
            start.optimiser.zero_grad()
            images = augment.to_float(augment.flip_and_quarter_turn(batch.patches, generator))
            plain_loss(method, start.network, [images], batch).backward()
            start.optimiser.step()
    method.trained = start.network.eval()
    for name in spec.test:
        method.predict(slides[name].for_test())


def test_a_trial_over_its_bare_loop(spec: TrialSpec, tmp_path: Path, tell: Callable[[str], None]) -> None:
    bare, whole = [], []
    bare_loop(spec)
    for i in range(3):
        start = time.perf_counter()
        bare_loop(spec)
        bare.append(time.perf_counter() - start)
        results = tmp_path / f"trial{i}"
        spec.write(results)
        start = time.perf_counter()
        state = run_trial(results, spec.key)
        whole.append(time.perf_counter() - start)
        assert state["state"] == "finished", state["reason"]
    tell(
        f"{min(whole) / min(bare):8.2f} times the bare loop's {min(bare):.2f} s: a whole trial,"
        f" {min(whole) - min(bare):+.2f} s (goal: 1.03 times and 1 s)"
    )
    assert min(whole) < 2 * min(bare) + 10
