"""Every published method on a GPU: it learns and predicts what it does on a CPU, and waits for nothing."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stbench import registry
from stbench.errors import Interrupted, UserError
from stbench.method import Run, TestSlide, TrainingSlide, configure
from stbench.torch_method import TorchMethod
from stbench.training.patch_store import release_resident_patches

METHODS = ("stnet", "histogene", "hist2st", "thitogene", "bleep", "mclstexp")
# nothing is drawn on the device: its generators are others than a CPU's
NOTHING_DRAWN: dict[str, Any] = {"augment": "none", "augmentation": "none", "dropout": 0.0, "copies": 0, "tta": "none"}
SMALL: dict[str, Any] = {"epochs": 2, "batch_size": 8, "weights": "random", "n_positions": 64, "n_pos": 64, "k": 4}


def each_method(*on_cpu: str) -> pytest.MarkDecorator:
    """All on a GPU; of a CPU's time no more than it takes to see that the test itself is sound."""
    there = [pytest.param(name, "cuda", marks=pytest.mark.gpu) for name in METHODS]
    return pytest.mark.parametrize(("name", "device"), [*((name, "cpu") for name in on_cpu), *there])


@pytest.fixture(scope="module")
def slides(make_training_slides: Callable) -> list[TrainingSlide]:
    return make_training_slides(n_slides=3, n_spots=16, n_genes=5, side=112)


def small(name: str, **changes: Any) -> TorchMethod:
    method: Any = registry.method(name)
    known = {field: value for field, value in (SMALL | changes).items() if field in method.Config.model_fields}
    return method(configure(method, "quick", changes=known))


def fitted(name: str, slides: list[TrainingSlide], run: Run, **changes: Any) -> TorchMethod:
    method = small(name, **changes)
    method.fit(slides, run)
    return method


@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_predicts_what_it_does_on_a_cpu(
    name: str, device: str, slides: list[TrainingSlide], hide_expression: Callable, tmp_path: Path, exact: None
) -> None:
    *training, last = slides
    test: TestSlide = hide_expression(last)
    there = fitted(name, training, Run(seed=3, device=device), **NOTHING_DRAWN)
    assert {tensor.device.type for tensor in there.trained.state_dict().values()} == {device}  # type: ignore[union-attr]
    if device != "cpu":  # the same steps, summed in another order
        here = fitted(name, training, Run(seed=3), **NOTHING_DRAWN)
        losses = [[row["loss"] for row in method.history] for method in (there, here)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-2)
    there.save(tmp_path)
    moved = type(there).load(tmp_path, "cpu")
    assert {tensor.device.type for tensor in moved.trained.state_dict().values()} == {"cpu"}  # type: ignore[union-attr]
    predicted, expected = there.predict(test), moved.predict(test)
    assert predicted.shape == (test.n_spots, 5)
    # of the spread between spots: an error that is a wrong axis or a lost constant is as large as that
    spread = float(expected.std(axis=0).mean())
    assert spread > 0
    assert np.abs(predicted - expected).max() <= 0.02 * spread + 1e-5


@each_method("histogene", "bleep")
def test_augmentation_and_dropout_are_drawn_on_the_device(name: str, device: str, slides: list[TrainingSlide]) -> None:
    again = [fitted(name, slides, Run(seed=seed, device=device), dropout=0.2).history for seed in (3, 3, 4)]
    first, same, other = ([row["loss"] for row in history] for history in again)
    assert first == pytest.approx(same, rel=1e-2)
    assert first != other
    assert all(np.isfinite(first))


@each_method("histogene")
def test_within_an_epoch_no_method_waits_for_the_gpu(
    name: str, device: str, slides: list[TrainingSlide], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second batch on: the first pays for what is set up once. At its end an epoch asks for its losses."""
    modes: list[str] = []
    set_mode = torch.cuda.set_sync_debug_mode if device == "cuda" else modes.append
    method = small(name, epochs=1, copies=1)
    loss, optimiser_of = method.loss, method.optimiser
    batches: list[int] = []

    def watched(network: torch.nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        if network.training:  # a validation has its own wait, at its end
            batches.append(batch.epoch)
            if len(batches) > 1:
                set_mode("error")
        return loss(network, batch)

    def unwatched_after_steps(network: torch.nn.Module, at: torch.device) -> Any:
        optimiser, schedule = optimiser_of(network, at)
        optimiser.register_step_post_hook(lambda *_: set_mode("default") if len(batches) >= 3 else None)
        return optimiser, schedule

    monkeypatch.setattr(method, "loss", watched)
    monkeypatch.setattr(method, "optimiser", unwatched_after_steps)
    try:
        method.fit(slides, Run(seed=3, device=device))
    finally:
        set_mode("default")
    assert len(batches) >= 3
    if device == "cpu":
        assert modes == ["error", "error", "default", "default"]  # two of the three batches were watched


@pytest.mark.parametrize("name", ["stnet", "hist2st"])
def test_an_interrupted_training_goes_on_on_its_device_and_begins_anew_on_another(
    name: str, device: str, slides: list[TrainingSlide], tmp_path: Path
) -> None:
    """Half of it on a GPU and half on a CPU would be neither device's numbers."""

    def run(at: str, epochs: list[int], interrupted: bool = False) -> Run:
        return Run(
            seed=3,
            device=at,
            checkpoint_directory=tmp_path,
            should_stop=lambda: interrupted and bool(epochs),
            on_log=lambda epoch, values: epochs.append(epoch),
        )

    with pytest.raises(Interrupted):
        fitted(name, slides, run(device, [], interrupted=True))
    if device != "cpu":
        elsewhere: list[int] = []
        moved = run("cpu", elsewhere)
        fitted(name, slides, moved)
        assert elsewhere == [1, 2]
        assert any("checkpoint was of other settings" in note for note in moved.notes)
        with pytest.raises(Interrupted):
            fitted(name, slides, run(device, [], interrupted=True))
    again: list[int] = []
    resumed = fitted(name, slides, run(device, again))
    whole = fitted(name, slides, Run(seed=3, device=device))
    assert again == [2]
    # not the weights: what has no gradient but rounding is moved by Adam all the same
    losses = [[row["loss"] for row in method.history] for method in (resumed, whole)]
    assert losses[0] == (losses[1] if device == "cpu" else pytest.approx(losses[1], rel=1e-2))


@each_method("histogene", "thitogene")
def test_nothing_of_a_trial_stays_in_memory(name: str, device: str, slides: list[TrainingSlide]) -> None:
    def trial() -> weakref.ref[torch.nn.Module]:
        method = fitted(name, slides, Run(seed=3, device=device), epochs=1)
        assert method.trained is not None
        return weakref.ref(method.trained)

    def held() -> int:
        release_resident_patches()
        gc.collect()
        return torch.cuda.memory_allocated() if device == "cuda" else 0

    trial()
    before = held()  # handles and workspaces of cuBLAS and cuDNN stay
    network = trial()
    assert held() <= before
    assert network() is None


def test_a_device_that_is_not_there_is_refused(slides: list[TrainingSlide]) -> None:
    with pytest.raises(UserError, match=r"finds no CUDA GPU|GPU\(s\), counted from 0"):
        fitted("stnet", slides, Run(device=f"cuda:{torch.cuda.device_count()}"))
