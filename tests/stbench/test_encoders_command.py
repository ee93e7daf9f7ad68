"""``stbench encoders``, and runs with encoders of its table: weights of files and of the cache, never of a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pandas as pd
import pytest
import torch
from published_layouts import small
from safetensors.torch import save_file

from stbench.cli.method_choices import choose_methods, require_weights
from stbench.errors import UserError
from stbench.method import Run
from stbench.results.plan import described_once
from stbench.training import pretrained
from stbench.training.encoders import build_encoder, load_weights, require_encoders, weights_label
from stbench.training.foundation import table
from stbench.training.foundation.build import build
from stbench.training.foundation.table import PublishedEncoder, published_encoders
from stbench.trials.spec import TrialSpec

ROWS = published_encoders()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of the hub; whoever asks a server fails the test."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(pretrained, "_answer", lambda url: pytest.fail(f"{url} was asked"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "hub"


def put(cache: Path, folder: str, file: str) -> Path:
    """Where a file of a repository lies in the cache."""
    (cache / folder / "refs").mkdir(parents=True)
    (cache / folder / "refs" / "main").write_text("0123", encoding="utf-8")
    path = cache / folder / "snapshots" / "0123" / file
    path.parent.mkdir(parents=True)
    return path


def test_all_encoders_are_listed_with_licence_gating_and_whether_they_saw_tcga(
    stbench_command: Callable, cache: Path
) -> None:
    lines = stbench_command("encoders", "list").out.split("\n")
    for row in ROWS.values():
        (line,) = [line for line in lines if line.split(" ")[0] == row.name]
        assert row.licence in line
        words = line.rstrip().removesuffix(row.licence).split()
        assert words[-1] == "no"  # its weights are not here
        assert words[-2] == row.gated
    listed = json.loads(stbench_command("encoders", "list", "--json").out)
    assert [each["name"] for each in listed] == list(ROWS)
    uni = next(each for each in listed if each["name"] == "uni")
    assert (uni["tcga"], uni["gated"], uni["features"], uni["weights_here"]) == ("no", "yes", 1024, None)


def test_one_is_shown_with_what_it_is_fed_and_where_its_weights_are(stbench_command: Callable, cache: Path) -> None:
    path = put(cache, "models--prov-gigapath--prov-gigapath", "pytorch_model.bin")
    path.write_bytes(b"weights")
    shown = stbench_command("encoders", "show", "prov-gigapath").out
    for words in (
        "resized to 256 px, bicubic, of which the centre of 224 px",
        "research only",
        "1,134,953,984",
        str(path),
    ):
        assert words in shown
    assert json.loads(stbench_command("encoders", "show", "conch", "--json").out)["input_px"] == 448
    wrong = stbench_command("encoders", "show", "unii")
    assert (wrong.code, wrong.err.count("\n")) == (2, 1)
    assert "did you mean 'uni'" in wrong.err


def test_weights_that_are_missing_are_told_with_place_licence_and_option_and_never_asked_for(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        require_encoders([("uni", "pretrained")])
    message = str(caught.value)
    for words in (
        "the weights of uni are not in the Hugging Face cache",
        "access on request; licence: CC-BY-NC-ND-4.0",
        "https://huggingface.co/MahmoodLab/UNI (pytorch_model.bin)",
        "--encoders uni@PATH or --weights PATH",
        "such weights are never downloaded",
    ):
        assert words in message
    assert "\n" not in message
    with pytest.raises(UserError, match="uni has no weights of ImageNet") as caught:
        require_encoders([("uni", "imagenet")])
    with pytest.raises(UserError, match="2 encoders cannot be had") as caught:
        require_encoders([("uni", "pretrained"), ("chief-ctranspath", "pretrained")])
    assert "https://huggingface.co/datasets/MahmoodLab/hest-bench" in str(caught.value)


def test_weights_of_the_cache_are_loaded_and_labelled_by_encoder_file_and_digest(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = small(ROWS["h0-mini"])
    monkeypatch.setattr(table, "published_encoders", lambda: {**ROWS, "h0-mini": row})
    donor, _ = build(row)
    save_file(donor.state_dict(), put(cache, "models--bioptimus--H0-mini", "model.safetensors"))
    require_encoders([("h0-mini", "pretrained")])
    encoder = build_encoder("h0-mini", "pretrained")
    assert encoder.label.startswith("h0-mini (model.safetensors ")
    assert encoder.label == weights_label("h0-mini", "pretrained")
    assert torch.equal(encoder.module.pos_embed, donor.pos_embed)  # type: ignore[arg-type]
    assert build_encoder("resnet18", "random").label == "random"
    assert weights_label("densenet121", "pretrained") == "imagenet (densenet121-a639ec97)"


def test_a_file_read_under_a_plain_networks_name_says_whose_it_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run()
    module = build_encoder("resnet50").module
    torch.save(module.state_dict(), tmp_path / "best_ckpt.pth")
    load_weights(module, "resnet50", str(tmp_path / "best_ckpt.pth"), run)
    (note,) = run.notes
    assert note.startswith("best_ckpt.pth is read as weights of the plain network resnet50")
    assert "if it is that of retccl, name that encoder instead" in note


def test_an_encoder_of_the_table_brings_its_weights_and_its_size_of_images_where_nothing_else_was_asked_for() -> None:
    def settings(*changes: str, weights: str | None = None, encoders: str | None = "uni") -> tuple:
        (choice,) = choose_methods("feature_ridge", "quick", "demo", list(changes), weights, encoders)
        config = choice.config
        return config.encoder, config.weights, config.input_px  # type: ignore[attr-defined]

    assert settings() == ("uni", "pretrained", None)
    assert settings(weights="random") == ("uni", "random", None)
    assert settings(encoders="uni@u.pth") == ("uni", "u.pth", None)
    assert settings("feature_ridge.input_px=64") == ("uni", "pretrained", 64)
    assert settings("feature_ridge.encoder=uni", encoders=None) == ("uni", "pretrained", None)
    assert settings(encoders=None) == ("resnet18", "random", 64)
    assert settings(encoders="resnet34") == ("resnet34", "random", 64)
    (choice,) = choose_methods("bleep", "published", "demo", [], None, "virchow2")
    assert (choice.config.weights, choice.config.input_px) == ("pretrained", None)  # type: ignore[attr-defined]
    assert choice.changes == {"encoder": "virchow2"}


def test_an_encoder_of_one_size_is_refused_before_the_run_where_it_would_be_given_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stbench.training.encoders.require_encoders", lambda wanted: None)

    def require(method: str, *changes: str) -> None:
        choices = choose_methods(method, "quick", "demo", list(changes), "random", "ctranspath")
        require_weights(*(choice.config for choice in choices))

    with pytest.raises(UserError, match="ctranspath takes images of 224 px, and would be given 40 px - add --set"):
        require("stnet")
    require("stnet", "stnet.input_px=224")
    require("feature_ridge")


def test_a_mended_row_makes_other_trials_and_another_licence_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (choice,) = choose_methods("feature_ridge", "published", "demo", [], "random", "uni")
    (plain,) = choose_methods("feature_ridge", "published", "demo", [], "random", None)
    row = ROWS["uni"]
    assert described_once(plain)["encoder"] == ""
    assert described_once(choice)["encoder"] == row.digest
    changed: dict[str, dict[str, object]] = {"mean": {"mean": (0.5, 0.5, 0.5)}, "licence": {"licence": "MIT"}}
    digests = {}
    for name, update in changed.items():
        other = PublishedEncoder(**{**row.model_dump(), **update})
        monkeypatch.setattr(table, "published_encoders", lambda other=other: {**ROWS, "uni": other})
        digests[name] = described_once(choice)["encoder"]
    assert digests["mean"] != row.digest == digests["licence"]


def test_a_run_takes_an_encoder_from_a_local_file(tmp_path: Path, stbench_command: Callable, cache: Path) -> None:
    """Of full size: 22 million weights, on small images."""
    torch.save(build_encoder("lunit-vits16").module.state_dict(), tmp_path / "dino_vit_small_patch16_ep200.torch")
    done = stbench_command(
        *("run", "--methods", "feature_ridge", "--dataset", "demo", "--slices", "P1a,P2a", "--only-folds", "P1a"),
        *("--encoders", f"lunit-vits16@{tmp_path / 'dino_vit_small_patch16_ep200.torch'}"),
        *("--set", "feature_ridge.input_px=32", "--no-mlflow", "--out", tmp_path / "r"),
    )
    assert done.code == 0, done.err
    (row,) = (
        pd.read_csv(tmp_path / "r" / "summary.csv", dtype={"method": str}).query("state == 'finished'").itertuples()
    )
    spec = TrialSpec.read(tmp_path / "r" / "specs" / f"{row.key}.json")
    assert (spec.key, spec.encoder) == (row.key, ROWS["lunit-vits16"].digest)
    assert row.weights.startswith("lunit-vits16 (dino_vit_small_patch16_ep200.torch ")
