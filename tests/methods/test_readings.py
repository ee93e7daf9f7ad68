"""The three readings of the six methods: the specifications' values, each difference with its source."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from stbench import registry
from stbench.data.targets import TARGETS
from stbench.method import MethodConfig, configure
from stbench.readings import READINGS, TARGET, Source, compare, has_preset, readings_of, target_of

METHODS = ("stnet", "histogene", "hist2st", "thitogene", "bleep", "mclstexp")
DATASETS = ("her2st", "cscc", "alex10x")
every_method = pytest.mark.parametrize("name", METHODS)


def config(name: str, preset: str, dataset: str) -> MethodConfig:
    return configure(registry.method(name), preset, dataset)


def differing(name: str, dataset: str, reading: str) -> dict[str, Any]:
    """Settings of a reading that are not the recommended ones, the target among them."""
    rows = compare(registry.method(name), dataset)
    return {row.setting: row.values[reading] for row in rows if row.values[reading] != row.values["published"]}


@every_method
def test_every_method_has_all_three_readings(name: str) -> None:
    assert all(has_preset(registry.method(name), preset) for preset in READINGS)


@every_method
@pytest.mark.parametrize("dataset", ["", *DATASETS])
@pytest.mark.parametrize("reading", READINGS[1:])
def test_every_difference_says_where_it_stands(name: str, dataset: str, reading: str) -> None:
    for row in compare(registry.method(name), dataset):
        if row.values[reading] != row.values["published"]:
            assert getattr(row.source, reading), f"{name}.{row.setting} under {reading} has no source"


@every_method
def test_sources_are_of_settings_that_differ_somewhere(name: str) -> None:
    method = registry.method(name)
    readings = readings_of(method)
    assert readings is not None
    assert set(readings.sources) <= {TARGET, *method.Config.model_fields}
    differ = {row.setting for dataset in ("", *DATASETS) for row in compare(method, dataset) if row.differs}
    assert set(readings.sources) == differ
    assert set(readings.targets.values()) <= set(TARGETS)
    assert all(one.released or one.paper for one in readings.beyond)


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("stnet", "her2st", {"target": "stnet-logfreq", "select": "inner_cv", "padding": "black"}),
        ("histogene", "her2st", {}),
        ("histogene", "cscc", {"emulate_skin_bug": True}),
        ("hist2st", "her2st", {}),
        ("hist2st", "cscc", {}),
        ("thitogene", "her2st", {}),
        ("thitogene", "cscc", {}),
        (
            "bleep",
            "cscc",
            {
                "target": "lognorm",
                "epochs": 4,
                "batch_size": 256,
                "accumulate": 1,
                "pixels": "bgr-255",
                "augment_at_test": True,
                "reshuffle": False,
            },
        ),
        (
            "mclstexp",
            "her2st",
            {
                "target": "gene-log10-cp10k",
                "expression": "spot-log10-cp10k",
                "distance": "l1",
                "key_context": "straddling-test",
            },
        ),
        (
            "mclstexp",
            "cscc",
            {
                "target": "gene-log10-cp10k",
                "expression": "spot-log10-cp10k",
                "k": 600,
                "key_context": "straddling-test",
            },
        ),
        (
            "mclstexp",
            "alex10x",
            {
                "target": "gene-log10-cp10k",
                "epochs": 90,
                "pixels": "bgr-255",
                "augmentation": "flip-quarter-turns",
                "augment_at_test": True,
                "key_context": "straddling-test",
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_released_code_has_instead(name: str, dataset: str, expected: dict[str, Any]) -> None:
    assert differing(name, dataset, "released") == expected


@pytest.mark.parametrize(
    ("name", "dataset", "expected"),
    [
        ("stnet", "cscc", {}),
        ("histogene", "alex10x", {"patch_px": 224}),
        (
            "hist2st",
            "her2st",
            {"patch_px": 224, "include_self": True, "predict_from": "zinb_mean", "zinb_scale": "ln-cpm"},
        ),
        (
            "thitogene",
            "cscc",
            {"patch_px": 224, "epochs": 200, "n_layers": 4, "gat_softmax": "neighbours", "self_loops": True},
        ),
        ("bleep", "her2st", {"epochs": 150}),
        ("mclstexp", "her2st", {"optimiser": "adamw", "normalise": True, "key_chunk": 128}),
        ("mclstexp", "alex10x", {"optimiser": "adamw", "normalise": True, "key_chunk": 128, "k": 2400}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_the_text_has_instead(name: str, dataset: str, expected: dict[str, Any]) -> None:
    assert differing(name, dataset, "paper") == {"target": "spot-ln-cpm"} | expected


def test_per_dataset_settings_of_the_recommended_reading_stand_in_the_others_too() -> None:
    """What a dataset needs to run at all: long position tables on Visium, pruning on HER2+."""
    for preset in READINGS:
        assert config("histogene", preset, "alex10x").n_pos == 128
        assert config("hist2st", preset, "her2st").prune == "grid"
        assert config("mclstexp", preset, "alex10x").coordinates == "pixel"


def test_a_method_without_published_code_has_no_reading_but_the_recommended_one() -> None:
    control = registry.method("training_mean")
    assert readings_of(control) is None
    assert target_of(control, "released", "her2st") is None
    assert [list(row.values) for row in compare(control)] == [["published"]]


def test_a_setting_without_a_source_has_an_empty_one() -> None:
    rows = {row.setting: row for row in compare(registry.method("bleep"))}
    assert rows["lr"].source == Source()
    assert not rows["lr"].differs
    assert rows["epochs"].differs


# As a user sees them --------------------------------------------------------------------------------------------------


def test_the_comparison_prints_what_differs_with_its_place_and_then_the_rest(stbench_command: Callable) -> None:
    shown = stbench_command("methods", "show", "mclstexp", "--dataset", "cscc", "--compare").out
    assert re.search(r"^k +200 +600 +200 *$", shown, re.MULTILINE)
    assert re.search(r"^target +spot-log10-cp10k +gene-log10-cp10k +spot-ln-cpm *$", shown, re.MULTILINE)
    assert not re.search(r"^distance ", shown, re.MULTILINE)  # L1 is the script's for HER2+ alone
    text = " ".join(shown.split())
    assert "the same in all: epochs = 90, lr = 0.0001" in text
    assert "evaluation scripts: 200, 600 on cSCC, 200" in text
    assert "a leak" in text
    assert text.index("source or reason") < text.index("the same in all") < text.index("no setting for")


def test_the_settings_show_what_the_released_code_has_beside_what_is_recommended(stbench_command: Callable) -> None:
    shown = " ".join(stbench_command("methods", "show", "bleep", "--dataset", "her2st").out.split())
    assert "released: bgr-255" in shown
    assert "released: 4 " in shown
    assert "spot-log10-cp10k released: lognorm" in shown
    assert "published: imagenet" in " ".join(
        stbench_command("methods", "show", "bleep", "--preset", "released").out.split()
    )


def test_what_has_no_readings_says_so_in_one_line(stbench_command: Callable) -> None:
    done = stbench_command("methods", "show", "training_mean", "--compare")
    assert done.code == 2
    assert "training_mean has no released code and no text to compare with" in done.err
