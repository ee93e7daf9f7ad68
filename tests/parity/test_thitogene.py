"""THItoGene computes what the published network computes: intermediate values, predictions, gradients and training
steps.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import golden
import numpy as np
import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own name for it
from torch_geometric.nn import GATConv

from stbench.errors import UserError
from stbench.methods.checkpoints.thitogene import from_published
from stbench.methods.checkpoints.thitogene import load as load_published
from stbench.methods.thitogene import (
    DynamicConvolution,
    GraphAttention,
    Routing,
    THItoGeneNetwork,
    squash,
)

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def graph_of(adjacency: np.ndarray) -> dict[str, torch.Tensor]:
    """A published adjacency matrix says in row i from whom spot i receives."""
    receiver, source = np.nonzero(adjacency)
    unreferenced = np.flatnonzero(adjacency.sum(axis=0) == 0)
    return {"edges": torch.from_numpy(np.stack([source, receiver])), "unreferenced": torch.from_numpy(unreferenced)}


def build(stored: dict[str, np.ndarray]) -> tuple[THItoGeneNetwork, dict[str, torch.Tensor], torch.Tensor]:
    config = golden.config(stored)
    network = THItoGeneNetwork(
        config["n_genes"],
        config["n_pos"],
        config["caps"],
        config["route_dim"],
        config["n_layers"],
        config["heads"][0],
        graph_heads=config["heads"][1],
        mlp_width=2 * config["dim"],
        # the published softmax normalises over receiving spots because of the loader's batch dimension; a golden file
        # whose adjacency has none was computed with the textbook form
        gat_softmax="official" if stored["input.adjacency"].ndim == 3 else "neighbours",
        dropout=config["dropout"],
    )
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    network.load_state_dict(from_published(weights))
    positions = torch.from_numpy(stored["input.positions"][0])
    pixels = golden.pixels(stored, (1, len(positions), 3, config["patch_size"], config["patch_size"]))
    inputs = {"array_xy": positions} | graph_of(stored["input.adjacency"].reshape(len(positions), -1))
    return network, inputs, torch.from_numpy(pixels[0]).float()


@pytest.mark.parametrize("path", golden.files("thitogene"), ids=golden.name)
def test_outputs_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network, inputs, patches = build(stored)
    network.eval()
    with torch.no_grad():
        np.testing.assert_allclose(
            network.dynamic(patches).relu().mean(dim=(2, 3)), stored["output.odconv_mean"], **CLOSE
        )
        np.testing.assert_allclose(network.embed(patches), stored["output.capsules"], **CLOSE)
        np.testing.assert_allclose(network(patches, **inputs), stored["output.prediction"], **CLOSE)
        network.train()
        np.testing.assert_allclose(network(patches, **inputs), stored["output.prediction_train_mode"], **CLOSE)


@pytest.mark.parametrize("path", golden.files("thitogene"), ids=golden.name)
def test_training_steps_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network, inputs, patches = build(stored)
    expression = torch.from_numpy(stored["input.expression"][0])
    network.train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-4)
    for expected in stored["train.losses_adam_lr1e4"]:
        loss = F.mse_loss(network(patches, **inputs), expression)
        np.testing.assert_allclose(loss.item(), expected, rtol=1e-3)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("path", golden.files("thitogene"), ids=golden.name)
@torch.no_grad()
def test_published_checkpoints_load_without_unpickling(path: Path, tmp_path: Path) -> None:
    stored = golden.read(path)
    network, inputs, patches = build(stored)
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    for name, content in (("plain", weights), ("lightning", {"epoch": 99, "state_dict": weights})):
        torch.save(content, tmp_path / name)
        loaded = load_published(tmp_path / name, network.graph.softmax)
        assert not loaded.training
        torch.testing.assert_close(loaded(patches, **inputs), network.eval()(patches, **inputs), rtol=0, atol=0)
    torch.save({"state_dict": weights, "by": Path}, tmp_path / "code")
    torch.save({"patch_embedding.weight": torch.zeros(2)}, tmp_path / "other")
    for name, reason in (
        ("code", "nothing else is unpickled"),
        ("other", "is not a published"),
        ("none", "there is no weights file"),
    ):
        with pytest.raises(UserError, match=reason):
            load_published(tmp_path / name, network.graph.softmax)


# The specification's small configuration, in float64: 12 spots on a grid, weights drawn by the CRC-32 of their
# published names.

N_SPOTS, N_GENES = 12, 5


def published_shapes() -> dict[str, tuple[int, ...]]:
    def affine(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}

    def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
        statistics = {f"{name}.running_mean": (width,), f"{name}.running_var": (width,)}
        return affine(name, width) | statistics | {f"{name}.num_batches_tracked": ()}

    gates, caps = "odconv2d.attention", "caps_layer"
    shapes: dict[str, tuple[int, ...]] = {"odconv2d.weight": (4, 16, 3, 4, 4), f"{gates}.fc.weight": (16, 3, 1, 1)}
    shapes |= (
        norm(f"{gates}.bn", 16)
        | affine(f"{gates}.channel_fc", 3, 16, 1, 1)
        | affine(f"{gates}.filter_fc", 16, 16, 1, 1)
    )
    shapes |= affine(f"{gates}.spatial_fc", 16, 16, 1, 1) | affine(f"{gates}.kernel_fc", 4, 16, 1, 1)
    for i, shape in enumerate([(32, 16, 5, 5), (64, 32, 3, 3), (64, 64, 3, 3), (128, 64, 3, 3)], start=1):
        shapes |= affine(f"{caps}.conv{i}", *shape) | norm(f"{caps}.batch_norm{i}", shape[0])
    shapes |= affine(f"{caps}.primary_caps.depthwise_conv", 128, 1, 9, 9)
    shapes |= {f"{caps}.digit_caps.W": (3, 16, 8, 4), f"{caps}.digit_caps.b": (3, 16, 1)}
    shapes |= {"x_embed.weight": (8, 4), "y_embed.weight": (8, 4)}
    block = "vit.transformer.layers.0"
    shapes |= affine(f"{block}.0.norm", 20) | {f"{block}.0.fn.to_qkv.weight": (384, 20)}
    shapes |= affine(f"{block}.0.fn.to_out.0", 20, 128) | affine(f"{block}.1.norm", 20)
    shapes |= affine(f"{block}.1.fn.net.0", 16, 20) | affine(f"{block}.1.fn.net.3", 20, 16)
    for head in (0, 1):
        shapes |= {f"gat.attention_{head}.W": (20, 1024), f"gat.attention_{head}.a": (2048, 1)}
    shapes |= {"gat.out_att.W": (2048, 512), "gat.out_att.a": (1024, 1)}
    return shapes | affine("gene_head.0", 1024, 512) | affine("gene_head.2", 1024) | affine("gene_head.3", 5, 1024)


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return torch.tensor(0)
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if leaf == "running_var":
        noise = 1 + 0.1 * np.abs(noise)
    elif leaf == "running_mean" or leaf.startswith("bias"):
        noise = 0.1 * noise
    elif len(shape) == 1:
        noise = 1 + 0.1 * noise
    else:
        noise = noise / np.sqrt(np.prod(shape) / shape[0])
    return torch.from_numpy(noise)


def small_network(gat_softmax: Any = "official") -> THItoGeneNetwork:
    network = THItoGeneNetwork(
        N_GENES, 8, 3, 4, 1, 2, graph_heads=2, mlp_width=16, dropout=0.0, gat_softmax=gat_softmax
    ).double()
    network.load_state_dict(from_published({name: drawn(name, shape) for name, shape in published_shapes().items()}))
    return network


XY = np.array([(i // 4, i % 4) for i in range(N_SPOTS)])
ADJACENCY = (np.abs(XY[:, None] - XY[None]).sum(axis=2) == 1).astype(int)
ADJACENCY[0, 1] = 0
PATCHES = torch.from_numpy(np.random.RandomState(1).randint(0, 256, (N_SPOTS, 3, 112, 112)) / 255)
COUNTS = torch.from_numpy(np.random.RandomState(2).poisson(2.0, (N_SPOTS, N_GENES)).astype(float))
EXPRESSION = torch.log10(1 + 1e4 * COUNTS / COUNTS.sum(dim=1, keepdim=True))


@pytest.fixture
def grid() -> dict[str, torch.Tensor]:
    return {"array_xy": torch.from_numpy(XY)} | graph_of(ADJACENCY)


def summary(x: torch.Tensor) -> list[float]:
    flat = x.detach().flatten()
    return [x.mean().item(), x.std(correction=0).item(), flat[0].item(), flat[1].item(), flat[-1].item()]


@torch.no_grad()
def test_small_network_has_the_specified_intermediate_values(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().eval()
    assert sum(p.numel() for p in network.parameters()) == 1_796_804
    channels, filters, places, kernels = network.dynamic.gates(PATCHES)
    convolved = network.dynamic(PATCHES)
    capsules = network.capsules
    maps1 = F.relu(capsules.norm1(capsules.conv1(F.relu(convolved))))
    maps2 = F.relu(capsules.norm2(capsules.conv2(maps1)))
    maps3 = F.relu(capsules.norm3(capsules.conv3(maps2)))
    maps4 = capsules.maps(F.relu(convolved))
    primary = squash(capsules.primary(maps4).flatten(1).unflatten(1, (16, 8)))
    routed = network.embed(PATCHES)
    xy = grid["array_xy"]
    tokens = torch.cat([routed, network.x_embedding(xy[:, :1]), network.y_embedding(xy[:, 1:])], dim=1).flatten(1)
    attended = network.blocks(tokens[None])
    graph = {"edges": grid["edges"], "unreferenced": grid["unreferenced"]}
    heads = F.elu(network.graph(attended[0], **graph))
    textbook = F.elu(small_network("neighbours").eval().graph(attended[0], **graph))
    out = F.elu(network.graph_out(heads, **graph))
    expected = {
        "channel gate": (channels, [0.546610763, 0.056672907, 0.603919882, 0.566944337, 0.468978270]),
        "filter gate": (filters, [0.485854042, 0.142800710, 0.427028189, 0.723385681, 0.313454414]),
        "spatial gate": (places, [0.456820249, 0.139015066, 0.305687362, 0.375812614, 0.529143306]),
        "kernel gate": (kernels, [0.25, 0.060454325, 0.184889079, 0.328607489, 0.197676471]),
        "dynamic convolution": (convolved, [0.000533021, 0.006719766, -0.001858744, 0.001035565, 0.003067266]),
        "conv1": (maps1, [0.049099860, 0.104260542, 0.0, 0.0, 0.0]),
        "conv2": (maps2, [0.090347361, 0.121221619, 0.0, 0.0, 0.0]),
        "conv3": (maps3, [0.108421718, 0.138390349, 0.166887436, 0.168797149, 0.0]),
        "conv4": (maps4, [0.076082592, 0.125068011, 0.196574600, 0.194648654, 0.0]),
        "primary capsules": (primary, [-0.014143619, 0.127880456, -0.026165703, -0.041640786, 0.062572335]),
        "routed capsules": (routed, [0.002516912, 0.030302950, -0.052970611, 0.011109478, 0.019489756]),
        "tokens": (tokens, [0.002842656, 0.280803343, -0.052970611, 0.011109478, -0.368423572]),
        "Transformer": (attended, [0.020839016, 0.784016103, -0.532254500, 0.139766745, 0.264320799]),
        "graph head 0": (heads[:, :1024], [0.005873380, 0.095771310, 0.047987455, 0.009242362, 0.038328618]),
        "graph head 0, neighbours": (
            textbook[:, :1024], [0.005977803, 0.097014436, 0.162592006, 0.031315147, 0.058045424]),
        "graph output": (out, [0.005165048, 0.159344535, 0.110331894, 0.012922670, -0.142471711]),
        "prediction": (network.head(out), [0.665095808, 0.700317874, 0.875416965, 0.063004698, 0.075050218]),
    }  # fmt: skip
    for stage, (values, numbers) in expected.items():
        np.testing.assert_allclose(summary(values), numbers, rtol=0, atol=1e-8, err_msg=stage)
    x = torch.einsum("ni,hio->nho", attended[0], network.graph.weight)
    sums = torch.zeros(N_SPOTS, dtype=torch.float64)
    sums.index_add_(0, grid["edges"][1], network.graph.attention(x, grid["edges"])[:, 0])
    expected_sums = [0.29514, 0.363033, 1.33202, 0.786568, 2.806827, 0.512698, 0.948337, 1.751215, 1.530998, 0.423436]
    np.testing.assert_allclose(sums, [*expected_sums, 0.577929, 0.671799], atol=1e-6)


@pytest.mark.parametrize(
    ("gat_softmax", "first_row"),
    [
        ("official", [0.875416965, 0.063004698, 1.201397776, 1.027806395, 0.720075993]),
        ("neighbours", [-0.904290807, 0.896389979, 0.321844865, 0.263405269, 1.119853303]),
    ],
)
@torch.no_grad()
def test_small_network_predicts_the_specified_values(
    gat_softmax: str, first_row: list[float], grid: dict[str, torch.Tensor]
) -> None:
    prediction = small_network(gat_softmax).eval()(PATCHES, **grid)
    np.testing.assert_allclose(prediction[0], first_row, atol=1e-8)
    if gat_softmax == "official":
        assert F.mse_loss(prediction, EXPRESSION).item() == pytest.approx(6.606928912013583, abs=1e-8)


def test_small_network_trains_as_specified(grid: dict[str, torch.Tensor]) -> None:
    network = small_network().train()
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    norms = {
        "dynamic.weight": 22.427822989, "dynamic.kernel.weight": 0.823167509, "capsules.conv1.weight": 11.004475696,
        "capsules.primary.weight": 4.832486027, "capsules.routing.weight": 11.469305385,
        "capsules.routing.prior": 1.089527861, "x_embedding.weight": 3.240111953, "blocks.0.qkv.weight": 11.211907027,
        "graph_out.weight": 38.594513895, "graph_out.score": 0.2870031, "head.3.weight": 57.386174915,
    }  # fmt: skip
    for step, expected in enumerate((6.494368463613321, 10.118497319, 2.597706166)):
        loss = F.mse_loss(network(PATCHES, **grid), EXPRESSION)
        assert loss.item() == pytest.approx(expected, abs=1e-8)
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            for name, norm in norms.items():
                assert network.get_parameter(name).grad.norm().item() == pytest.approx(norm, abs=1e-7), name
            assert network.graph.weight.grad[0].norm().item() == pytest.approx(39.251910347, abs=1e-7)
            assert network.graph.score.grad[1].norm().item() == pytest.approx(0.255263967, abs=1e-8)
            running = network.capsules.norm1.running_mean[:3]
            np.testing.assert_allclose(running, [0.081455979, 0.136374672, -0.096445602], atol=1e-8)
        optimiser.step()


@pytest.mark.parametrize("gat_softmax", ["official", "neighbours"])
@torch.no_grad()
def test_spots_may_come_in_any_order(gat_softmax: str, grid: dict[str, torch.Tensor]) -> None:
    network = small_network(gat_softmax).eval()
    order = np.random.default_rng(0).permutation(N_SPOTS)
    permuted = {"array_xy": grid["array_xy"][order]} | graph_of(ADJACENCY[order][:, order])
    np.testing.assert_allclose(network(PATCHES[order], **permuted), network(PATCHES, **grid)[order], atol=1e-12)


# Checks that stand alone.


def test_squash_is_the_specified_one_and_has_a_gradient_at_any_length() -> None:
    np.testing.assert_allclose(squash(torch.tensor([3.0, 4.0])), [0.595957231801, 0.794609742401], rtol=1e-6)
    for vector in (torch.zeros(4), torch.full((4,), 1e3)):  # the published form has a NaN gradient from length 88
        vector.requires_grad_()
        squash(vector).sum().backward()
        assert torch.isfinite(vector.grad).all()
    assert squash(torch.zeros(4)).eq(0).all()


def dense_official(layer: GraphAttention, x: torch.Tensor, adjacency: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The published layer as it is written down: scores of all pairs, masked, softmax over the receiving spots."""
    x = torch.einsum("ni,hio->hno", x, layer.weight)
    to_receiver, to_source = layer.score.chunk(2, dim=1)
    scores = torch.einsum("hno,ho->hn", x, to_receiver)[:, :, None] + torch.einsum("hno,ho->hn", x, to_source)[:, None]
    masked = F.leaky_relu(scores, 0.01).masked_fill(torch.from_numpy(adjacency == 0), -9e15)
    attention = masked.softmax(dim=1)
    return attention, (attention @ x).transpose(0, 1).flatten(1)


@pytest.mark.parametrize("change", ["none", "column 7", "row 7"])
@torch.no_grad()
def test_sparse_attention_equals_the_dense_published_one(change: str) -> None:
    torch.manual_seed(0)
    layer = GraphAttention(20, 16, 3, dropout=0.0).double().eval()
    x, adjacency = torch.randn(N_SPOTS, 20, dtype=torch.float64), ADJACENCY.copy()
    if change == "column 7":
        adjacency[:, 7] = 0
    elif change == "row 7":
        adjacency[7] = 0
    attention, expected = dense_official(layer, x, adjacency)
    np.testing.assert_allclose(layer(x, **graph_of(adjacency)), expected, atol=1e-14)
    np.testing.assert_allclose(attention.sum(dim=1), 1)
    if change == "column 7":
        np.testing.assert_allclose(attention[:, :, 7], 1 / 12)
    elif change == "row 7":
        assert attention[:, 7].eq(0).all()
        assert layer(x, **graph_of(adjacency))[7].eq(0).all()


@torch.no_grad()
def test_neighbours_softmax_equals_torch_geometrics_attention() -> None:
    torch.manual_seed(0)
    layer = GraphAttention(20, 16, 8, dropout=0.0, softmax="neighbours").double().eval()
    library = GATConv(20, 16, heads=8, negative_slope=0.01, add_self_loops=False, bias=False).double()
    library.lin.weight.copy_(layer.weight.permute(0, 2, 1).flatten(0, 1))
    library.att_dst.copy_(layer.score[None, :, :16])
    library.att_src.copy_(layer.score[None, :, 16:])
    x, graph = torch.randn(N_SPOTS, 20, dtype=torch.float64), graph_of(ADJACENCY)
    np.testing.assert_allclose(layer(x, **graph), library(x, graph["edges"]), atol=1e-14)


@torch.no_grad()
def test_open_gates_make_an_ordinary_convolution() -> None:
    torch.manual_seed(0)
    layer = DynamicConvolution().eval()
    for gate in (layer.channel, layer.filter, layer.spatial):
        torch.nn.init.zeros_(gate.weight)
        torch.nn.init.constant_(gate.bias, 1e4)
    torch.nn.init.zeros_(layer.kernel.weight)
    for side in (112, 115):
        patches = torch.rand(3, 3, side, side)
        expected = F.conv2d(patches, layer.weight.unflatten(0, (4, 16)).mean(dim=0), stride=4)
        np.testing.assert_allclose(layer(patches), expected, atol=1e-5)


@torch.no_grad()
def test_routing_begins_as_specified_and_gives_nothing_where_its_weights_are_nothing() -> None:
    torch.manual_seed(0)
    routing, capsules = Routing(16, 8, 20, 64), torch.randn(3, 16, 8)
    assert routing.weight.std().item() == pytest.approx(np.sqrt(2 / 8192), rel=0.02)
    torch.nn.init.zeros_(routing.weight)
    assert routing(capsules).eq(0).all()


@pytest.mark.parametrize(
    ("parameters", "n_genes", "n_layers"),
    [(63_586_712, 785, 4), (109_136_690, 171, 8), (62_957_362, 171, 4), (63_484_212, 685, 4)],
)
def test_full_networks_have_the_published_number_of_parameters(parameters: int, n_genes: int, n_layers: int) -> None:
    with torch.device("meta"):
        network = THItoGeneNetwork(n_genes, n_layers=n_layers)
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("side", [107, 108, 115, 116])
def test_patches_of_108_to_115_pixels_are_taken(side: int) -> None:
    network = THItoGeneNetwork(3, 8, 2, 4, 1, 1, 4, 1, 16, graph_widths=(4, 4)).eval()
    patches = torch.rand(2, 3, side, side)
    graph = graph_of(np.array([[0, 1], [1, 0]]))
    if side in (107, 116):
        with pytest.raises(ValueError, match="108 to 115"):
            network(patches, torch.zeros(2, 2, dtype=torch.long), **graph)
    else:
        assert network(patches, torch.zeros(2, 2, dtype=torch.long), **graph).shape == (2, 3)
