"""mclSTExp as a method: keys from training slices alone, positions in every form, options that do what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from options import Options, Predictions, assert_every_option_is_tried, every_option

from stbench.errors import UserError
from stbench.method import LeakedSlide, Run, TrainingSlide, configure
from stbench.methods.mclstexp import MclSTExp, NaivePositions, SinusoidalPositions, key_sequences
from stbench.training.batches import TrainingData
from stbench.training.patch_bank import PatchBank

SMALL = {"epochs": 1, "weights": "random", "n_positions": 32, "n_dimensions": 16, "k": 5}


def trained(slides, **changes: Any) -> MclSTExp:
    method = MclSTExp(configure(MclSTExp, "quick", changes=SMALL | changes))
    method.fit(slides, Run())
    return method


def test_keys_and_values_are_the_training_spots(make_training_slides) -> None:
    slides = make_training_slides()
    method = trained(slides)
    assert method.extras["keys"].shape == (60, 16)
    np.testing.assert_array_equal(method.extras["values"], np.concatenate([slide.target for slide in slides]))


def test_a_prediction_is_a_mean_of_training_targets(make_training_slides, hide_expression) -> None:
    slides = make_training_slides()
    prediction = trained(slides[:2]).predict(hide_expression(slides[2]))
    values = np.concatenate([slide.target for slide in slides[:2]])
    assert (prediction >= values.min(axis=0) - 1e-5).all()
    assert (prediction <= values.max(axis=0) + 1e-5).all()
    nearest = trained(slides[:2], k=1).predict(hide_expression(slides[2]))
    assert all((np.abs(values - row).max(axis=1) < 1e-5).any() for row in nearest)


def test_more_neighbours_than_training_spots_is_noted(make_training_slides) -> None:
    run = Run()
    MclSTExp(configure(MclSTExp, "quick", changes=SMALL | {"k": 61})).fit(make_training_slides(), run)
    assert any("k = 61" in note and "60 training spots" in note for note in run.notes)


@pytest.mark.parametrize("encoding", ["learnable", "sinusoidal", "naive", "none"])
def test_every_position_encoding_trains_saves_and_loads(
    encoding, make_training_slides, hide_expression, tmp_path
) -> None:
    slides = make_training_slides()
    method = trained(slides[:2], position_encoding=encoding)
    method.save(tmp_path)
    test = hide_expression(slides[2])
    np.testing.assert_array_equal(MclSTExp.load(tmp_path).predict(test), method.predict(test))


DENSENET = {"encoder": "densenet121", "input_px": 32}
VIT = {"encoder": "vit_tiny_patch16_224", "input_px": 32}
OPTIONS: Options = {
    "epochs": [({"epochs": 2}, {})],
    "lr": [({"lr": 1e-2}, {})],
    "input_px": [({"input_px": 40}, {})],
    "batch_size": [({"batch_size": 8}, {})],
    "optimiser": [({"optimiser": "adamw"}, {"weight_decay": 1.0})],
    "weight_decay": [({"weight_decay": 1.0}, {})],
    "encoder": [(DENSENET, {})],
    "pooling": [({"pooling": "native"}, VIT)],
    "freeze_encoder": [({"freeze_encoder": True}, {})],
    "objective": [({"objective": "regression"}, {})],
    "last_relu": [({"last_relu": True}, DENSENET)],
    "pixels": [({"pixels": "bgr-255"}, {}), ({"pixels": "imagenet"}, {})],
    "augmentation": [({"augmentation": "jitter-flip-rotate"}, {}), ({"augmentation": "none"}, {})],
    "augment_at_test": [({"augment_at_test": True}, {})],
    "expression": [({"expression": "none"}, {})],
    "position_encoding": [({"position_encoding": name}, {}) for name in ("sinusoidal", "naive", "none")],
    "n_positions": [({"n_positions": 64}, {})],
    "coordinates": [({"coordinates": "pixel"}, {"n_positions": 500})],
    "n_dimensions": [({"n_dimensions": 8}, {})],
    "layers": [({"layers": 1}, {})],
    "heads": [({"heads": 4}, {})],
    "head_width": [({"head_width": 32}, {})],
    "temperature": [({"temperature": 0.1}, {})],
    "normalise": [({"normalise": True}, {})],
    "balance": [({"balance": 0.2}, {})],
    "k": [({"k": 6}, {})],
    "distance": [({"distance": "l1"}, {}), ({"distance": "cosine"}, {})],
    "key_context": [({"key_context": "slice"}, {"key_chunk": 7}), ({"key_context": "straddling"}, {"key_chunk": 7})],
    "key_chunk": [({"key_chunk": 7}, {})],
    "validation": [({"validation": "slice"}, {})],
}


def test_every_option_is_tried_below_or_elsewhere() -> None:
    assert_every_option_is_tried(OPTIONS, MclSTExp.Config)


@pytest.fixture(scope="module")
def predictions(make_training_slides, hide_expression) -> Predictions:
    return Predictions(trained, make_training_slides(), hide_expression)


def test_the_same_options_give_the_same_prediction(predictions) -> None:
    predictions.assert_repeatable()


@every_option(OPTIONS)
def test_every_option_changes_the_prediction(changes, beside, predictions) -> None:
    predictions.assert_changed(changes, beside)


def test_the_last_relu_decides_whether_features_are_signed() -> None:
    images = torch.rand(2, 3, 32, 32)
    for last_relu in (False, True):
        torch.manual_seed(0)
        method = MclSTExp(configure(MclSTExp, changes={"last_relu": last_relu, "n_positions": 4}))
        features = method.network({"n_genes": 3, "n_slides": 1}).image_encoder(images)
        assert features.shape == (2, 1024)
        assert (features.min() < 0).item() is not last_relu


def test_positions_outside_the_tables_are_refused_in_one_line(make_training_slides) -> None:
    with pytest.raises(UserError, match=r"coordinates run from 0 to 4.*rows 0 to 3.*mclstexp\.n_positions"):
        trained(make_training_slides(), n_positions=4)


def test_alarms_are_given_the_batch_and_the_rank_of_a_spots_own_key(make_training_slides) -> None:
    diagnostics = trained(make_training_slides()).diagnostics
    assert diagnostics["contrastive_batch"] == 60
    assert 0 <= diagnostics["retrieval_rank"] <= 1


def test_validation_on_a_slice_needs_a_second_one(make_training_slides) -> None:
    with pytest.raises(UserError, match="two training slides"):
        trained(make_training_slides(n_slides=1), validation="slice")


def test_published_settings_differ_by_dataset() -> None:
    her2st, alex10x = (configure(MclSTExp, "published", dataset) for dataset in ("her2st", "alex10x"))
    assert (her2st.epochs, her2st.coordinates, her2st.n_positions) == (90, "array", 65_536)
    assert (alex10x.epochs, alex10x.coordinates, alex10x.n_positions) == (15, "pixel", 65_536)


def test_coordinates_are_array_x_y_or_pixel_row_column(make_training_slides) -> None:
    slides = make_training_slides()
    data = TrainingData(slides, PatchBank(slides, 32))
    array = MclSTExp(configure(MclSTExp, changes={"coordinates": "array"}))._positions(data)
    pixel = MclSTExp(configure(MclSTExp, changes={"coordinates": "pixel"}))._positions(data)
    np.testing.assert_array_equal(array, np.concatenate([slide.array_xy for slide in slides]))
    np.testing.assert_array_equal(pixel, np.concatenate([np.floor(slide.pixel_xy[:, ::-1]) for slide in slides]))


def test_the_encoders_own_expression_scale_is_that_of_the_counts(make_training_slides) -> None:
    slides = make_training_slides()
    data = TrainingData(slides, PatchBank(slides, 32))
    own = MclSTExp(configure(MclSTExp, changes={"expression": "spot-log10-cp10k"}))._expression(data)
    torch.testing.assert_close(own, data.target)  # which is on that scale here


@pytest.mark.parametrize("context", ["chunks", "slice", "straddling"])
def test_every_spot_is_in_one_key_sequence(context) -> None:
    sequences = key_sequences((0, 40, 43, 120), context, 32)
    spots = [spot for sequence in sequences for spot in range(sequence.start, sequence.stop)]
    assert spots == list(range(120))
    lengths = [sequence.stop - sequence.start for sequence in sequences]
    assert lengths == {"chunks": [32, 8, 3, 32, 32, 13], "slice": [40, 3, 77], "straddling": [32, 32, 32, 24]}[context]


def test_sinusoidal_positions_put_x_first_and_y_last() -> None:
    encoding = SinusoidalPositions(9)
    here, right, below = encoding(torch.tensor([[3, 4], [5, 4], [3, 6]]))
    torch.testing.assert_close(here[:4], below[:4])
    torch.testing.assert_close(here[4:], right[4:])
    assert not torch.allclose(here[:4], right[:4])
    torch.testing.assert_close(here[:2], torch.tensor([np.sin(3.0), np.cos(3.0)]).float())


def test_naive_positions_see_each_slide_from_its_own_corner() -> None:
    encoding = NaivePositions(2, 8)
    first = torch.tensor([[0, 0], [10, 5]])
    encoding.measure([first, first + 100])
    torch.testing.assert_close(
        encoding(first, torch.zeros(2, dtype=torch.long)), encoding(first + 100, torch.ones(2, dtype=torch.long))
    )


# The leak of the released evaluation ----------------------------------------------------------------------------------


def leaked(hidden, truth: TrainingSlide, place: int) -> LeakedSlide:
    """What the harness gives a method that declares a leak."""
    return LeakedSlide(
        *(getattr(hidden, name) for name in ("id", "patient", "patches", "array_xy", "pixel_xy", "um_per_px")),
        truth=truth,
        place=place,
    )


def other_expression(slide: TrainingSlide) -> TrainingSlide:
    """The slide with its spots' expression in another order."""
    return replace(slide, target=slide.target[::-1].copy(), counts=slide.counts[::-1].copy())


def test_only_the_released_key_context_leaks_and_says_so(make_training_slides) -> None:
    for context in ("chunks", "slice", "straddling"):
        assert not trained(make_training_slides(), key_context=context).needs.leak
    leak = trained(make_training_slides(), key_context="straddling-test").needs.leak
    assert "true expression" in leak
    assert "32 spots" in leak


def test_the_test_slices_expression_reaches_the_keys_exactly_where_a_run_holds_both(
    make_training_slides, hide_expression
) -> None:
    """Slides of 20 spots in runs of 7: borders fall inside runs. In runs of 10 they do not, and nothing leaks."""
    first, test, last = make_training_slides()
    hidden = hide_expression(test)
    for chunk, leaks in ((7, True), (10, False)):
        method = trained([first, last], key_context="straddling-test", key_chunk=chunk)
        honest = method.predict(leaked(hidden, test, 1))
        other = method.predict(leaked(hidden, other_expression(test), 1))
        assert (not np.array_equal(honest, other)) is leaks
        again = method.predict(leaked(hidden, test, 1))
        np.testing.assert_array_equal(honest, again)


def test_leaking_keys_are_those_of_all_slices_cut_in_runs_in_the_datasets_order(
    make_training_slides, hide_expression
) -> None:
    """Against the network applied by hand to slide, test slide, slide, one after the other."""
    first, test, last = make_training_slides()
    method = trained([first, last], key_context="straddling-test", key_chunk=7)
    expression = torch.from_numpy(np.concatenate([slide.target for slide in (first, test, last)]))
    positions = torch.from_numpy(np.concatenate([slide.array_xy for slide in (first, test, last)]))
    with torch.no_grad():
        keys = torch.cat(
            [
                method.trained.embed_spots(some, at)
                for some, at in zip(expression.split(7), positions.split(7), strict=True)
            ]
        )
    found = method._keys_beside(leaked(hide_expression(test), test, 1))
    torch.testing.assert_close(found, torch.cat([keys[:20], keys[40:]]))


def test_a_leaking_method_saves_and_loads(make_training_slides, hide_expression, tmp_path) -> None:
    first, test, last = make_training_slides()
    method = trained([first, last], key_context="straddling-test", key_chunk=7)
    method.save(tmp_path)
    slide = leaked(hide_expression(test), test, 1)
    np.testing.assert_array_equal(MclSTExp.load(tmp_path).predict(slide), method.predict(slide))


def test_without_the_harness_the_leak_is_refused_in_one_line(make_training_slides, hide_expression) -> None:
    first, test, _ = make_training_slides()
    with pytest.raises(UserError, match=r"use mclstexp\.key_context=straddling"):
        trained([first], key_context="straddling-test").predict(hide_expression(test))


def test_a_position_encoding_that_is_scaled_by_slide_cannot_leak() -> None:
    with pytest.raises(UserError, match="straddling-test needs a position_encoding"):
        configure(MclSTExp, changes={"key_context": "straddling-test", "position_encoding": "naive"})
