"""BLEEP as a method: keys from training slices alone, its batches and its validation, options that do what they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from options import Options, Predictions, assert_every_option_is_tried, every_option

from stbench.errors import UserError
from stbench.method import Run, configure
from stbench.methods.bleep import BLEEP
from stbench.methods.layers.contrastive import logits, soft_loss, soft_targets

SMALL = {"epochs": 1, "weights": "random", "n_dimensions": 16, "k": 5}


def trained(slides, run: Run | None = None, **changes: Any) -> BLEEP:
    method = BLEEP(configure(BLEEP, "quick", changes=SMALL | changes))
    method.fit(slides, run or Run())
    return method


def test_all_training_spots_are_keys_those_for_validation_too(make_training_slides) -> None:
    slides = make_training_slides()
    method = trained(slides)
    assert method.extras["keys"].shape == (60, 16)
    np.testing.assert_array_equal(method.extras["values"], np.concatenate([slide.target for slide in slides]))


def test_average_of_all_training_spots_is_the_training_mean(make_training_slides, hide_expression) -> None:
    slides = make_training_slides()
    run = Run()
    prediction = trained(slides[:2], run, k=1000).predict(hide_expression(slides[2]))
    mean = np.concatenate([slide.target for slide in slides[:2]]).mean(axis=0)
    np.testing.assert_allclose(prediction, np.tile(mean, (20, 1)), rtol=1e-4)
    assert any("k = 1000" in note and "40 training spots" in note for note in run.notes)


SOFT = {"aggregation": "inverse-square"}  # a prediction that follows the embeddings continuously
VIT = {"encoder": "vit_tiny_patch16_224", "input_px": 32}
OPTIONS: Options = {
    "epochs": [({"epochs": 2}, SOFT)],
    "lr": [({"lr": 1e-2}, SOFT)],
    "input_px": [({"input_px": 40}, SOFT)],
    "batch_size": [({"batch_size": 8}, SOFT)],
    "encoder": [({"encoder": "resnet18"}, SOFT)],
    "pooling": [({"pooling": "average"}, SOFT | VIT)],
    "weight_decay": [({"weight_decay": 10.0}, SOFT)],
    "accumulate": [({"accumulate": 4}, SOFT | {"batch_size": 8})],
    "dropout": [({"dropout": 0.0}, SOFT)],
    "pixels": [({"pixels": "bgr-255"}, SOFT), ({"pixels": "unit"}, SOFT)],
    "augmentation": [({"augmentation": "none"}, SOFT), ({"augmentation": "jitter-flip-rotate"}, SOFT)],
    "augment_at_test": [({"augment_at_test": True}, SOFT)],
    "n_dimensions": [({"n_dimensions": 8}, SOFT)],
    "temperature": [({"temperature": 2.0}, SOFT)],
    "temperature_form": [({"temperature_form": "multiply"}, SOFT | {"temperature": 2.0})],
    "targets": [({"targets": "detached"}, SOFT), ({"targets": "one-hot"}, SOFT)],
    "k": [({"k": 6}, {})],
    "aggregation": [({"aggregation": name}, {}) for name in ("nearest", "exponential", "inverse-square")],
    "distance": [({"distance": "l1"}, SOFT), ({"distance": "cosine"}, SOFT)],
    "validation": [({"validation": "none"}, SOFT), ({"validation": "slice"}, SOFT)],
    "reshuffle": [({"reshuffle": False}, SOFT | {"epochs": 2, "batch_size": 8, "validation": "none"})],
}


def test_every_option_is_tried_below_or_elsewhere() -> None:
    assert_every_option_is_tried(OPTIONS, BLEEP.Config)


@pytest.fixture(scope="module")
def predictions(make_training_slides, hide_expression) -> Predictions:
    return Predictions(trained, make_training_slides(), hide_expression)


def test_the_same_options_give_the_same_prediction(predictions) -> None:
    predictions.assert_repeatable()


@every_option(OPTIONS)
def test_every_option_changes_the_prediction(changes, beside, predictions) -> None:
    predictions.assert_changed(changes, beside)


def test_a_fifth_of_the_training_spots_chooses_the_epoch(make_training_slides) -> None:
    rows: dict[int, dict[str, float]] = {}
    trained(make_training_slides(), Run(on_log=lambda epoch, values: rows.update({epoch: dict(values)})), epochs=2)
    assert all("validation_loss" in row for row in rows.values())
    assert len(rows) == 2


def test_a_single_training_spot_leaves_nothing_to_validate_on(make_training_slides) -> None:
    run = Run()
    method = trained(make_training_slides(n_slides=1, n_spots=1), run, input_px=64)
    assert method.extras["keys"].shape == (1, 16)
    assert any("single training spot" in note for note in run.notes)


def test_alarms_are_given_the_batch_and_the_rank_of_a_spots_own_key(make_training_slides) -> None:
    diagnostics = trained(make_training_slides()).diagnostics
    assert diagnostics["contrastive_batch"] == 48
    assert 0 <= diagnostics["retrieval_rank"] <= 1


def test_validation_on_a_slice_needs_a_second_one(make_training_slides) -> None:
    with pytest.raises(UserError, match="two training slides"):
        trained(make_training_slides(n_slides=1), validation="slice")


def test_published_batches_are_four_of_128_spots() -> None:
    method = BLEEP(configure(BLEEP))
    assert (method.batch_size, method.accumulate, method.drop_last) == (128, 4, True)
    assert method.config.encoder == "resnet50.a1_in1k"


def test_accumulated_batches_give_the_gradient_of_their_mean_and_not_of_one_large_batch() -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 8, generator=generator, requires_grad=True)
    spots, images = torch.randn(512, 6, generator=generator), torch.randn(512, 8, generator=generator)

    def loss(rows: slice) -> torch.Tensor:
        embedded = spots[rows] @ weight
        return soft_loss(logits(embedded, images[rows]), soft_targets(embedded, images[rows]))

    batches = [slice(start, start + 128) for start in range(0, 512, 128)]
    for rows in batches:  # as the training loop does
        (loss(rows) / 4).backward()
    (of_mean,) = torch.autograd.grad(torch.stack([loss(rows) for rows in batches]).mean(), [weight])
    (of_large,) = torch.autograd.grad(loss(slice(0, 512)), [weight])
    torch.testing.assert_close(weight.grad, of_mean)
    assert not torch.allclose(of_large, of_mean, rtol=0.01)


def test_without_reshuffling_every_epoch_has_the_same_batches(make_training_slides, monkeypatch) -> None:
    for reshuffle in (False, True):
        seen: dict[int, list[tuple[int, ...]]] = {}

        def loss(self, network, batch, original=BLEEP.loss, seen=seen):
            if network.training:
                seen.setdefault(batch.epoch, []).append(tuple(batch.spot.tolist()))
            return original(self, network, batch)

        with monkeypatch.context() as patch:
            patch.setattr(BLEEP, "loss", loss)
            trained(make_training_slides(), epochs=2, batch_size=16, reshuffle=reshuffle)
        assert (seen[1] == seen[2]) is not reshuffle
