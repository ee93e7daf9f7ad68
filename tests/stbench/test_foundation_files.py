"""Files of published encoders in their own layouts, made on the spot of small relatives, give the right features."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from published_layouts import (
    as_conch,
    as_dinov2,
    as_in_file,
    as_swin_of_2021,
    as_transformers,
    pooled_by_conch,
    small,
    transformers_tokens,
)
from safetensors.torch import save_file
from torch import Tensor, nn

from stbench.errors import UserError
from stbench.training.encoders import build_encoder, load_weights
from stbench.training.foundation import table
from stbench.training.foundation.build import build, load
from stbench.training.foundation.networks import AttentionPooled, ClassAndMean, ConvolutionalStem
from stbench.training.foundation.table import PublishedEncoder, published_encoders
from stbench.training.weights_files import read_weights

ROWS = published_encoders()
TRANSFORMERS = [row for row in ROWS.values() if row.is_transformer]


def drawn(module: nn.Module, seed: int = 1) -> nn.Module:
    """The module with all of its parameters drawn large, so that each matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator) + (parameter.ndim == 1) * 0.5)
    return module.eval()


def trunk_of(module: nn.Module) -> nn.Module:
    return module.trunk if isinstance(module, ClassAndMean | AttentionPooled) else module  # type: ignore[return-value]


def images(side: int) -> Tensor:
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(3))


def features(module: nn.Module, side: int) -> Tensor:
    with torch.no_grad():
        return module.eval()(images(side))


def loaded(row: PublishedEncoder, state: Mapping[str, Tensor]) -> nn.Module:
    module, _ = build(row)
    load(module, row, state)
    return module


@pytest.mark.parametrize("row", TRANSFORMERS, ids=lambda row: row.name)
def test_a_file_in_its_own_layout_gives_the_features_of_the_network_that_it_was_made_of(row: PublishedEncoder) -> None:
    relative = small(row)
    donor = drawn(build(relative)[0])
    state = (donor.trunk if isinstance(donor, ClassAndMean) else donor).state_dict()  # type: ignore[operator]
    side = relative.arguments["img_size"]
    expected = features(donor, side)
    for file in (as_in_file(relative, state), {f"module.backbone.{k}": v for k, v in state.items()}):
        torch.testing.assert_close(features(loaded(relative, file), side), expected, atol=1e-5, rtol=1e-5)


def reference(row: PublishedEncoder, state: Mapping[str, Tensor], side: int, grid: int | None = None) -> Tensor:
    tokens = transformers_tokens(state, images(side), row.arguments["num_heads"], grid)
    n_prefix = 1 + (state["embeddings.register_tokens"].shape[1] if "embeddings.register_tokens" in state else 0)
    if row.pooling == "class token":
        return tokens[:, 0]
    return torch.cat([tokens[:, 0], tokens[:, n_prefix:].mean(1)], dim=1)


@pytest.mark.parametrize("name", ["phikon", "phikon-v2", "hibou-b", "hibou-l", "midnight-12k"])
def test_features_equal_those_of_transformers_forward_written_by_hand(name: str) -> None:
    row = small(ROWS[name])
    donor = drawn(build(row)[0])
    file = as_in_file(row, trunk_of(donor).state_dict())
    side = row.arguments["img_size"]
    torch.testing.assert_close(features(loaded(row, file), side), reference(row, file, side), atol=1e-4, rtol=1e-4)


def test_positions_of_midnight_are_resampled_once_as_transformers_does_it() -> None:
    row = small(ROWS["midnight-12k"])
    larger = small(ROWS["midnight-12k"], img_size=9 * 14)
    file = as_in_file(larger, trunk_of(drawn(build(larger)[0])).state_dict())
    assert file["embeddings.position_embeddings"].shape[1] == 82
    module = loaded(row, file)
    assert trunk_of(module).pos_embed.shape[1] == 17
    torch.testing.assert_close(features(module, 56), reference(row, file, 56, grid=4), atol=1e-4, rtol=1e-4)


def test_a_class_position_in_dinov2s_layout_is_folded_into_the_class_token() -> None:
    for name, swiglu in (("openmidnight", True), ("hibou-b", True), ("kaiko-vitl14", False)):
        row = small(ROWS[name])
        donor = drawn(build(row)[0])
        file = as_dinov2(donor.state_dict(), swiglu)
        assert file["pos_embed"].shape[1] == donor.pos_embed.shape[1] + 1  # type: ignore[operator,union-attr]
        module = loaded(row, file)
        torch.testing.assert_close(features(module, 56), features(donor, 56), atol=1e-5, rtol=1e-5)


def test_a_checkpoint_of_gpfm_has_its_teacher_in_chunks_beside_heads_and_a_student(tmp_path: Path) -> None:
    row = small(ROWS["gpfm"], depth=5)
    donor = drawn(build(row)[0])
    teacher = {f"backbone.{k}": v for k, v in as_dinov2(donor.state_dict(), chunks=4).items()}
    assert {"backbone.blocks.0.0.norm1.weight", "backbone.blocks.1.2.norm1.weight"} <= teacher.keys()
    beside = {"dino_head.mlp.0.weight": torch.zeros(2, 2)}
    checkpoint = {
        "student": {k: v + 1 for k, v in teacher.items()},
        "teacher": teacher | beside,
        "args": argparse.Namespace(lr=1e-3),
        "epoch": 3,
    }
    torch.save(checkpoint, tmp_path / "GPFM.pth")
    module = loaded(row, read_weights(tmp_path / "GPFM.pth"))
    torch.testing.assert_close(features(module, 56), features(donor, 56), atol=1e-5, rtol=1e-5)
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


@pytest.mark.parametrize("name", ["conch", "conch-v1.5"])
def test_conch_pools_by_its_query_among_what_else_its_file_holds(name: str) -> None:
    row = small(ROWS[name])
    donor = drawn(build(row)[0])
    file = as_conch(donor.state_dict()) if name == "conch" else donor.state_dict()
    module = loaded(row, file)
    with torch.no_grad():
        tokens = trunk_of(donor).forward_features(images(64))  # type: ignore[operator]
        expected = pooled_by_conch(donor.state_dict(), tokens, heads=4)
    assert expected.shape == (2, 16)
    torch.testing.assert_close(features(module, 64), expected, atol=1e-4, rtol=1e-4)


def test_positions_of_conch_v1_5_may_be_for_smaller_images() -> None:
    row, smaller = small(ROWS["conch-v1.5"]), small(ROWS["conch-v1.5"], img_size=48)
    module = loaded(row, drawn(build(smaller)[0]).state_dict())
    assert trunk_of(module).pos_embed.shape[1] == 17  # type: ignore[union-attr]


def test_ctranspath_is_read_in_the_names_of_2021_and_of_today() -> None:
    row = ROWS["ctranspath"]
    torch.manual_seed(4)
    module, _ = build(row)
    for added, renamed in ((1, as_swin_of_2021), (2, dict)):
        wanted = {name: value + added for name, value in module.state_dict().items()}
        load(module, row, renamed(wanted))
        assert all(torch.equal(value, wanted[name]) for name, value in module.state_dict().items())


def test_ctranspaths_stem_is_two_convolutions_with_norms_one_to_its_width_and_a_norm() -> None:
    stem = drawn(ConvolutionalStem(96))
    state = stem.state_dict()
    x = images(16)
    for i in (0, 3):
        x = F.conv2d(x, state[f"proj.{i}.weight"], stride=2, padding=1)
        statistics = [state[f"proj.{i + 1}.{what}"] for what in ("running_mean", "running_var", "weight", "bias")]
        x = F.relu(F.batch_norm(x, *statistics))
    x = F.conv2d(x, state["proj.6.weight"], state["proj.6.bias"]).permute(0, 2, 3, 1)
    expected = F.layer_norm(x, (96,), state["norm.weight"], state["norm.bias"])
    assert expected.shape == (2, 4, 4, 96)
    torch.testing.assert_close(stem(images(16)), expected)


def test_swiglu_without_silu_would_load_and_compute_otherwise() -> None:
    """Why the table's reader demands both: strict loading does not notice."""
    row = small(ROWS["virchow2"])
    donor = drawn(build(row)[0])
    careless = row.model_copy(update={"arguments": {**row.arguments, "act_layer": "torch.nn.GELU"}})
    other = loaded(careless, trunk_of(donor).state_dict())
    assert not torch.allclose(features(other, 56), features(donor, 56), atol=1e-2)


@pytest.fixture
def relative(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], PublishedEncoder]:
    """Put a small relative in the place of a row."""

    def replaced(name: str) -> PublishedEncoder:
        row = small(ROWS[name])
        rows = {**ROWS, name: row}
        monkeypatch.setattr(table, "published_encoders", lambda: rows)
        return row

    return replaced


def test_an_encoder_is_built_and_loaded_by_its_name_and_labelled(
    relative: Callable[[str], PublishedEncoder], tmp_path: Path
) -> None:
    row = relative("virchow2")
    donor = drawn(build(row)[0])
    save_file({k: v.contiguous() for k, v in trunk_of(donor).state_dict().items()}, tmp_path / "model.safetensors")
    encoder = build_encoder("virchow2", str(tmp_path / "model.safetensors"))
    assert encoder.n_features == 96
    assert encoder.label.startswith("virchow2 (model.safetensors ")
    assert torch.equal(features(encoder.module, 56), features(donor, 56))
    averaged = build_encoder("virchow2", str(tmp_path / "model.safetensors"), pooling="average")
    assert averaged.n_features == 48
    tokens = trunk_of(donor).forward_features(images(56))  # type: ignore[operator]
    assert features(averaged.module, 56).shape == tokens[:, 0].shape


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("uni", lambda state: {k: v for k, v in state.items() if k != "blocks.1.ls1.gamma"}, "blocks.1.ls1.gamma"),
        ("uni", lambda state: state | {"blocks.9.norm1.weight": torch.zeros(48)}, "blocks.9.norm1.weight"),
        ("uni", lambda state: state | {"pos_embed": torch.zeros(1, 26, 48)}, "size mismatch"),
        ("uni", lambda state: {"conv1.weight": torch.zeros(2)}, "no entry is named cls_token"),
        ("phikon", lambda state: _without(as_transformers(state, False), ".key."), "key"),
        ("phikon-v2", lambda state: as_transformers(state, False), "norm1"),
    ],
)
def test_files_of_other_networks_are_refused_in_one_line(
    relative: Callable[[str], PublishedEncoder],
    tmp_path: Path,
    name: str,
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
    message: str,
) -> None:
    row = relative(name)
    module = build(row)[0]
    torch.save(change(dict(module.state_dict())), tmp_path / "w.pth")
    with pytest.raises(UserError, match=message) as caught:
        load_weights(module, name, str(tmp_path / "w.pth"))
    assert str(caught.value).startswith(f"{tmp_path / 'w.pth'} does not hold the weights of {name}")
    assert "\n" not in str(caught.value)


def _without(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if part not in name}


def test_a_network_of_one_size_refuses_others_in_one_line() -> None:
    with pytest.raises(UserError, match="ctranspath takes images of 224 px, not of 64 px"):
        build_encoder("ctranspath", input_px=64)
