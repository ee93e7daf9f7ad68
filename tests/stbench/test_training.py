"""The training loop: what a method is handed, what is logged, and that an interrupted training ends as any other."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stbench.errors import Interrupted, UserError
from stbench.method import Method, Run, TrainingSlide
from stbench.slides.content import with_content
from stbench.system.files import read_json, write_json
from stbench.torch_method import Batch, SpotBatchConfig, TestBatch, TorchConfig, TorchMethod, TrainingData
from stbench.training import augment, checkpoint, device
from stbench.training.patch_store import release_resident_patches


class TinyConfig(SpotBatchConfig, TorchConfig):
    epochs: int = 4
    batch_size: int = 8
    lr: float = 1e-2
    patch_px: int = 8
    drop_last: bool = False
    accumulate: int = 1
    held_out: int = 0
    dropout: float = 0.3


class TinyNetwork(nn.Module):
    def __init__(self, n_genes: int, dropout: float) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(4, n_genes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.trunk(images).mean((2, 3)))


class Tiny(TorchMethod):
    """As small as a method gets, with everything whose state must survive an interruption: dropout, batch norm,
    augmentation, momentum and a schedule."""

    name: ClassVar[str] = "tiny"
    title: ClassVar[str] = "Tiny"
    Config = TinyConfig
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"published": {}}
    batching = "spots"
    seen: list[Batch]

    def describe(self, data: TrainingData) -> dict[str, Any]:
        self.seen = []
        return {"n_genes": data.n_genes}

    def network(self, shape: Mapping[str, Any]) -> nn.Module:
        return TinyNetwork(shape["n_genes"], self.config.dropout)

    def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        self.seen.append(batch)
        patches = augment.flip_and_quarter_turn(batch.patches, batch.generator) if network.training else batch.patches
        squared = (network(augment.to_float(patches)) - batch.target).square()
        return {"loss": squared.mean(), "worst": squared.max()}

    def optimiser(self, network: nn.Module, device: torch.device) -> Any:
        adam = torch.optim.AdamW(network.parameters(), self.config.lr)
        return adam, torch.optim.lr_scheduler.StepLR(adam, 2, 0.5)

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        return network(augment.to_float(batch.patches))

    def finish(self, network: nn.Module, data: TrainingData, run: Run) -> None:
        self.extras = {"last_target": data.target[-1]}

    def validation_spots(self, data: TrainingData, run: Run) -> Tensor | None:
        n = self.config.held_out
        generator = torch.Generator().manual_seed(42)
        return torch.randperm(data.n_spots, generator=generator)[:n] if n else None

    @property
    def drop_last(self) -> bool:
        return self.config.drop_last

    @property
    def accumulate(self) -> int:
        return self.config.accumulate


class TinySlides(Tiny):
    name: ClassVar[str] = "tinyslides"
    batching = "slides"

    def slide_constants(self, slide: Any) -> dict[str, Tensor]:
        return {"centre": torch.tensor(slide.array_xy).float().mean(0)}

    def predict_batch(self, network: nn.Module, batch: TestBatch) -> Tensor:
        return super().predict_batch(network, batch) + batch.constants["centre"].sum() * 0 + batch.n_spots


@pytest.fixture
def slides(make_training_slides) -> list[TrainingSlide]:
    return make_training_slides(n_slides=3, n_spots=9, n_genes=5, side=8)


def fitted(slides: list[TrainingSlide], run: Run | None = None, kind: type[Tiny] = Tiny, **changes: Any) -> Tiny:
    method = kind(TinyConfig(**changes))
    method.fit(slides, run or Run(seed=7))
    return method


def same_weights(one: Tiny, other: Tiny) -> bool:
    pairs = zip(one.trained.state_dict().items(), other.trained.state_dict().items(), strict=True)
    return all(name == other_name and torch.equal(a, b) for (name, a), (other_name, b) in pairs)


# What a method is handed ----------------------------------------------------------------------------------------------


def test_a_torch_method_is_a_method():
    assert isinstance(Tiny(TinyConfig()), Method)


def test_every_epoch_sees_every_spot_once_with_its_own_values(slides):
    method = fitted(slides, epochs=2)
    target = np.concatenate([s.target for s in slides])
    counts = np.concatenate([s.counts for s in slides])
    patches = np.concatenate([s.patches for s in slides])
    for epoch in (1, 2):
        batches = [batch for batch in method.seen if batch.epoch == epoch]
        assert [batch.n_spots for batch in batches] == [8, 8, 8, 3]
        assert sorted(torch.cat([batch.spot for batch in batches]).tolist()) == list(range(27))
        for batch in batches:
            spot = batch.spot.numpy()
            assert np.array_equal(batch.target.numpy(), target[spot])
            assert np.array_equal(batch.counts.numpy(), counts[spot])
            assert np.array_equal(batch.patches.permute(0, 2, 3, 1).numpy(), patches[spot])
            assert np.array_equal(batch.slide.numpy(), spot // 9)
            assert np.array_equal(batch.array_xy.numpy(), np.concatenate([s.array_xy for s in slides])[spot])
            assert np.array_equal(batch.total_counts.numpy(), np.concatenate([s.total_counts for s in slides])[spot])


def test_epochs_differ_in_their_order_and_seeds_in_theirs(slides):
    def order(method: Tiny, epoch: int) -> list[int]:
        return torch.cat([batch.spot for batch in method.seen if batch.epoch == epoch]).tolist()

    one, same, other = fitted(slides), fitted(slides), fitted(slides, Run(seed=8))
    assert order(one, 1) != order(one, 2)
    assert order(one, 1) == order(same, 1)
    assert order(one, 1) != order(other, 1)


def test_a_method_may_keep_the_first_epochs_order(slides):
    class Frozen(Tiny):
        reshuffle = False

    spots = [batch.spot.tolist() for batch in fitted(slides, kind=Frozen, epochs=2).seen]
    assert spots[:4] == spots[4:]


def test_whole_slides_come_in_order_with_their_constants(slides):
    method = fitted(slides, kind=TinySlides, epochs=3)
    assert method.needs.whole_slide
    for epoch in (1, 2, 3):
        batches = [batch for batch in method.seen if batch.epoch == epoch]
        assert sorted(int(batch.slide[0]) for batch in batches) == [0, 1, 2]
        for batch in batches:
            slide = slides[int(batch.slide[0])]
            assert np.array_equal(batch.target.numpy(), slide.target)
            assert np.array_equal(batch.patches.permute(0, 2, 3, 1).numpy(), slide.patches)
            assert torch.equal(batch.constants["centre"], torch.tensor(slide.array_xy).float().mean(0))


def test_a_whole_slide_is_predicted_at_once(slides, hide_expression, make_training_slides):
    method = fitted(slides, kind=TinySlides)
    large = make_training_slides(n_slides=1, n_spots=200, n_genes=5, side=8)[0]
    by_spot = Tiny(TinyConfig())
    by_spot.trained = method.trained
    np.testing.assert_allclose(
        method.predict(hide_expression(large)), by_spot.predict(hide_expression(large)) + 200, rtol=1e-5
    )


@pytest.mark.parametrize("n_spots", [1, 3, 300])
def test_predictions_do_not_depend_on_batches(slides, hide_expression, make_training_slides, n_spots):
    method = fitted(slides)
    test = hide_expression(make_training_slides(n_slides=1, n_spots=n_spots, n_genes=5, side=8)[0])
    predicted = method.predict(test)
    assert predicted.shape == (n_spots, 5)
    assert predicted.dtype == np.float32
    for i in (0, n_spots - 1):
        alone = dataclasses.replace(
            test, patches=test.patches[i : i + 1], array_xy=test.array_xy[i : i + 1], pixel_xy=test.pixel_xy[i : i + 1]
        )
        np.testing.assert_allclose(method.predict(alone)[0], predicted[i], atol=1e-5)


def test_incomplete_batches_are_left_out_where_asked_unless_there_is_no_other(slides):
    assert [b.n_spots for b in fitted(slides, epochs=1, drop_last=True).seen] == [8, 8, 8]
    assert [b.n_spots for b in fitted(slides, epochs=1, drop_last=True, batch_size=100).seen] == [27]
    # a single spot is no batch of its own, but where every batch is one
    assert [b.n_spots for b in fitted(slides, epochs=1, batch_size=13).seen] == [13, 14]
    assert [b.n_spots for b in fitted(slides, epochs=1, batch_size=1).seen] == [1] * 27


def test_streamed_and_resident_patches_train_the_same_network(slides, monkeypatch):
    keyed = [with_content(dataclasses.replace(slide), slide.id) for slide in slides]
    loaded, kept = fitted(keyed), fitted(keyed)
    release_resident_patches()
    monkeypatch.setattr("stbench.training.patch_store.room", lambda device, reusable=0, workers=None: 0)
    streamed = fitted(slides)
    assert same_weights(loaded, streamed)
    assert same_weights(kept, streamed)


# The optimisation -----------------------------------------------------------------------------------------------------


def test_the_loop_is_the_plain_one(slides):
    """Batches, loss, backward, step, schedule: written out, without dropout and augmentation."""

    class Plain(Tiny):
        def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
            self.seen.append(batch)
            return {"loss": (network(augment.to_float(batch.patches)) - batch.target).square().mean()}

        def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
            self.initial = {name: value.clone() for name, value in network.state_dict().items()}

    method = fitted(slides, kind=Plain, dropout=0.0)
    network = TinyNetwork(5, 0.0)
    network.load_state_dict(method.initial)
    optimiser, scheduler = method.optimiser(network, torch.device("cpu"))
    for epoch in range(1, 5):
        losses = []
        for batch in method.seen:
            if batch.epoch == epoch:
                loss = (network(augment.to_float(batch.patches)) - batch.target).square().mean()
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                losses.append(loss.item())
        scheduler.step()
        assert method.history[epoch - 1]["loss"] == pytest.approx(np.mean(losses), rel=1e-6)
    for name, value in network.state_dict().items():
        torch.testing.assert_close(method.trained.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_accumulating_batches_steps_along_the_mean_of_their_gradients(slides):
    class Recording(Tiny):
        def optimiser(self, network: nn.Module, device: torch.device) -> Any:
            self.gradients: list[Tensor] = []
            sgd = torch.optim.SGD(network.parameters(), 1e-12)
            sgd.register_step_pre_hook(
                lambda *_: self.gradients.append(network.head.bias.grad.clone())  # type: ignore[union-attr]
            )
            return sgd, None

        def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
            self.seen.append(batch)
            return {"loss": (network.head.bias - batch.target).square().sum()}

    method = fitted(slides, kind=Recording, epochs=1, accumulate=3)
    sums = [batch.target.sum(0) for batch in method.seen]
    assert len(method.gradients) == 2  # batches of 8, 8, 8 and 3: the last step has one
    bias = method.trained.head.bias.detach()
    first = sum(2 * (batch.n_spots * bias - total) for batch, total in zip(method.seen[:3], sums[:3], strict=True)) / 3
    torch.testing.assert_close(method.gradients[0], first, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(method.gradients[1], 2 * (3 * bias - sums[3]), rtol=1e-4, atol=1e-4)


def test_held_out_spots_are_never_trained_on_and_the_best_epochs_weights_are_kept(slides):
    class Worsening(Tiny):
        def optimiser(self, network: nn.Module, device: torch.device) -> Any:
            return torch.optim.SGD(
                network.parameters(), 1e-2, maximize=True
            ), None  # uphill: the first epoch is the best

        def start(self, network: nn.Module, data: TrainingData, run: Run) -> None:
            self.held = set(data.validation_spots.tolist())

    method = fitted(slides, kind=Worsening, held_out=6, epochs=3)
    trained_on = {s for b in method.seen if b.epoch for s in b.spot.tolist()}
    validated = {s for b in method.seen if not b.epoch for s in b.spot.tolist()}
    assert len(method.held) == 6
    assert validated == method.held
    assert trained_on == set(range(27)) - method.held
    losses = [row["validation_loss"] for row in method.history]
    assert losses[0] == min(losses) < losses[-1]
    shorter = fitted(slides, kind=Worsening, held_out=6, epochs=1)
    assert same_weights(method, shorter)


def test_the_history_has_means_over_batches_and_the_time_that_an_epoch_took(slides):
    class Counting(Tiny):
        """Losses that are known: 1, 2, 3, ... over the training batches, 10, 20, ... over those held out."""

        def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
            known = len([b for b in self.seen if bool(b.epoch) == bool(batch.epoch)]) + 1
            actual = super().loss(network, batch)["loss"]
            return {"loss": actual * 0 + known * (1 if batch.epoch else 10)}

    started = time.monotonic()
    method = fitted(slides, kind=Counting, held_out=17, epochs=2, batch_size=5)  # batches of 5, 5 and of 5, 5, 5, 2
    took = time.monotonic() - started
    assert [row["loss"] for row in method.history] == [1.5, 3.5]
    assert [row["validation_loss"] for row in method.history] == [25, 65]
    seconds = [row["seconds"] for row in method.history]
    assert all(0 < one < took for one in seconds)
    assert sum(seconds) <= took


def test_whole_slides_can_be_held_out_too(slides):
    class OneSlideOut(TinySlides):
        def validation_spots(self, data: TrainingData, run: Run) -> Tensor:
            return torch.arange(data.offsets[1], data.offsets[2])

    method = fitted(slides, kind=OneSlideOut, epochs=2)
    assert sorted({int(b.slide[0]) for b in method.seen if b.epoch}) == [0, 2]
    assert [b.slide.tolist() for b in method.seen if not b.epoch] == [[1] * 9] * 2


def test_history_and_progress_are_told_every_epoch(slides):
    rows: list[tuple[int, Mapping[str, float]]] = []
    told: list[tuple[int, int, str]] = []
    run = Run(on_log=lambda e, v: rows.append((e, dict(v))), on_progress=lambda *a: told.append(a))
    method = fitted(slides, run, held_out=6)
    assert [epoch for epoch, _ in rows] == [1, 2, 3, 4]
    assert set(rows[0][1]) == {"loss", "worst", "validation_loss", "validation_worst", "seconds"}
    assert [{"epoch": epoch, **values} for epoch, values in rows] == method.history
    assert told[-1] == (12, 12, "epoch 4/4")
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)


def test_a_loss_that_is_not_finite_stops_the_training_with_its_epoch(slides):
    class Exploding(Tiny):
        def loss(self, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
            return {"loss": super().loss(network, batch)["loss"] * (float("nan") if batch.epoch == 2 else 1)}

    with pytest.raises(UserError, match=r"tiny: the loss is nan in epoch 2 - lower the learning rate"):
        fitted(slides, kind=Exploding)


def test_torchs_own_random_state_is_left_as_it_was(slides):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first = fitted(slides)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert same_weights(first, fitted(slides))
    assert not same_weights(first, fitted(slides, Run(seed=8)))


def test_bf16_trains_and_predicts_float32(slides, hide_expression):
    method = fitted(slides, Run(seed=7, precision="bf16"))
    predicted = method.predict(hide_expression(slides[0]))
    exact = fitted(slides).predict(hide_expression(slides[0]))
    assert predicted.dtype == np.float32
    assert not np.array_equal(predicted, exact)
    np.testing.assert_allclose(predicted, exact, atol=0.2)
    assert all(value.dtype != torch.bfloat16 for value in method.trained.state_dict().values())


# Interruption ---------------------------------------------------------------------------------------------------------


def stop_after(steps: int) -> Callable[[], bool]:
    asked = iter(range(steps))
    return lambda: next(asked, None) is None


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("changes", [{}, {"held_out": 6, "accumulate": 2, "batch_size": 4}], ids=["plain", "validated"])
def test_a_training_interrupted_at_any_step_ends_with_the_same_weights(slides, tmp_path, steps, changes):
    run = Run(seed=7, checkpoint_directory=tmp_path, should_stop=stop_after(steps))
    with pytest.raises(Interrupted, match="goes on from there"):
        fitted(slides, run, epochs=3, **changes)
    again = Run(seed=7, checkpoint_directory=tmp_path)
    resumed = fitted(slides, again, epochs=3, **changes)
    whole = fitted(slides, epochs=3, **changes)
    assert same_weights(resumed, whole)
    assert not again.notes
    without_time = [[{k: v for k, v in row.items() if k != "seconds"} for row in m.history] for m in (resumed, whole)]
    assert without_time[0] == without_time[1]


def test_a_training_interrupted_at_every_step_ends_with_the_same_weights(slides, tmp_path):
    interruptions = 0
    while True:
        run = Run(seed=7, checkpoint_directory=tmp_path, should_stop=stop_after(0))
        try:
            resumed = fitted(slides, run, kind=TinySlides, epochs=3)
            break
        except Interrupted:
            interruptions += 1
    assert interruptions == 8  # of nine steps; after the last there is nothing left to do
    assert same_weights(resumed, fitted(slides, kind=TinySlides, epochs=3))


def test_epochs_done_before_the_interruption_are_not_told_again(slides, tmp_path):
    epochs: list[int] = []
    run = Run(seed=7, checkpoint_directory=tmp_path, on_log=lambda e, _: epochs.append(e), should_stop=stop_after(5))
    with pytest.raises(Interrupted):
        fitted(slides, run)
    fitted(slides, dataclasses.replace(run, should_stop=lambda: False))
    assert epochs == [1, 2, 3, 4]


def test_without_a_checkpoint_folder_an_interruption_says_that_nothing_was_saved(slides):
    with pytest.raises(Interrupted, match="nothing was saved"):
        fitted(slides, Run(seed=7, should_stop=lambda: True))


def test_how_often_checkpoints_are_written_changes_no_number(slides, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EPOCH_CHECKPOINT_S", 0.0)
    monkeypatch.setattr(checkpoint, "STEP_CHECKPOINT_S", 0.0)
    monkeypatch.setattr(checkpoint, "CHECKPOINT_SHARE", 1e9)
    written: list[int] = []
    write = checkpoint.Checkpoints.write
    monkeypatch.setattr(checkpoint.Checkpoints, "write", lambda self, state: (written.append(1), write(self, state)))
    often = fitted(slides, Run(seed=7, checkpoint_directory=tmp_path / "a"))
    assert len(written) == 16  # after each of 4 epochs of 4 steps
    monkeypatch.undo()
    assert same_weights(often, fitted(slides))


def test_checkpoints_are_written_as_seldom_as_their_cost_demands():
    checkpoints = checkpoint.Checkpoints(Run(checkpoint_directory=Path("nowhere")), "")
    checkpoints.written = time.monotonic() - 100
    assert checkpoints.due(60)
    assert not checkpoints.due(200)
    checkpoints.cost = 10.0  # 100 s since the last one, of which writing took 10: that is 10 % of the time
    assert not checkpoints.due(60)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "one byte changed", "not an archive"])
def test_a_damaged_checkpoint_is_noted_and_training_starts_again(slides, tmp_path, damage):
    with pytest.raises(Interrupted):
        fitted(slides, Run(seed=7, checkpoint_directory=tmp_path, should_stop=stop_after(6)))
    path = tmp_path / "training.pt"
    content = bytearray(path.read_bytes())
    if damage == "one byte changed":
        with torch.serialization._open_zipfile_reader(str(path)) as reader:  # a byte of a weight, not of the directory
            weight = torch.load(path, weights_only=True)["network"]["head.weight"].numpy().tobytes()
            assert "data.pkl" in reader.get_all_records()
        content[content.index(weight) + 1] ^= 0xFF
    path.write_bytes(
        {"truncated": bytes(content[: len(content) // 2]), "emptied": b"", "not an archive": b"x" * 500}.get(
            damage, bytes(content)
        )
    )
    run = Run(seed=7, checkpoint_directory=tmp_path)
    assert same_weights(fitted(slides, run), fitted(slides))
    assert any("could not be read" in note for note in run.notes)


@pytest.mark.parametrize("other", ["config", "seed", "data", "precision"])
def test_a_checkpoint_of_another_training_is_noted_and_not_continued(slides, tmp_path, other):
    with pytest.raises(Interrupted):
        fitted(slides, Run(seed=7, checkpoint_directory=tmp_path, should_stop=stop_after(6)))
    run = Run(seed=7, checkpoint_directory=tmp_path)
    if other == "seed":
        run = dataclasses.replace(run, seed=8)
    if other == "precision":
        run = dataclasses.replace(run, precision="bf16")
    changes = {"lr": 2e-2} if other == "config" else {}
    if other == "data":
        slides = [dataclasses.replace(s, target=s.target + 1) for s in slides]
    method = fitted(slides, run, **changes)
    assert same_weights(method, fitted(slides, dataclasses.replace(run, checkpoint_directory=None), **changes))
    assert any("other settings, data or library versions" in note for note in run.notes)


KILLED = """
import os, signal, sys, time
sys.path[:0] = [{tests!r}, {here!r}]
import numpy as np
import torch
from conftest import _training_slide
from pathlib import Path
from test_training import Run, Tiny, TinyConfig, checkpoint

checkpoint.EPOCH_CHECKPOINT_S = checkpoint.STEP_CHECKPOINT_S = 0.0
checkpoint.CHECKPOINT_SHARE = 1e9
rng = np.random.default_rng(0)
slides = [_training_slide(f"S{{i}}", "P", 9, 5, 8, rng) for i in range(3)]

class Slow(Tiny):
    pause = 0.0
    def loss(self, network, batch):
        time.sleep(self.pause)
        return super().loss(network, batch)

def train(checkpoints, tell):
    method = Slow(TinyConfig(epochs=6))
    method.fit(slides, Run(seed=7, checkpoint_directory=checkpoints, on_log=lambda epoch, _: tell(epoch)))
    return method.trained.state_dict()

folder = Path(sys.argv[1])
heard, told = os.pipe()
victim = os.fork()
if not victim:
    Slow.pause = 0.05
    train(folder, lambda epoch: os.write(told, str(epoch).encode()))
    os._exit(0)
while os.read(heard, 1) != b"3":  # in the middle of the run
    pass
os.kill(victim, signal.SIGKILL)
_, status = os.waitpid(victim, 0)
resumed, whole = [], []
one, other = train(folder, resumed.append), train(None, whole.append)
print(os.WTERMSIG(status), resumed[0], resumed[-1], whole, all(torch.equal(one[key], other[key]) for key in other))
"""


def test_a_training_killed_without_warning_ends_with_the_same_weights(tmp_path):
    here = Path(__file__).parent
    code = KILLED.format(tests=str(here.parent), here=str(here))
    printed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    # killed by signal 9, the finished epochs not done again, the weights equal bit for bit
    assert re.fullmatch(r"9 [3-6] 6 \[1, 2, 3, 4, 5, 6\] True\n", printed)


# Saving ---------------------------------------------------------------------------------------------------------------


def test_a_saved_model_predicts_the_same(slides, tmp_path, hide_expression):
    method = fitted(slides, Run(seed=7, precision="bf16"))
    method.save(tmp_path)
    loaded = Tiny.load(tmp_path)
    test = hide_expression(slides[1])
    assert np.array_equal(loaded.predict(test), method.predict(test))
    assert torch.equal(loaded.extras["last_target"], method.extras["last_target"])
    assert loaded.config == method.config
    assert loaded.weights_label == "none"
    assert loaded.n_parameters == method.n_parameters == 3 * 4 * 9 + 4 + 8 + 25
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".safetensors"}
    json.loads((tmp_path / "shape.json").read_text())


def test_loading_does_not_touch_torchs_random_state(slides, tmp_path):
    fitted(slides).save(tmp_path)
    before = torch.get_rng_state()
    Tiny.load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_wrong_with_a_saved_model_is_said_in_one_line(slides, tmp_path):
    method = fitted(slides)
    with pytest.raises(UserError, match=r"it has no config\.json"):
        Tiny.load(tmp_path)
    method.save(tmp_path)
    with pytest.raises(UserError, match="holds a tiny model, not tinyslides"):
        TinySlides.load(tmp_path)
    facts = read_json(tmp_path / "shape.json")
    write_json(tmp_path / "shape.json", facts | {"shape": {"n_genes": 6}})
    with pytest.raises(UserError, match="does not fit tiny") as caught:
        Tiny.load(tmp_path)
    assert "\n" not in str(caught.value)
    write_json(tmp_path / "shape.json", facts)
    write_json(tmp_path / "config.json", {"epochs": "many"})
    with pytest.raises(UserError, match="epochs"):
        Tiny.load(tmp_path)
    method.save(tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="cannot be read"):
        Tiny.load(tmp_path)


def test_predicting_or_saving_before_fit_is_an_error(slides, hide_expression, tmp_path):
    with pytest.raises(UserError, match="has not been trained"):
        Tiny(TinyConfig()).predict(hide_expression(slides[0]))
    with pytest.raises(UserError, match="has not been trained"):
        Tiny(TinyConfig()).save(tmp_path)


def test_a_fold_without_training_slides_or_spots_to_train_on_is_an_error(slides):
    with pytest.raises(UserError, match="at least one training slide"):
        fitted([])
    with pytest.raises(UserError, match="of 27 training spots 27 would be held out"):
        fitted(slides, held_out=27)


# Device --------------------------------------------------------------------------------------------------------------


def test_auto_is_a_gpu_where_there_is_one_and_the_cpu_elsewhere(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert device.resolve_device("auto") == "cuda:1"
    assert device.resolve_device("cuda:0") == "cuda:0"
    with pytest.raises(UserError, match=r"'cuda:2' was asked for, and this machine has 2 GPU"):
        device.resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda", "finds no CUDA GPU - use --device cpu or auto"),
        ("mps", "'mps' is not supported"),
        ("gpu", "unknown device 'gpu' - did you mean 'cpu'"),
    ],
)
def test_devices_that_cannot_be_had_are_refused_in_one_line(monkeypatch, name, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=message) as caught:
        device.resolve_device(name)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_compiled_network_trains_as_the_plain_one(slides):
    compiled, plain = fitted(slides, compile=True, dropout=0.0), fitted(slides, dropout=0.0)
    # not the weights: a bias before batch norm has no gradient but rounding, which Adam turns into steps
    losses = [[row["loss"] for row in method.history] for method in (compiled, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert list(compiled.trained.state_dict()) == list(plain.trained.state_dict())
