"""HisToGene, Hist2ST and THItoGene as methods: what the three, which take a whole slide at once, have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stbench.errors import UserError
from stbench.method import Run, TrainingSlide, configure
from stbench.method_checks.battery import CHECKS, run_checks
from stbench.methods.hist2st import Hist2ST
from stbench.methods.histogene import HisToGene
from stbench.methods.layers import whole_slide
from stbench.methods.layers.whole_slide import WholeSlideMethod
from stbench.methods.thitogene import THItoGene

METHODS = [HisToGene, Hist2ST, THItoGene]
SMALL: dict[type[WholeSlideMethod], dict[str, Any]] = {
    HisToGene: {"width": 32, "n_layers": 1, "heads": 2, "input_px": 8},
    Hist2ST: {"channels": 8, "n_layers": 1, "heads": 2, "input_px": 14},
    THItoGene: {
        "n_layers": 1, "heads": 2, "mlp_width": 32, "capsules": 2, "capsule_width": 4, "trunk": (2, 2, 2),
        "graph_heads": 2, "graph_widths": (4, 8),
    },
}  # fmt: skip
every_method = pytest.mark.parametrize("method_class", METHODS, ids=lambda method: method.name)


def small(method_class: type[WholeSlideMethod], **changes: Any) -> WholeSlideMethod:
    fields = SMALL[method_class] | {"epochs": 2, "lr": 1e-3} | changes
    return method_class(configure(method_class, "quick", changes=fields))


@every_method
def test_passes_the_battery_of_checks(method_class: type[WholeSlideMethod]) -> None:
    results = run_checks(method_class, small(method_class).config)
    assert {result.name: result.message for result in results if not result.passed} == {}
    assert len(results) == len(CHECKS)


def in_order_of_redness(slide: TrainingSlide, descending: bool) -> TrainingSlide:
    """The same spots, laid out so that neighbours look alike; where on the array the red ones lie differs by slide."""
    order = np.argsort(slide.patches[..., 0].mean(axis=(1, 2)))
    names = ("patches", "target", "counts", "total_counts")
    columns = {name: getattr(slide, name)[order[::-1] if descending else order] for name in names}
    return replace(slide, **columns)


@every_method
def test_learns_what_is_visible(method_class, make_training_slides, hide_expression) -> None:
    slides = make_training_slides(n_slides=5, n_spots=40)
    *train, test = [in_order_of_redness(slide, descending=i % 2 == 0) for i, slide in enumerate(slides)]
    # so few spots that THItoGene's quick preset needs larger steps to come from positions to what is seen
    changes = {"lr": 2e-3} if method_class is THItoGene else {}
    method = method_class(configure(method_class, "quick", changes=changes))
    method.fit(train, Run(seed=1))  # of six seeds the first is the one that learns least
    prediction = method.predict(hide_expression(test))
    assert prediction.dtype == np.float32
    assert np.corrcoef(prediction[:, 0], test.target[:, 0])[0, 1] > 0.5  # the first gene follows the patches' redness


def without_ties(n_spots: int) -> np.ndarray:
    """Array positions of which every spot's four nearest others are certain, whatever the order of the spots."""
    rng = np.random.default_rng(0)
    while True:
        xy = rng.integers(0, 64, (n_spots, 2))
        distances = np.sort(((xy[:, None] - xy[None]) ** 2).sum(axis=2), axis=1)
        if (distances[:, 4] < distances[:, 5]).all():
            return xy


@every_method
def test_prediction_follows_the_order_of_the_spots(method_class, make_training_slides, hide_expression) -> None:
    slides = make_training_slides(n_slides=2, n_spots=13)
    method = small(method_class)
    method.fit(slides, Run())
    test = replace(hide_expression(slides[0]), array_xy=without_ties(13))
    order = np.random.default_rng(0).permutation(13)
    names = ("patches", "array_xy", "pixel_xy")
    shuffled = replace(test, **{name: getattr(test, name)[order] for name in names})
    np.testing.assert_allclose(method.predict(shuffled), method.predict(test)[order], atol=1e-5)


@every_method
def test_a_visium_section_of_5000_spots_is_predicted(method_class, make_training_slides, hide_expression) -> None:
    slides = make_training_slides(n_slides=1, n_spots=12, side=16)
    method = small(method_class)
    method.fit(slides, Run())
    slide = slides[0]
    many = replace(
        hide_expression(slide),
        patches=np.resize(slide.patches, (5000, 16, 16, 3)),
        array_xy=np.stack([np.arange(5000) % 128, np.arange(5000) // 128], axis=1),
        pixel_xy=np.zeros((5000, 2)),
    )
    prediction = method.predict(many)
    assert prediction.shape == (5000, slide.target.shape[1])
    assert np.isfinite(prediction).all()
    assert (np.ptp(prediction, axis=0) > 0).all()


@every_method
def test_position_tables_grow_with_the_training_slides(method_class, make_training_slides) -> None:
    slides = [replace(slide, array_xy=slide.array_xy + 100) for slide in make_training_slides(n_slides=2)]
    method, run = small(method_class), Run()
    method.fit(slides, run)
    largest = max(slide.array_xy.max() for slide in slides)
    assert len(method.trained.x_embedding.weight) == largest + 1
    assert any(f"array positions reach {largest}" in note for note in run.notes)


@every_method
def test_positions_beyond_the_tables_take_the_last_row(
    method_class, make_training_slides, hide_expression, caplog
) -> None:
    slides = make_training_slides(n_slides=1, n_spots=5)
    method = small(method_class)
    method.fit(slides, Run())
    line = np.array([(61, 0), (62, 0), (63, 0), (63, 1), (63, 2)])
    beyond = line.copy()
    beyond[2] = (70, 0)  # same neighbours, three of the four being all others
    test = hide_expression(slides[0])
    inside = method.predict(replace(test, array_xy=line))
    assert "beyond" not in caplog.text
    assert "5 of 5 spots of slide S0 are at array positions that no training spot had" in caplog.text
    assert "(those are x 0 to 2 and y 0 to 1)" in caplog.text
    np.testing.assert_allclose(method.predict(replace(test, array_xy=beyond)), inside, atol=1e-5)
    assert "1 of 5 spots of slide S0 lie beyond array position 63" in caplog.text
    caplog.clear()
    method.predict(test)
    assert not caplog.records  # at the training spots' own positions there is nothing to tell


@every_method
def test_untrained_positions_matter_only_where_positions_are_learnt(
    method_class, make_training_slides, hide_expression, caplog
) -> None:
    slides = make_training_slides(n_slides=1, n_spots=5)
    method = small(method_class, positions="none")
    method.fit(slides, Run())
    test = hide_expression(slides[0])
    method.predict(replace(test, array_xy=test.array_xy + 90))
    assert "array position" not in caplog.text


@every_method
def test_negative_positions_are_refused(method_class, make_training_slides) -> None:
    slides = [replace(slide, array_xy=slide.array_xy - 1) for slide in make_training_slides(n_slides=1)]
    with pytest.raises(UserError, match="array position -1"):
        small(method_class).fit(slides, Run())


@every_method
def test_validation_slides_choose_the_epoch(method_class, make_training_slides) -> None:
    slides = make_training_slides(n_slides=4)
    history: list[Mapping[str, float]] = []
    run = Run(on_log=lambda epoch, values: history.append(values))
    method = small(method_class, validation_slides=1, epochs=4)
    method.fit(slides, run)
    (note,) = (note for note in run.notes if "validation slides" in note)
    held_out = note.rpartition(": ")[2]
    losses = [row["validation_loss"] for row in history]
    batch_losses = []
    for slide in slides:
        if slide.id == held_out:
            prediction = method.predict(slide)
            batch_losses.append(float(((prediction - slide.target) ** 2).mean()))
    if method_class is not Hist2ST:  # whose loss has further parts
        assert batch_losses == [pytest.approx(min(losses), rel=1e-4)]
    with pytest.raises(UserError, match="leaves none of 4 training slides"):
        small(method_class, validation_slides=4).fit(slides, Run())


@every_method
def test_prediction_starts_at_the_means_where_asked(method_class, make_training_slides) -> None:
    slides = make_training_slides(n_slides=2)
    method = small(method_class, start_at_mean=True, epochs=1, lr=1e-9)
    method.fit(slides, Run())
    expected = np.concatenate([slide.target for slide in slides]).mean(axis=0)
    np.testing.assert_allclose(method.trained.head[-1].bias.detach(), expected, atol=1e-4)


@every_method
def test_pixels_are_turned_and_scaled_as_configured(method_class) -> None:
    patches = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    turned = patches.float().transpose(2, 3)  # published patches have columns before rows
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = {"raw255": turned, "unit": turned / 255, "imagenet": (turned / 255 - mean) / std}
    for scale, images in expected.items():
        found = small(method_class, pixel_scale=scale).pixels(patches)
        if method_class is HisToGene:
            images = images.permute(0, 2, 3, 1).flatten(1)
        torch.testing.assert_close(found, images)


@every_method
def test_pixels_are_made_once_a_fit_where_they_have_room(method_class, make_training_slides, monkeypatch) -> None:
    """With the same numbers as where they have none; where they are augmented there is nothing to keep."""
    slides = make_training_slides(n_slides=3, n_spots=8)
    weights = {}
    for kept, augment in ((512 * 2**20, "none"), (0, "none"), (512 * 2**20, "d4")):
        monkeypatch.setattr(whole_slide, "KEPT_PIXELS", kept)
        calls = []
        method = small(method_class, epochs=3, augment=augment)
        made = method.pixels
        monkeypatch.setattr(
            method, "pixels", lambda patches, made=made, calls=calls: (calls.append(1), made(patches))[1]
        )
        for _ in range(2):  # each fit has pixels of its own
            method.fit(slides, Run())
        assert len(calls) == (6 if kept and augment == "none" else 18)
        weights[kept, augment] = method.trained.state_dict()
    for name, value in weights[512 * 2**20, "none"].items():
        assert torch.equal(value, weights[0, "none"][name])


@every_method
def test_windows_of_equal_micrometres_are_taken(method_class, make_training_slides) -> None:
    fine, coarse = make_training_slides(n_slides=2, side=32)
    fine, coarse = replace(fine, um_per_px=0.5), replace(coarse, um_per_px=1.0)
    method = small(method_class, patch_um=12.0)
    for slide, side in ((fine, 24), (coarse, 12)):
        window = method._field_of_view(slide).patches
        border = (32 - side) // 2
        np.testing.assert_array_equal(window, slide.patches[:, border : 32 - border, border : 32 - border])
    run = Run()
    method.fit([fine, coarse], run)
    (note,) = [note for note in run.notes if " px" in note]
    assert "patch_um = 12: the central 12 to 24 px of the dataset's windows of 32 px are used, resized to" in note
    assert np.isfinite(method.predict(fine)).all()
    with pytest.raises(UserError, match="patch_um = 20 is 40 px on slide S0"):
        small(method_class, patch_um=20.0).fit([fine], Run())
    with pytest.raises(UserError, match="no known resolution"):
        method.predict(replace(fine, um_per_px=None))


@every_method
def test_augmentation_is_for_training_alone(method_class, make_training_slides, hide_expression) -> None:
    *train, test = make_training_slides(n_slides=3)
    plain, augmented = small(method_class, augment="none"), small(method_class, augment="d4")
    for method in (plain, augmented):
        method.fit(train, Run())
    first, again = augmented.predict(hide_expression(test)), augmented.predict(hide_expression(test))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, plain.predict(hide_expression(test)))
