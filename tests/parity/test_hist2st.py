"""Hist2ST computes what the published network computes: predictions, the three losses, gradients and training steps."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it

from stbench.errors import UserError
from stbench.methods.checkpoints.hist2st import PUBLISHED_NAMES
from stbench.methods.checkpoints.hist2st import load as load_published
from stbench.methods.checkpoints.names import rename
from stbench.methods.hist2st import (
    NB,
    ZINB,
    Hist2STNetwork,
    distil,
    nb_loss,
    size_factors,
    zinb_loss,
)
from stbench.methods.layers.spot_graph import nearest_spots

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
VIEWS = (
    lambda x: x,
    lambda x: x.flip(-1),
    lambda x: x.flip(-2),
    lambda x: x.transpose(-1, -2),
)  # of the published runs


def edges_of(adjacency: np.ndarray) -> torch.Tensor:
    """A published adjacency matrix says in row i from whom spot i receives."""
    receiver, source = np.nonzero(adjacency)
    return torch.from_numpy(np.stack([source, receiver]))


def build(stored: dict[str, np.ndarray]) -> tuple[Hist2STNetwork, dict[str, Any], torch.Tensor]:
    config = golden.config(stored)
    network = Hist2STNetwork(
        config["fig_size"],
        config["n_genes"],
        config["n_pos"],
        config["patch_size"],
        config["channel"],
        config["kernel_size"],
        config["depth1"],
        config["depth2"],
        config["depth3"],
        config["heads"],
        dropout=config["dropout"],
        counts_likelihood=("nb" if config.get("nb") else "zinb") if config["zinb"] else "none",
        with_scorer=config["bake"] > 0,
    )
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    network.load_state_dict(rename(weights, PUBLISHED_NAMES))
    n_spots = stored["input.positions"].shape[1]
    pixels = golden.pixels(stored, (1, n_spots, 3, config["fig_size"], config["fig_size"]))
    inputs = {
        "array_xy": torch.from_numpy(stored["input.positions"][0]),
        "edges": edges_of(stored["input.adjacency"]),
    }
    return network, inputs, torch.from_numpy(pixels[0]).float()


def losses(network: Hist2STNetwork, output: Any, stored: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    config = golden.config(stored)
    found = {"mse": F.mse_loss(output.prediction, torch.from_numpy(stored["input.expression"][0]))}
    total = found["mse"]
    counts, factors = torch.from_numpy(stored["input.counts"][0]), torch.from_numpy(stored["input.size_factors"][0])
    if output.zinb is not None:
        found["zinb"] = zinb_loss(counts, output.zinb, factors)
        total = total + config["zinb"] * found["zinb"]
    if output.copies is not None:
        found["bake"] = F.mse_loss(distil(output.copies, output.scores), output.prediction)
        total = total + config["lamb"] * found["bake"]
    return found | {"total": total}


@pytest.mark.parametrize("path", golden.files("hist2st"), ids=golden.name)
def test_outputs_and_losses_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network, inputs, patches = build(stored)
    copies = [view(patches) for view in VIEWS[1 : 1 + golden.config(stored)["bake"]]]
    network.eval()
    with torch.no_grad():
        output = network([patches, *copies], **inputs)
    np.testing.assert_allclose(output.prediction, stored["output.prediction"], **CLOSE)
    np.testing.assert_allclose(output.hidden, stored["output.hidden"], **CLOSE)
    if output.zinb is not None:
        np.testing.assert_allclose(output.zinb.mean, stored["output.zinb_mean"], **CLOSE)
        np.testing.assert_allclose(output.zinb.dispersion, stored["output.zinb_dispersion"], **CLOSE)
        np.testing.assert_allclose(output.zinb.dropout, stored["output.zinb_pi"], **CLOSE)
    if output.copies is not None:
        np.testing.assert_allclose(distil(output.copies, output.scores), stored["output.distilled"], **CLOSE)
    for name, value in losses(network, output, stored).items():
        np.testing.assert_allclose(value, stored[f"loss.{name}"], **CLOSE, err_msg=name)
    if output.copies is not None:
        np.testing.assert_allclose(output.scores, stored["output.coef"], **CLOSE)
    network.train()
    with torch.no_grad():
        np.testing.assert_allclose(
            network([patches], **inputs).prediction, stored["output.prediction_train_mode"], **CLOSE
        )


@pytest.mark.parametrize("path", golden.files("hist2st"), ids=golden.name)
def test_training_steps_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network, inputs, patches = build(stored)
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for expected in stored["train.losses_without_distillation_adam_lr1e3"]:
        total = losses(network, network([patches], **inputs), stored)["total"]
        np.testing.assert_allclose(total.item(), expected, rtol=1e-3)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()


@pytest.mark.parametrize("path", golden.files("hist2st"), ids=golden.name)
@torch.no_grad()
def test_published_checkpoints_load_without_unpickling(path: Path, tmp_path: Path) -> None:
    stored = golden.read(path)
    network, inputs, patches = build(stored)
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    for name, content in (("plain", weights), ("lightning", {"epoch": 99, "state_dict": weights})):
        torch.save(content, tmp_path / name)
        loaded = load_published(tmp_path / name, golden.config(stored)["fig_size"])
        assert not loaded.training
        torch.testing.assert_close(
            loaded([patches], **inputs).prediction, network.eval()([patches], **inputs).prediction, rtol=0, atol=0
        )
    torch.save({"state_dict": weights, "by": Path}, tmp_path / "code")
    torch.save({"patch_embedding.weight": torch.zeros(2)}, tmp_path / "other")
    for name, reason in (
        ("code", "nothing else is unpickled"),
        ("other", "is not a published"),
        ("none", "there is no weights file"),
    ):
        with pytest.raises(UserError, match=reason):
            load_published(tmp_path / name, golden.config(stored)["fig_size"])


# The specification's small configuration, in float64: 12 spots on a grid, weights drawn by the CRC-32 of their
# published names.

N_SPOTS, N_GENES = 12, 5


def published_names(network: torch.nn.Module) -> dict[str, str]:
    """Our name of each tensor of the small network -> its published name."""
    block, mixer = "vit.transformer.layer2.0", "vit.transformer.layer1.0"
    stems = {
        "patch_embedding": "patch_embedding", "x_embedding": "x_embed", "y_embedding": "y_embed",
        "mixers.0.depthwise1": f"{mixer}.dw.0", "mixers.0.norm1": f"{mixer}.dw.1",
        "mixers.0.depthwise2": f"{mixer}.dw.3", "mixers.0.norm2": f"{mixer}.dw.4",
        "mixers.0.pointwise": f"{mixer}.pw.0", "mixers.0.norm3": f"{mixer}.pw.2",
        "reduction": "vit.transformer.down.0",
        "blocks.0.attention_norm": f"{block}.attn.norm", "blocks.0.qkv": f"{block}.attn.fn.to_qkv",
        "blocks.0.out": f"{block}.attn.fn.to_out.0", "blocks.0.mlp_norm": f"{block}.ff.norm",
        "blocks.0.expand": f"{block}.ff.fn.net.0", "blocks.0.contract": f"{block}.ff.fn.net.3",
        "neighbourhoods.0.lin_l": "vit.transformer.layer3.0", "neighbourhoods.1.lin_l": "vit.transformer.layer3.1",
        "across_layers": "vit.transformer.jknet.0",
        "zinb.mean": "mean.0", "zinb.disp": "disp.0", "zinb.pi": "pi.0", "nb.r": "hr", "nb.p": "hp",
        "scorer.0": "coef.0", "scorer.2": "coef.2", "head.0": "gene_head.0", "head.1": "gene_head.1",
    }  # fmt: skip
    names = [name.rpartition(".") for name in network.state_dict()]
    return {f"{stem}.{leaf}": f"{stems[stem]}.{leaf}" for stem, _, leaf in names}


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    leaf = name.rpartition(".")[2]
    if leaf == "running_var":
        return 1 + 0.1 * np.abs(noise)
    if leaf == "running_mean" or leaf.startswith("bias"):
        return 0.1 * noise
    if len(shape) == 1:
        return 1 + 0.1 * noise
    return noise / np.sqrt(np.prod(shape) / shape[0])


def small_network(**changes: Any) -> Hist2STNetwork:
    options: dict[str, Any] = {
        "kernel": 3,
        "n_mixers": 1,
        "n_layers": 1,
        "n_graph_layers": 2,
        "heads": 2,
        "dropout": 0.0,
    }
    network = Hist2STNetwork(28, N_GENES, 8, 7, 8, **(options | changes)).double()
    state = network.state_dict()
    published = {
        theirs: torch.from_numpy(drawn(theirs, state[ours].shape)) if state[ours].is_floating_point() else state[ours]
        for ours, theirs in published_names(network).items()
    }
    network.load_state_dict(rename(published, PUBLISHED_NAMES))
    return network


@pytest.fixture
def grid() -> dict[str, torch.Tensor]:
    xy = np.array([(i // 4, i % 4) for i in range(N_SPOTS)])
    adjacency = (np.abs(xy[:, None] - xy[None]).sum(axis=2) == 1).astype(int)
    adjacency[0, 1] = 0
    return {"array_xy": torch.from_numpy(xy), "edges": edges_of(adjacency)}


PATCHES = torch.from_numpy(np.random.RandomState(1).randint(0, 256, (N_SPOTS, 3, 28, 28)) / 255)
COUNTS = torch.from_numpy(np.random.RandomState(2).poisson(2.0, (N_SPOTS, N_GENES)).astype(float))
EXPRESSION = torch.log10(1 + 1e4 * COUNTS / COUNTS.sum(dim=1, keepdim=True))
COPIES = [PATCHES.flip(-1), PATCHES.flip(-2)]


def specified_losses(
    network: Hist2STNetwork, grid: dict[str, torch.Tensor], copies: list[torch.Tensor]
) -> dict[str, Any]:
    output = network([PATCHES, *copies], **grid)
    mse = F.mse_loss(output.prediction, EXPRESSION)
    zinb = zinb_loss(COUNTS, output.zinb, torch.from_numpy(size_factors(COUNTS.numpy())))
    bake = F.mse_loss(distil(output.copies, output.scores), output.prediction) if copies else torch.zeros(())
    return {"mse": mse, "zinb": zinb, "bake": bake, "total": mse + 0.25 * zinb + 0.5 * bake}


def summary(x: torch.Tensor) -> list[float]:
    flat = x.detach().flatten()
    return [x.mean().item(), x.std(correction=0).item(), flat[0].item(), flat[1].item(), flat[-1].item()]


def test_small_network_has_the_specified_intermediate_values(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().eval()
    assert sum(p.numel() for p in network.parameters()) == 16_070
    with torch.no_grad():
        embedded = network.patch_embedding(PATCHES)
        mixed = network.mixers(embedded)
        tokens = network.embed(PATCHES)
        xy = grid["array_xy"]
        position = network.x_embedding(xy[:, 0]) + network.y_embedding(xy[:, 1])
        attended = network.blocks(tokens + position)
        first = F.normalize(F.relu(network.neighbourhoods[0](attended, grid["edges"])), dim=-1)
        second = F.normalize(F.relu(network.neighbourhoods[1](first, grid["edges"])), dim=-1)
        output = network([PATCHES, PATCHES], **grid)
        scores = network.scorer(output.hidden)
    expected = {
        "patch embedding": (embedded, [-0.004811571, 0.471418339, 0.131627107, -0.175177263, -0.118780103]),
        "mixer": (mixed, [0.167462196, 0.373607388, -0.042208589, -0.048654785, -0.252218748]),
        "reduction": (tokens, [0.730171093, 0.215966337, 0.356218438, 0.823909957, 0.560524416]),
        "positions": (position, [-0.018325129, 0.330564718, -0.074946182, 0.066478132, 0.224283120]),
        "Transformer": (attended, [0.734423701, 0.898005523, 1.377461038, 0.930843067, 1.220967757]),
        "graph layer 0": (first, [0.121145701, 0.218686349, 0.0, 2.432e-05, 0.0]),
        "graph layer 1": (second, [0.151143583, 0.199137182, 0.0, 0.0, 0.487992065]),
        "hidden": (output.hidden, [-0.012847385, 0.040504593, -0.017792981, -0.085238957, 0.014989444]),
        "prediction": (output.prediction, [-0.219162331, 1.329719166, -1.071731570, 1.566800073, -2.067292939]),
        "ZINB mean": (output.zinb.mean, [0.966642171, 0.064107835, 0.901074642, 0.936600099, 1.007488041]),
        "ZINB dispersion": (output.zinb.dispersion, [0.677314996, 0.023528165, 0.684543523, 0.709556736, 0.684249475]),
        "ZINB dropout": (output.zinb.dropout, [0.506172139, 0.024538130, 0.484503051, 0.490567638, 0.529552615]),
        "scorer": (scores, [0.264921525, 0.002334117, 0.266230194, 0.264090836, 0.265510481]),
    }
    for stage, (values, numbers) in expected.items():
        np.testing.assert_allclose(summary(values), numbers, rtol=0, atol=1e-8, err_msg=stage)
    np.testing.assert_allclose(
        output.prediction[0], [-1.07173157, 1.566800073, 0.005045625, -0.11324038, -2.540136641], atol=1e-8
    )


def test_small_network_has_the_specified_evaluation_losses(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().eval()
    with torch.no_grad():
        found = specified_losses(network, grid, [])
        unit = zinb_loss(COUNTS, network([PATCHES], **grid).zinb, torch.ones(N_SPOTS))
        binomial = nb_loss(COUNTS, small_network(counts_likelihood="nb").eval()([PATCHES], **grid).nb)
    assert found["mse"].item() == pytest.approx(12.1363214269197, abs=1e-8)
    assert found["zinb"].item() == pytest.approx(2.4721222232897, abs=1e-8)
    assert unit.item() == pytest.approx(2.51284114324208, abs=1e-8)
    assert binomial.item() == pytest.approx(5.38352823832185, abs=1e-8)


def test_small_network_has_the_specified_training_losses_and_gradients(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().train()
    found = specified_losses(network, grid, [])
    assert found["total"].item() == pytest.approx(12.46054780910596, abs=1e-8)
    assert found["mse"].item() == pytest.approx(11.842427394662622, abs=1e-8)
    assert found["zinb"].item() == pytest.approx(2.472481657773351, abs=1e-8)
    found["total"].backward()
    expected = {
        "patch_embedding.weight": 5.375276476, "x_embedding.weight": 0.39776648,
        "mixers.0.depthwise1.weight": 1.645822793,
        "blocks.0.qkv.weight": 1.261400502, "neighbourhoods.0.lin_l.weight": 1.236628133,
        "across_layers.weight_hh_l0": 0.410087289, "zinb.pi.weight": 0.007959471, "head.1.weight": 11.768900053,
    }  # fmt: skip
    for name, norm in expected.items():
        assert network.get_parameter(name).grad.norm().item() == pytest.approx(norm, abs=1e-8), name
    running = network.mixers[0].norm1.running_mean[:3]
    np.testing.assert_allclose(running, [-0.141857552, -0.017282934, -0.124275609], atol=1e-8)


def test_small_network_distils_as_specified(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().train()
    found = specified_losses(network, grid, COPIES)
    assert found["bake"].item() == pytest.approx(0.011887175030044, abs=1e-8)
    assert found["total"].item() == pytest.approx(12.466491396620981, abs=1e-8)
    found["total"].backward()
    expected = {
        "patch_embedding.weight": 5.453539898, "scorer.0.weight": 8.6526e-05, "scorer.2.weight": 3.0687e-05,
        "head.1.weight": 11.768796583,
    }  # fmt: skip
    for name, norm in expected.items():
        assert network.get_parameter(name).grad.norm().item() == pytest.approx(norm, abs=1e-8), name
    running = network.mixers[0].norm1
    np.testing.assert_allclose(running.running_mean[:3], [-0.125724273, -0.011934542, -0.181681371], atol=1e-8)
    assert running.num_batches_tracked == 1 + len(COPIES)


def test_identical_copies_distil_nothing(grid: dict[str, torch.Tensor]) -> None:
    found = specified_losses(small_network().train(), grid, [PATCHES, PATCHES])
    assert found["bake"].item() == pytest.approx(0, abs=1e-12)
    assert found["total"].item() == pytest.approx(12.46054780910596, abs=1e-8)


def test_small_network_trains_as_specified(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    for expected in (12.466491397, 11.833082801, 11.327071471):
        total = specified_losses(network, grid, COPIES)["total"]
        assert total.item() == pytest.approx(expected, abs=1e-8)
        optimiser.zero_grad()
        total.backward()
        optimiser.step()


@torch.no_grad()
def test_spots_may_come_in_any_order(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().eval()
    whole = network([PATCHES], **grid).prediction
    order = torch.randperm(N_SPOTS, generator=torch.Generator().manual_seed(0))
    edges = torch.argsort(order)[grid["edges"]]
    permuted = network([PATCHES[order]], grid["array_xy"][order], edges).prediction
    np.testing.assert_allclose(permuted, whole[order], atol=1e-12)


def test_an_isolated_spot_stays_finite_and_leaves_the_rest_finite(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().train()
    grid["edges"] = grid["edges"][:, grid["edges"][1] != 5]
    found = specified_losses(network, grid, COPIES)
    found["total"].backward()
    assert torch.isfinite(found["total"])
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


# Checks that stand alone.


def test_zinb_of_single_entries_has_the_specified_values() -> None:
    parameters = torch.tensor([[0.5, 1, 0.3], [2, 0.7, 0.1]], dtype=torch.float64)
    counts, factors = torch.tensor([[0.0], [3.0]], dtype=torch.float64), torch.full((2,), 2.0, dtype=torch.float64)
    zinb = ZINB(*parameters.T[..., None])
    assert zinb_loss(counts, zinb, factors).item() == pytest.approx(1.488734239959, abs=1e-11)
    for i, expected in enumerate((0.430782915966, 2.546685563953)):
        single = zinb_loss(counts[i : i + 1], ZINB(*(v[i : i + 1] for v in zinb)), factors[i : i + 1])
        assert single.item() == pytest.approx(expected, abs=1e-11)


def test_zinb_is_the_likelihood_that_torch_distributions_give() -> None:
    draw = torch.Generator().manual_seed(0)
    mean, theta, pi = (torch.rand(40, 7, generator=draw, dtype=torch.float64) + 0.1 for _ in range(3))
    pi = pi / 2
    counts, factors = torch.poisson(mean * 2, generator=draw), torch.rand(40, generator=draw, dtype=torch.float64) + 0.5
    scaled = mean * factors[:, None]
    binomial = torch.distributions.NegativeBinomial(theta, logits=scaled.log() - theta.log()).log_prob(counts)
    mixture = torch.where(counts == 0, torch.log(pi + (1 - pi) * binomial.exp()), torch.log(1 - pi) + binomial)
    assert zinb_loss(counts, ZINB(mean, theta, pi), factors).item() == pytest.approx(-mixture.mean().item(), abs=1e-8)


def test_negative_binomial_of_two_entries_has_the_specified_value() -> None:
    row = torch.tensor([[[0.0, 3.0]], [[0.2, -0.4]], [[0.1, 0.5]]], dtype=torch.float64)
    assert nb_loss(row[0], NB(row[1], row[2])).item() == pytest.approx(1.889168830140, abs=1e-11)


def test_zinb_parameters_are_clamped() -> None:
    network = small_network()
    for head in (network.zinb.mean, network.zinb.disp):
        torch.nn.init.zeros_(head.weight)
    hidden = torch.zeros(1, 16, dtype=torch.float64)
    for value, mean, dispersion in (
        (-20, 1e-5, 1e-4),
        (0, 1, 0.693147180560),
        (20, 1e6, 20.000000002),
        (1e5, 1e6, 1e4),
    ):
        torch.nn.init.constant_(network.zinb.mean.bias, value)
        torch.nn.init.constant_(network.zinb.disp.bias, value)
        zinb = network.zinb(hidden)
        np.testing.assert_allclose(zinb.mean.detach(), mean)
        np.testing.assert_allclose(zinb.dispersion.detach(), dispersion, rtol=1e-9)


def test_zinb_stays_in_float32_under_autocast() -> None:
    network = Hist2STNetwork(28, N_GENES, 8, 7, 8, 3, 1, 1, 1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        zinb = network.zinb(torch.zeros(3, 16, dtype=torch.bfloat16))
    assert all(parameter.dtype == torch.float32 for parameter in zinb)


def test_graph_of_points_without_ties_is_the_specified_one() -> None:
    points = np.random.RandomState(3).rand(8, 2) * 4
    all_four = [
        [1, 2, 6, 7],
        [0, 3, 4, 5],
        [0, 1, 6, 7],
        [1, 4, 5, 6],
        [0, 1, 3, 5],
        [0, 1, 3, 4],
        [0, 1, 3, 7],
        [0, 1, 2, 6],
    ]
    near = [[1, 2, 6, 7], [0, 3, 4, 5], [0, 7], [1, 4, 5], [1, 3, 5], [1, 3, 4], [0, 1, 7], [0, 1, 2, 6]]
    for prune, expected in (("none", all_four), ("grid", near)):
        edges = nearest_spots(points, 4, prune)
        assert [sorted(edges[0, edges[1] == i]) for i in range(8)] == expected


@pytest.mark.parametrize(("parameters", "n_genes"), [(75_789_833, 785), (73_272_433, 171), (75_379_833, 685)])
def test_full_networks_have_the_published_number_of_parameters(parameters: int, n_genes: int) -> None:
    with torch.device("meta"):
        network = Hist2STNetwork(112, n_genes)
    assert sum(p.numel() for p in network.parameters()) == parameters
