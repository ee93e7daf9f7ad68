"""HisToGene computes what the published network computes: predictions, loss, gradients and training steps."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from stbench.errors import UserError
from stbench.methods.checkpoints.histogene import PUBLISHED_NAMES
from stbench.methods.checkpoints.histogene import load as load_published
from stbench.methods.checkpoints.names import rename
from stbench.methods.histogene import HisToGeneNetwork

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def build(stored: dict[str, np.ndarray]) -> tuple[HisToGeneNetwork, torch.Tensor, torch.Tensor, torch.Tensor]:
    config = golden.config(stored)
    network = HisToGeneNetwork(
        config["patch_size"],
        config["n_genes"],
        config["n_pos"],
        config["dim"],
        config["n_layers"],
        dropout=config["dropout"],
    )
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    network.load_state_dict(rename(weights, PUBLISHED_NAMES))
    positions = torch.from_numpy(stored["input.positions"])
    pixels = golden.pixels(stored, (*positions.shape[:2], 3 * config["patch_size"] ** 2))
    return network, torch.from_numpy(pixels).float(), positions, torch.from_numpy(stored["input.expression"])


@pytest.mark.parametrize("path", golden.files("histogene"), ids=golden.name)
def test_prediction_loss_and_gradients_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network, patches, positions, expression = build(stored)
    network.eval()
    prediction = network(patches, positions)
    np.testing.assert_allclose(prediction.detach(), stored["output.prediction"], **CLOSE)
    loss = F.mse_loss(prediction, expression)
    np.testing.assert_allclose(loss.item(), stored["loss.mse"], **CLOSE)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for key in (key for key in stored if key.startswith("grad.")):
        (ours,) = rename({key.removeprefix("grad."): torch.empty(0)}, PUBLISHED_NAMES)
        np.testing.assert_allclose(gradients[ours], stored[key], **CLOSE, err_msg=key)


@pytest.mark.parametrize("path", golden.files("histogene"), ids=golden.name)
def test_training_steps_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network, patches, positions, expression = build(stored)
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for expected in stored["train.losses_adam_lr1e3"]:
        loss = F.mse_loss(network(patches, positions), expression)
        np.testing.assert_allclose(loss.item(), expected, **CLOSE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        np.testing.assert_allclose(network(patches, positions), stored["train.prediction_after_3_steps"], **CLOSE)


@pytest.mark.parametrize("path", golden.files("histogene"), ids=golden.name)
@torch.no_grad()
def test_published_checkpoints_load_without_unpickling(path: Path, tmp_path: Path) -> None:
    stored = golden.read(path)
    network, patches, positions, _ = build(stored)
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    for name, content in (("plain", weights), ("lightning", {"epoch": 99, "state_dict": weights})):
        torch.save(content, tmp_path / name)
        loaded = load_published(tmp_path / name)
        assert not loaded.training
        torch.testing.assert_close(loaded(patches, positions), network.eval()(patches, positions), rtol=0, atol=0)
    torch.save({"state_dict": weights, "by": Path}, tmp_path / "code")
    torch.save({"patch_embedding.weight": torch.zeros(2)}, tmp_path / "other")
    for name, reason in (
        ("code", "nothing else is unpickled"),
        ("other", "is not a published"),
        ("none", "there is no weights file"),
    ):
        with pytest.raises(UserError, match=reason):
            load_published(tmp_path / name)


# The specification's small configuration: every tensor filled with a sine of its name, float64.


@pytest.fixture
def sine_network() -> HisToGeneNetwork:
    network = HisToGeneNetwork(4, 5, 8, 32, 2, dropout=0.0).double()
    state = {}
    for name in published_shapes():
        shape = published_shapes()[name]
        values = np.sin(0.37 * np.arange(np.prod(shape)) + sum(map(ord, name)) % 97).reshape(shape)
        if name.endswith("norm.weight") or name == "gene_head.0.weight":
            values = 1 + 0.1 * values
        elif len(shape) == 2 and name not in ("x_embed.weight", "y_embed.weight"):
            values = values / np.sqrt(shape[1])
        else:
            values = 0.1 * values
        state[name] = torch.from_numpy(values)
    network.load_state_dict(rename(state, PUBLISHED_NAMES))
    return network.eval()


def published_shapes() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"patch_embedding.weight": (32, 48), "patch_embedding.bias": (32,)}
    shapes |= {"x_embed.weight": (8, 32), "y_embed.weight": (8, 32)}
    for layer in (0, 1):
        block = f"vit.transformer.layers.{layer}"
        shapes |= {f"{block}.0.norm.weight": (32,), f"{block}.0.norm.bias": (32,)}
        shapes |= {f"{block}.0.fn.to_qkv.weight": (3072, 32)}
        shapes |= {f"{block}.0.fn.to_out.0.weight": (32, 1024), f"{block}.0.fn.to_out.0.bias": (32,)}
        shapes |= {f"{block}.1.norm.weight": (32,), f"{block}.1.norm.bias": (32,)}
        shapes |= {f"{block}.1.fn.net.0.weight": (64, 32), f"{block}.1.fn.net.0.bias": (64,)}
        shapes |= {f"{block}.1.fn.net.3.weight": (32, 64), f"{block}.1.fn.net.3.bias": (32,)}
    shapes |= {"gene_head.0.weight": (32,), "gene_head.0.bias": (32,)}
    return shapes | {"gene_head.1.weight": (5, 32), "gene_head.1.bias": (5,)}


PATCHES = torch.from_numpy(128 + 127 * np.sin(0.11 * np.arange(3 * 48))).reshape(1, 3, 48)
POSITIONS = torch.tensor([[[0, 1], [2, 3], [7, 5]]])
EXPRESSION = torch.from_numpy(np.cos(0.3 * np.arange(15))).reshape(1, 3, 5)
RAW = [
    [0.246351863408, 0.181393215919, 0.051461348218, -0.070377724187, -0.119754815707],
    [0.433083691357, 0.337443060821, 0.098052070015, -0.156766070796, -0.295511633836],
    [0.269846708965, 0.325893362261, 0.244020178360, 0.073032170350, -0.097890092443],
]
UNIT = [
    [0.151242827727, -0.262632106831, -0.517327234976, -0.476793506206, -0.158630832099],
    [0.639099701319, 0.495087542036, 0.127742877536, -0.270017461335, -0.494533613839],
    [0.167498750883, 0.381520470841, 0.429540656203, 0.294791501646, 0.048159465176],
]


@pytest.mark.parametrize(("scale", "expected"), [(1, RAW), (255, UNIT)], ids=["raw pixels", "pixels in 0..1"])
def test_sine_filled_network_predicts_the_specified_values(
    sine_network: HisToGeneNetwork, scale: float, expected: list[list[float]]
) -> None:
    assert sum(p.numel() for p in sine_network.parameters()) == 273_157
    with torch.no_grad():
        np.testing.assert_allclose(sine_network(PATCHES / scale, POSITIONS)[0], expected, atol=1e-9)


def test_sine_filled_network_has_the_specified_losses_and_gradients(sine_network: HisToGeneNetwork) -> None:
    assert F.mse_loss(sine_network(PATCHES, POSITIONS), EXPRESSION).item() == pytest.approx(0.626935527024, abs=1e-9)
    loss = F.mse_loss(sine_network(PATCHES / 255, POSITIONS), EXPRESSION)
    assert loss.item() == pytest.approx(0.894690591748, abs=1e-9)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(sine_network.parameters(), float("inf"))
    assert norm.item() == pytest.approx(17.473560615207, abs=1e-9)
    expected = [0.116946209982, 0.116442837536, 0.082163360638, 0.051959544743, 0.056929363749]
    np.testing.assert_allclose(sine_network.head[1].bias.grad, expected, atol=1e-9)


def test_sine_filled_network_trains_as_specified(sine_network: HisToGeneNetwork) -> None:
    optimiser = torch.optim.Adam(sine_network.parameters(), lr=1e-5)
    for expected in (0.6269355270, 0.6192883134, 0.6118494314, 0.6046221100):
        loss = F.mse_loss(sine_network.train()(PATCHES, POSITIONS), EXPRESSION)
        assert loss.item() == pytest.approx(expected, abs=1e-9)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def test_spots_may_come_in_any_order_but_each_depends_on_all(sine_network: HisToGeneNetwork) -> None:
    whole = sine_network(PATCHES, POSITIONS)
    order = [2, 0, 1]
    np.testing.assert_allclose(sine_network(PATCHES[:, order], POSITIONS[:, order]), whole[:, order], atol=1e-12)
    swapped = sine_network(PATCHES, POSITIONS.flip(-1))
    assert (swapped - whole).abs().max().item() == pytest.approx(0.015658, abs=1e-6)
    without_third = sine_network(PATCHES[:, :2], POSITIONS[:, :2])
    assert (without_third - whole[:, :2]).abs().max().item() == pytest.approx(7.8136e-05, rel=1e-4)


@pytest.mark.parametrize(
    ("parameters", "side", "n_genes", "n_positions", "n_layers"),
    [
        (106_588_945, 112, 785, 35, 8),
        (106_648_337, 112, 785, 64, 8),
        (106_018_987, 112, 171, 64, 8),
        (106_676_909, 112, 685, 128, 8),
        (73_061_137, 112, 785, 64, 4),
        (73_281_512, 112, 1000, 64, 4),
        (222_253_841, 224, 785, 64, 8),
    ],
)
def test_full_networks_have_the_published_number_of_parameters(
    parameters: int, side: int, n_genes: int, n_positions: int, n_layers: int
) -> None:
    with torch.device("meta"):
        network = HisToGeneNetwork(side, n_genes, n_positions, n_layers=n_layers)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert (
        sum(isinstance(module, torch.nn.Dropout) for module in network.modules()) == 1 + n_layers
    )  # one a block, used thrice


@torch.no_grad()
def test_fused_and_explicit_attention_are_equal() -> None:
    torch.manual_seed(0)
    fused = HisToGeneNetwork(8, 785, n_layers=8).eval()
    explicit = HisToGeneNetwork(8, 785, n_layers=8, attention="explicit").eval()
    explicit.load_state_dict(fused.state_dict())
    patches, positions = torch.rand(64, 192) * 255, torch.randint(0, 64, (64, 2))
    np.testing.assert_allclose(fused(patches, positions), explicit(patches, positions), atol=1e-5)
