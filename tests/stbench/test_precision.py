"""Precision: what may be asked for, of whom, and what becomes of it in keys, flags, tables and reports."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from stbench import registry
from stbench.errors import UserError
from stbench.methods.controls import TrainingMean
from stbench.methods.hist2st import Hist2ST
from stbench.results.record import trial_specs
from stbench.results.summary import collect
from stbench.system.precision import (
    exact_products,
    float32,
    no_autocast,
    require_capable,
    tf32_allowed,
    tf32_flags,
    tf32_used,
)
from stbench.training import augment
from stbench.training.precision import require_safe, resolve_precision, safe_precisions
from stbench.trials.spec import TrialSpec

PROBE = f"{Path(__file__).with_name('probe_method.py')}:Probe"
FOLDS = ("--dataset", "demo", "--slices", "P1a,P1b,P2a", "--no-mlflow")


class Declared:
    """As much of a method as precision looks at."""

    name = "declared"
    kind = "method"
    safe_precisions = frozenset({"tf32"})


class Silent:
    name = "silent"
    kind = "method"


# What is asked for ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuda", [True, False])
def test_auto_is_fp32_whatever_the_machine_has(monkeypatch, cuda):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert resolve_precision("auto") == "fp32"
    assert resolve_precision("auto", Declared) == "fp32"


def test_what_is_asked_for_is_taken_by_methods_and_not_by_controls():
    assert [resolve_precision(name, Declared) for name in ("fp32", "tf32", "bf16")] == ["fp32", "tf32", "bf16"]
    assert {resolve_precision(name, TrainingMean) for name in ("fp32", "tf32", "bf16")} == {"fp32"}


def test_unknown_precisions_are_refused():
    with pytest.raises(UserError, match="unknown precision 'fp16'"):
        resolve_precision("fp16")


def test_fp32_is_always_safe_and_nothing_else_without_a_word():
    assert safe_precisions(Silent) == ("fp32",)
    assert safe_precisions(Declared) == ("fp32", "tf32")


def test_every_method_that_refuses_is_named_in_one_line():
    require_safe([Silent, Declared, TrainingMean], "auto")
    require_safe([Declared, TrainingMean], "tf32")
    with pytest.raises(UserError) as refused:
        require_safe([Silent, Declared, TrainingMean], "bf16")
    assert "silent (fp32), declared (fp32 and tf32):" in str(refused.value)
    assert "training_mean" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_a_device_cannot_do_is_refused(monkeypatch):
    require_capable("fp32", "cpu")
    require_capable("bf16", "cpu")
    with pytest.raises(UserError, match="cpu has no TF32"):
        require_capable("tf32", "cpu")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    for precision in ("tf32", "bf16"):
        with pytest.raises(UserError, match=r"A card .* use --precision fp32"):
            require_capable(precision, "cuda:0")
    assert tf32_used("fp32", "cuda:0") == ()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    require_capable("tf32", "cuda:0")
    assert tf32_used("fp32", "cuda:0") == ("convolutions",)
    assert tf32_used("tf32", "cuda:0") == ("convolutions", "products")
    assert tf32_used("tf32", "cpu") == ()


# Torch's flags --------------------------------------------------------------------------------------------------------


def flags() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_fp32_is_what_a_fresh_torch_does():
    assert flags() == (True, False)
    assert tf32_allowed("fp32") == ("convolutions",)


@pytest.mark.parametrize("before", [(True, False), (False, True)])
@pytest.mark.parametrize(("precision", "inside"), [("fp32", (True, False)), ("tf32", (True, True))])
def test_flags_are_set_and_put_back_whatever_happens(before, precision, inside):
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
    try:
        with tf32_flags(precision):
            assert flags() == inside
            with exact_products(torch.device("cpu")):
                assert flags() == (True, False)
            assert flags() == inside
        assert flags() == before
        with contextlib.suppress(ZeroDivisionError), tf32_flags(precision):
            raise ZeroDivisionError
        assert flags() == before
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = True, False


def test_what_stays_in_float32_does_under_autocast():
    a = torch.randn(8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        half = a @ a
        with no_autocast(a.device):
            whole = float32(half) @ a
    assert half.dtype == torch.bfloat16
    assert whole.dtype == torch.float32
    assert float32(a.double()).dtype == torch.float64


def test_rotation_moves_every_pixel_under_autocast_where_it_does_without():
    """In bf16 a fifth of the pixels came from a place one pixel off."""
    images = torch.rand(16, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    angles = torch.linspace(-170, 175, 16)
    exact = augment.rotate_by(images, angles)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment.rotate_by(images, angles), exact)


# Trials, tables and reports -------------------------------------------------------------------------------------------


def specs(results: Path) -> list[TrialSpec]:
    return list(trial_specs(results).values())


def test_trials_of_another_precision_have_other_keys_and_stand_beside(tmp_path: Path, stbench_command: Callable):
    """One of them used to win silently: both had the precision ``auto``."""
    run = ("run", "--methods", f"{PROBE},training_mean", *FOLDS, "--out", tmp_path)
    assert stbench_command(*run).code == 0
    done = stbench_command(*run, "--precision", "bf16", "--allow-unsafe-precision")
    assert done.code == 0
    assert "bf16 is not known to be safe for probe" in done.out
    assert "probe (bf16)" in done.out
    found = collect(tmp_path)
    assert (found["state"] == "finished").all()
    assert dict(found.groupby("precision")["key"].nunique()[["fp32", "bf16"]]) == {"fp32": 6, "bf16": 3}
    assert set(found.loc[found["method"] == "training_mean", "precision"]) == {"fp32"}  # ran once, for both
    assert set(found["tf32"]) == {""}  # a CPU has none
    for spec in specs(tmp_path):
        state = json.loads((tmp_path / "trials" / spec.key / "state.json").read_text())
        assert (state["precision"], state["tf32"]) == (spec.precision, [])
        noted = any("does not declare safe" in note for note in state["notes"])
        assert noted == (spec.precision == "bf16")
    assert stbench_command(*run).code == 0  # nothing is run again, and nothing is lost
    assert len(collect(tmp_path)) == len(found)


@pytest.mark.usefixtures("unsaved_pictures")
def test_a_report_says_which_methods_computed_in_what(tmp_path: Path, stbench_command: Callable):
    run = ("run", "--methods", PROBE, *FOLDS, "--out", tmp_path)
    for words in ((), ("--precision", "bf16", "--allow-unsafe-precision")):
        assert stbench_command(*run, *words).code == 0
    assert stbench_command("report", tmp_path).code == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Several precisions in one table" in page
    assert "Probe (bf16)" in page
    assert "which the method does not declare safe" in page
    board = pd.read_csv(next((tmp_path / "report").rglob("*-trials.csv")))
    assert {"precision", "tf32"} <= set(board.columns)


def test_an_unsafe_precision_is_refused_before_anything_runs(tmp_path: Path, stbench_command: Callable):
    done = stbench_command(
        "run", "--methods", f"training_mean,{PROBE}", *FOLDS, "--precision", "bf16", "--out", tmp_path / "r"
    )
    assert done.code == 2
    (line,) = (line for line in done.err.splitlines() if line.strip())
    assert "bf16 is not known to be safe for probe (fp32)" in line
    assert "--allow-unsafe-precision" in line
    assert not (tmp_path / "r").exists()


def test_the_flags_are_part_of_the_key(tmp_path: Path, stbench_command: Callable, monkeypatch):
    assert stbench_command("run", "--methods", PROBE, *FOLDS, "--out", tmp_path).code == 0
    spec = specs(tmp_path)[0]
    before = spec.key
    monkeypatch.setattr("stbench.trials.spec.tf32_allowed", lambda precision: ())
    assert replace(spec).key != before


def test_a_method_finds_the_flags_of_its_trial(tmp_path: Path, stbench_command: Callable, monkeypatch):
    """Also one that knows nothing of them."""
    seen = []
    probe = registry.method(PROBE)
    monkeypatch.setattr(
        probe, "fit", lambda self, slides, run, fit=probe.fit: (seen.append(flags()), fit(self, slides, run))
    )
    torch.backends.cuda.matmul.allow_tf32 = True  # somebody's in this process
    try:
        assert stbench_command("run", "--methods", PROBE, *FOLDS, "--out", tmp_path).code == 0
        assert flags() == (True, True)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
    assert set(seen) == {(True, False)}


def test_torch_methods_train_and_predict_under_the_flags_of_their_precision(make_training_slides, hide_expression):
    from stbench.method import Run, configure

    seen = []

    class Watched(Hist2ST):
        def loss(self, network, batch):
            seen.append(flags())
            return super().loss(network, batch)

        def predict_batch(self, network, batch):
            seen.append(flags())
            return super().predict_batch(network, batch)

    small = {"epochs": 1, "channels": 8, "n_layers": 1, "heads": 2, "input_px": 14}
    slides = make_training_slides(n_slides=1, n_spots=9)
    method = Watched(configure(Hist2ST, "quick", changes=small))
    method.fit(slides, Run(precision="tf32"))
    method.predict(hide_expression(slides[0]))
    assert set(seen) == {(True, True)}
    assert flags() == (True, False)
