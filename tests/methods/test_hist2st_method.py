"""Hist2ST's own settings: the spot graph's isolated spots, the augmented copies, the likelihood of counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as transforms

from stbench.errors import UserError
from stbench.method import Run, TrainingSlide, configure
from stbench.methods.hist2st import Hist2ST, size_factors
from stbench.methods.layers import copies
from stbench.methods.layers.copies import augmented_copies


def small(**changes: Any) -> Hist2ST:
    fields = {"epochs": 2, "channels": 8, "heads": 2, "input_px": 14} | changes
    return Hist2ST(configure(Hist2ST, "quick", changes=fields))


@pytest.fixture
def lonely(make_training_slides) -> list[TrainingSlide]:
    """Two slides; the last spot of the first lies far from the others."""
    first, second = make_training_slides(n_slides=2)
    xy = first.array_xy.copy()
    xy[-1] = (40, 40)
    return [replace(first, array_xy=xy), second]


def test_published_settings_are_those_of_the_code_and_of_each_dataset() -> None:
    config = configure(Hist2ST, "published", "her2st")
    assert (config.epochs, config.lr, config.lr_step, config.lr_decay) == (350, 1e-5, 50, 0.9)
    assert (config.copies, config.counts_weight, config.distillation_weight, config.prune) == (5, 0.25, 0.5, "grid")
    assert configure(Hist2ST, "published", "cscc").prune == "none"
    assert configure(Hist2ST, "published", "alex10x").n_pos == 128


def test_learning_rate_falls_every_fifty_epochs() -> None:
    method = Hist2ST(Hist2ST.Config())
    adam, schedule = method.optimiser(torch.nn.Linear(1, 1), torch.device("cpu"))
    rates = []
    for _ in range(350):
        rates.append(adam.param_groups[0]["lr"])
        adam.step()
        schedule.step()
    assert rates[49] == 1e-5
    assert rates[50] == pytest.approx(0.9e-5)
    assert rates[349] == pytest.approx(1e-5 * 0.9**6)


def test_isolated_spots_are_noted_and_harmless(lonely: list[TrainingSlide], hide_expression) -> None:
    found = {}
    for isolated in ("zero", "self"):
        method, run = small(prune="grid", isolated=isolated), Run()
        method.fit(lonely, run)
        fate = {"zero": "nothing", "self": "themselves"}[isolated]
        assert any(f"1 spots of slide S0 have no neighbour and receive {fate}" in note for note in run.notes)
        found[isolated] = method.predict(hide_expression(lonely[0]))
        assert np.isfinite(found[isolated]).all()
    assert not np.array_equal(found["zero"], found["self"])


def test_isolated_spots_can_stop_the_run(lonely: list[TrainingSlide]) -> None:
    with pytest.raises(UserError, match="1 spots of slide S0 have no neighbour within 2 array positions"):
        small(prune="grid", isolated="error").fit(lonely, Run())
    small(prune="none", isolated="error").fit(lonely, Run())
    small(prune="grid", max_distance=100, isolated="error").fit(lonely, Run())


def test_a_spot_can_be_its_own_neighbour(make_training_slides) -> None:
    (slide,) = make_training_slides(n_slides=1, n_spots=9)
    method = small(include_self=True)
    method.shape = {"n_genes": 6, "n_positions": 64}
    source, receiver = method.slide_constants(slide)["edges"]
    assert sorted(receiver[source == receiver].tolist()) == list(range(9))


def test_copies_are_those_of_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 255
    for draws, turn, grey, flip in (((0.05, 0.9, 0.1), 72.0, True, True), ((0.5, 0.25, 0.9), -45.0, False, False)):
        monkeypatch.setattr(
            copies.torch, "rand", lambda shape, d=draws, **_: torch.tensor(d).view(3, 1, 1, 1, 1).expand(shape)
        )
        expected = transforms.rgb_to_grayscale(images, 3) if grey else images
        expected = transforms.rotate(expected, turn)
        expected = transforms.horizontal_flip(expected) if flip else expected
        (found,) = augmented_copies(images, 1, torch.Generator())
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_a_shared_draw_gives_each_image_what_it_would_get_alone(seed: int) -> None:
    images = torch.rand((5, 3, 28, 28), generator=torch.Generator().manual_seed(9))
    images = images.contiguous(memory_format=torch.channels_last)
    (shared,) = augmented_copies(images, 1, torch.Generator().manual_seed(seed))
    alone = [augmented_copies(image[None], 1, torch.Generator().manual_seed(seed))[0] for image in images]
    assert torch.equal(shared, torch.cat(alone))
    assert shared.is_contiguous(memory_format=torch.channels_last)


def test_copies_share_one_draw_unless_drawn_per_spot() -> None:
    image = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    images = image.expand(6, -1, -1, -1)
    (shared,) = augmented_copies(images, 1, torch.Generator().manual_seed(1))
    assert all(torch.equal(copy, shared[0]) for copy in shared)
    (single,) = augmented_copies(images, 1, torch.Generator().manual_seed(1), per_spot=True)
    assert not any(torch.equal(copy, single[0]) for copy in single[1:])


def test_batch_norm_sees_every_copy(make_training_slides) -> None:
    slides = make_training_slides(n_slides=3)
    method = small(copies=4, epochs=2)
    method.fit(slides, Run())
    assert method.trained.mixers[0].norm1.num_batches_tracked == 2 * 3 * (1 + 4)


def test_teacher_learns_unless_detached(make_training_slides) -> None:
    slides = make_training_slides(n_slides=2)
    biases = {}
    for detach in (False, True):
        method = small(copies=2, detach_teacher=detach)
        method.fit(slides, Run())
        biases[detach] = method.trained.scorer[0].weight.detach().clone()
    torch.manual_seed(0)
    assert not torch.equal(biases[False], biases[True])  # detached, the scorer has no gradient and stays as it began


@pytest.mark.parametrize("counts_loss", ["zinb", "nb", "none"])
def test_history_names_the_parts_of_the_loss(counts_loss: str, make_training_slides) -> None:
    history: list[Mapping[str, float]] = []
    method = small(counts_loss=counts_loss, counts_weight=0.3, distillation_weight=0.7, copies=1)
    method.fit(make_training_slides(n_slides=2), Run(on_log=lambda epoch, values: history.append(values)))
    assert len(history) == 2
    for row in history:
        total = row["mse"] + 0.3 * row.get("zinb", 0) + 0.3 * row.get("nb", 0) + 0.7 * row["distillation"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
        assert {"zinb", "nb"} & set(row) == {counts_loss} - {"none"}


def test_predictions_from_the_counts_sum_to_ten_thousand(make_training_slides, hide_expression) -> None:
    slides = make_training_slides(n_slides=2)
    method, run = small(predict_from="zinb_mean"), Run()
    method.fit(slides, run)
    prediction = method.predict(hide_expression(slides[0]))
    np.testing.assert_allclose((10**prediction - 1).sum(axis=1), 1e4, rtol=1e-3)
    assert any("predict_from = zinb_mean" in note for note in run.notes)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(UserError, match="needs counts_loss = zinb"):
        small(predict_from="zinb_mean", counts_loss="none")
    with pytest.raises(UserError, match="patch = 30 is larger than the image of 14 px"):
        small(patch=30)


def test_size_factors_are_totals_over_the_median_total() -> None:
    np.testing.assert_allclose(size_factors(np.array([[1, 1], [2, 4], [0, 0], [5, 5]])), [0.5, 1.5, 0, 2.5])
    np.testing.assert_allclose(size_factors(np.array([[0, 0], [0, 0], [3, 1]])), [0, 0, 4])


def test_empty_spots_and_slides_of_one_spot_train(make_training_slides) -> None:
    first, second = make_training_slides(n_slides=2)
    single = replace(
        second,
        **{
            name: getattr(second, name)[:1]
            for name in ("patches", "array_xy", "pixel_xy", "target", "counts", "total_counts")
        },
    )
    empty = replace(first, counts=first.counts * (np.arange(len(first.counts)) < 3)[:, None])
    history: list[Mapping[str, float]] = []
    small().fit([empty, single], Run(on_log=lambda epoch, values: history.append(values)))
    assert np.isfinite([row["loss"] for row in history]).tolist() == [True, True]
