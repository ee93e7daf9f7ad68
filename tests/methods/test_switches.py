"""The registered switches: every variant of every method builds and trains, and does what its words say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stbench import registry
from stbench.data.targets import target
from stbench.errors import UserError
from stbench.method import Method, Run, TrainingSlide, configure
from stbench.switches import Switch, Variant, inference_fields, switches_of
from stbench.torch_method import TorchMethod

# one step of every network in seconds; what a switch itself sets comes on top of it
TINY = {
    "mclstexp": {"batch_size": 16, "input_px": 32, "n_positions": 64, "n_dimensions": 16, "heads": 2, "k": 5},
    "bleep": {"batch_size": 16, "input_px": 32, "n_dimensions": 16, "k": 5, "validation": "none"},
    "stnet": {"batch_size": 24, "input_px": 32},
    "histogene": {"input_px": 8, "width": 32, "heads": 2},
    "hist2st": {"input_px": 14, "channels": 8, "heads": 2},
    "thitogene": {
        **{"trunk": (2, 2, 2), "capsules": 2, "capsule_width": 4, "graph_heads": 2, "graph_widths": (4, 4)},
        **{"mlp_width": 16, "heads": 2, "head_width": 8},
    },
}
OTHER_VALUES = {
    **{"k": 2, "distance": "l1", "aggregation": "inverse-square", "augment_at_test": True},
    **{"tta": "none", "predict_from": "zinb_mean"},
}


def variants_of(switch: Switch) -> Iterator[Variant]:
    """Of all presets, each once."""
    seen: list[Any] = []
    for variant in (*switch.variants, *(one for some in switch.under.values() for one in some)):
        if (variant.changes, variant.target) not in seen:
            seen.append((variant.changes, variant.target))
            yield variant


REGISTERED = [
    pytest.param(name, variant, id=f"{name}-{switch.name}-{variant.name}")
    for name in registry.method_names()
    for switch in switches_of(registry.method(name))
    for variant in variants_of(switch)
]


def tiny(name: str, **changes: Any) -> TorchMethod:
    method: Any = registry.method(name)
    fields = {"epochs": 1, "weights": "random"} | TINY[name] | changes
    fields = {
        field: value for field, value in fields.items() if field in method.Config.model_fields or field in changes
    }
    return method(configure(method, "quick", changes=fields))


@pytest.fixture(scope="module")
def slides(make_training_slides: Callable[..., list[TrainingSlide]]) -> list[TrainingSlide]:
    return make_training_slides(n_slides=2, n_spots=12, n_genes=5)


@pytest.mark.parametrize(("name", "variant"), REGISTERED)
def test_every_registered_variant_takes_a_training_step(
    name: str, variant: Variant, slides: list[TrainingSlide], hide_expression: Callable
) -> None:
    configure(registry.method(name), "published", changes=variant.changes)  # its settings exist at full size too
    if variant.target is not None:
        assert target(variant.target).name == variant.target
    method = tiny(name, **variant.changes)
    method.fit(slides, Run())
    assert len(method.history) == 1
    assert np.isfinite(method.history[0]["loss"])
    prediction = method.predict(hide_expression(slides[0]))
    assert prediction.shape == slides[0].target.shape
    assert np.isfinite(prediction).all()


def test_each_of_the_six_methods_has_switches() -> None:
    methods = [name for name in registry.method_names() if registry.method(name).kind == "method"]
    assert set(TINY) <= {name for name in methods if switches_of(registry.method(name))}


def test_mclstexp_has_every_table_and_figure_of_the_supplement() -> None:
    found = {switch.answers: switch for switch in switches_of(registry.method("mclstexp"))}
    names = {answers: [variant.name for variant in found[answers].variants] for answers in found}
    assert names["Table S4"] == ["none", "sinusoidal", "naive", "learnable"]
    assert names["Table S5"] == ["ResNet-18", "ResNet-50", "ResNet-101", "ViT", "DenseNet-121"]
    assert names["Table S6"] == ["cosine", "L1", "L2"]
    assert names["Table S7"] == ["λ = 0", "λ = 0.5", "λ = 1"]
    assert names["Figure S4"] == ["k = 1", "k = 200", "k = 400", "k = 600", "k = 800", "k = 1000"]
    ticks = [variant.changes["k"] for variant in found["Figure S4"].of("published", "alex10x")]
    assert ticks == [1, *range(400, 3201, 400)]


@pytest.mark.parametrize("name", sorted(TINY))
def test_switches_are_named_once_and_say_what_they_change(name: str) -> None:
    method = registry.method(name)
    assert switches_of(method)
    for switch in switches_of(method):
        for variants in (switch.variants, *switch.under.values()):
            assert len({variant.name for variant in variants}) == len(variants)
        assert all(variant.words for variant in variants_of(switch))


def test_no_word_of_a_switch_is_part_of_a_trials_key() -> None:
    """Or a corrected word would run every finished trial again."""
    for name in TINY:
        text = Path(__file__).parents[2].joinpath("methods", f"{name}.py").read_text(encoding="utf-8")
        assert "import SWITCHES" not in text
        assert "from .switches" not in text


def test_two_switches_of_one_name_are_refused() -> None:
    class Twice:
        name = "twice"
        switches = (Switch("a", "A", ()), Switch("a", "B", ()))

    undeclared: Any = Twice
    with pytest.raises(UserError, match="twice has two switches of one name"):
        switches_of(undeclared)


# Inference ----------------------------------------------------------------------------------------------------------

MARKED = [
    (name, field)
    for name in registry.method_names()
    for field in sorted(inference_fields(registry.method(name)))
    if name in TINY
]


@pytest.mark.parametrize(("name", "field"), MARKED)
def test_a_marked_setting_is_looked_at_by_prediction_alone(
    name: str, field: str, slides: list[TrainingSlide], hide_expression: Callable, tmp_path: Path
) -> None:
    # a plain mean of neighbours would not show that their distances changed
    changes = {"aggregation": "inverse-square"} if name == "bleep" and field in ("distance", "augment_at_test") else {}
    trained, own = tiny(name, **changes), tiny(name, **changes, **{field: OTHER_VALUES[field]})
    for method in (trained, own):
        method.fit(slides, Run())
    before = trained.predict(hide_expression(slides[0]))
    trained.save(tmp_path)
    loaded: Any = type(trained).load(tmp_path)
    loaded.reconfigure(own.config, Run())
    after = loaded.predict(hide_expression(slides[0]))
    np.testing.assert_array_equal(after, own.predict(hide_expression(slides[0])))
    assert not np.array_equal(after, before)


def test_marked_are_the_settings_of_retrieval_of_the_symmetries_and_of_the_head_that_predicts() -> None:
    assert {(name, field) for name, field in MARKED if name in ("stnet", "hist2st")} == {
        ("stnet", "tta"),
        ("hist2st", "predict_from"),
    }


def test_the_symmetries_are_part_of_a_training_whose_epoch_their_predictions_choose() -> None:
    stnet = registry.method("stnet")
    assert inference_fields(stnet, configure(stnet, changes={"select": "inner_cv"})) == frozenset()


def test_a_reused_model_says_on_which_scale_it_predicts(slides: list[TrainingSlide]) -> None:
    method = fitted("hist2st", slides)
    run = Run()
    method.reconfigure(method.config.model_copy(update={"predict_from": "zinb_mean"}), run)
    assert run.notes == [
        "predict_from = zinb_mean: predictions are on the scale log10(1 + 10,000 * share of the panel)"
    ]


def test_a_reused_model_says_that_there_are_fewer_keys_than_neighbours(
    slides: list[TrainingSlide], tmp_path: Path
) -> None:
    for name in ("bleep", "mclstexp"):
        method = tiny(name)
        method.fit(slides, Run())
        run = Run()
        method.reconfigure(method.config.model_copy(update={"k": 1000}), run)
        assert run.notes == [f"{name}: k = 1000, and there are 24 training spots: all of them are averaged"]


# What the words promise ---------------------------------------------------------------------------------------------

NEW_SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("mclstexp", {"objective": "regression"}),
    ("mclstexp", {"freeze_encoder": True}),
    ("mclstexp", {"expression": "none"}),
    ("stnet", {"trained_parts": 1}),
    ("histogene", {"positions": "none"}),
    ("hist2st", {"n_graph_layers": 0}),
    ("thitogene", {"convolution": "plain", "patch_features": "pooled"}),
    ("thitogene", {"graph": "self"}),
]


@pytest.mark.parametrize(("name", "changes"), NEW_SETTINGS)
def test_a_variant_that_is_saved_predicts_the_same(
    name: str, changes: dict[str, Any], slides: list[TrainingSlide], hide_expression: Callable, tmp_path: Path
) -> None:
    method = fitted(name, slides, **changes)
    method.save(tmp_path)
    again: Method = type(method).load(tmp_path)
    seen = hide_expression(slides[0])
    np.testing.assert_array_equal(again.predict(seen), method.predict(seen))


def fitted(name: str, slides: list[TrainingSlide], **changes: Any) -> TorchMethod:
    method = tiny(name, **changes)
    method.fit(slides, Run())
    return method


def moved(slides: list[TrainingSlide]) -> list[TrainingSlide]:
    return [replace(slide, array_xy=slide.array_xy[::-1].copy()) for slide in slides]


def network_of(method: TorchMethod) -> torch.nn.Module:
    assert method.trained is not None
    return method.trained


@pytest.mark.parametrize(
    ("name", "part", "changes"),
    [
        ("mclstexp", "image_encoder", {"freeze_encoder": True}),
        ("stnet", "encoder", {"freeze_trunk": True}),
    ],
)
def test_a_frozen_encoder_keeps_its_weights(
    name: str, part: str, changes: dict[str, Any], slides: list[TrainingSlide]
) -> None:
    """However long it trains, it is what it started as: the same seed starts with the same weights."""
    short, long = (network_of(fitted(name, slides, epochs=epochs, **changes)).state_dict() for epochs in (1, 3))
    assert any(key.startswith(f"{part}.") for key in short)
    for key in short:
        if key.startswith(f"{part}."):
            torch.testing.assert_close(short[key], long[key], rtol=0, atol=0)
    assert any(not torch.equal(short[key], long[key]) for key in short)


def test_trained_parts_leaves_the_first_parts_as_they_were(slides: list[TrainingSlide]) -> None:
    from stbench.methods.stnet import parts_of

    short, long = (network_of(fitted("stnet", slides, epochs=n, trained_parts=1)) for n in (1, 3))
    pairs = list(zip(parts_of(short.encoder), parts_of(long.encoder), strict=True))  # type: ignore[arg-type]
    changed = [
        any(not torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
        for one, two in pairs
    ]
    assert len(changed) > 2
    assert changed == [False] * (len(changed) - 1) + [True]


@pytest.mark.parametrize("name", ["histogene", "thitogene", "hist2st"])
def test_without_position_tables_only_the_graph_knows_where_a_spot_is(
    name: str, slides: list[TrainingSlide], hide_expression: Callable
) -> None:
    method = fitted(name, slides, positions="none")
    for key, value in network_of(method).state_dict().items():
        if key.startswith(("x_embedding", "y_embedding")):
            assert not value.any()
    if name == "histogene":  # it has no graph
        here, there = (method.predict(hide_expression(some[0])) for some in (slides, moved(slides)))
        np.testing.assert_array_equal(here, there)


def test_with_positions_the_same_move_changes_a_prediction(
    slides: list[TrainingSlide], hide_expression: Callable
) -> None:
    method = fitted("histogene", slides)
    here, there = (method.predict(hide_expression(some[0])) for some in (slides, moved(slides)))
    assert not np.allclose(here, there)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("thitogene", {"graph": "self", "n_layers": 0}),
        ("hist2st", {"n_graph_layers": 0, "n_layers": 0}),
        ("histogene", {"n_layers": 0}),
    ],
)
def test_without_graph_and_transformer_a_spot_is_predicted_from_itself(
    name: str, changes: dict[str, Any], slides: list[TrainingSlide], hide_expression: Callable
) -> None:
    method = fitted(name, slides, **changes)
    seen = hide_expression(slides[0])
    patches = seen.patches.copy()
    patches[1:] = 255 - patches[1:]
    np.testing.assert_allclose(method.predict(replace(seen, patches=patches))[0], method.predict(seen)[0], atol=1e-5)


def test_regression_neither_retrieves_nor_looks_at_positions(
    slides: list[TrainingSlide], hide_expression: Callable
) -> None:
    method = fitted("mclstexp", slides, objective="regression")
    assert method.extras == {}
    there = fitted("mclstexp", moved(slides), objective="regression")
    seen = hide_expression(slides[0])
    np.testing.assert_array_equal(method.predict(seen), there.predict(seen))


def test_without_expression_the_keys_are_those_of_the_positions(slides: list[TrainingSlide]) -> None:
    """The two slides have the same grid of positions, so their keys are the same, whatever they express."""
    keys = fitted("mclstexp", slides, expression="none").extras["keys"]
    torch.testing.assert_close(keys[:12], keys[12:])
    assert not torch.equal(keys[0], keys[1])
    with_expression = fitted("mclstexp", slides).extras["keys"]
    assert not torch.allclose(with_expression[:12], with_expression[12:])


@pytest.mark.parametrize(
    ("name", "changes", "both"),
    [
        ("stnet", {"freeze_trunk": True, "trained_parts": 1}, ("freeze_trunk = true", "trained_parts = 1")),
        ("thitogene", {"graph": "self", "self_loops": True}, ("graph = self", "self_loops = true")),
    ],
)
def test_settings_that_contradict_each_other_are_refused_by_name(
    name: str, changes: dict[str, Any], both: tuple[str, str]
) -> None:
    with pytest.raises(UserError) as caught:
        tiny(name, **changes)
    message = str(caught.value)
    assert message.startswith(f"{name}: ")
    assert all(setting in message for setting in both)
    assert message.endswith(f"see 'stbench methods show {name}'")
    for setting in changes:  # each of the two alone is fine
        tiny(name, **{setting: changes[setting]})


@pytest.mark.parametrize(("name", "base"), [("stnet", {"freeze_trunk": True}), ("stnet", {"trained_parts": 1})])
def test_a_switch_sets_aside_what_would_contradict_it(name: str, base: dict[str, Any]) -> None:
    method = registry.method(name)
    variants = [variant for switch in switches_of(method) for variant in variants_of(switch)]
    affected = [variant for variant in variants if set(variant.changes) & {"freeze_trunk", "trained_parts"}]
    assert len(affected) > 2
    for variant in affected:
        config = configure(method, "quick", changes=base | dict(variant.changes))
        assert (config.freeze_trunk, config.trained_parts) == (
            variant.changes["freeze_trunk"],
            variant.changes["trained_parts"],
        )


def test_more_trained_parts_than_there_are_is_refused(slides: list[TrainingSlide]) -> None:
    with pytest.raises(UserError, match=r"stnet.trained_parts = 99, and test_resnet has \d+ parts"):
        fitted("stnet", slides, trained_parts=99)


def test_spots_without_expression_and_position_are_refused() -> None:
    with pytest.raises(UserError, match="or all spots are the same"):
        tiny("mclstexp", expression="none", position_encoding="none")
