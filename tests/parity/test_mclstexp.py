"""mclSTExp computes what the published network computes: embeddings, loss, gradients, training steps and retrieval."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import golden
import numpy as np
import pytest
import sine
import torch
from torch import Tensor, nn

from stbench.errors import UserError
from stbench.methods.checkpoints.mclstexp import PUBLISHED_NAMES
from stbench.methods.checkpoints.mclstexp import load as load_published
from stbench.methods.checkpoints.names import rename
from stbench.methods.layers.contrastive import logits, one_hot_loss
from stbench.methods.layers.retrieval import nearest, neighbour_weights, retrieve
from stbench.methods.mclstexp import (
    LearnablePositions,
    MclSTExp,
    MclSTExpNetwork,
    SignedDenseNet,
    key_sequences,
)
from stbench.training.encoders import build_encoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def build(stored: dict[str, np.ndarray]) -> MclSTExpNetwork:
    """The golden network; image features enter where the image encoder's output would."""
    config = golden.config(stored)
    network = MclSTExpNetwork(
        nn.Identity(),
        config["image_dim"],
        LearnablePositions(config["n_pos"], config["spot_dim"]),
        config["spot_dim"],
        config["projection_dim"],
        config["heads_num"],
        config["heads_dim"],
        config["head_layers"],
    )
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    network.load_state_dict(rename(weights, PUBLISHED_NAMES))
    return network


def published_loss(network: MclSTExpNetwork, stored: dict[str, np.ndarray]) -> Tensor:
    names = ("image_features", "expression", "positions")
    spots, images = network(*(torch.from_numpy(stored[f"input.{name}"]) for name in names))
    return one_hot_loss(logits(spots, images, golden.config(stored)["temperature"]))


@pytest.mark.parametrize("path", golden.files("mclstexp"), ids=golden.name)
def test_embeddings_loss_and_gradients_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network = build(stored).eval()
    with torch.no_grad():
        images = network.embed_images(torch.from_numpy(stored["input.image_features"]))
        inputs = (torch.from_numpy(stored[f"input.{name}"]) for name in ("expression", "positions"))
        np.testing.assert_allclose(network.embed_spots(*inputs), stored["output.spot_embeddings"], **CLOSE)
    np.testing.assert_allclose(images, stored["output.image_embeddings"], **CLOSE)
    loss = published_loss(network, stored)
    np.testing.assert_allclose(loss.item(), stored["loss.contrastive"], **CLOSE)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for key in (key for key in stored if key.startswith("grad.")):
        (ours,) = rename({key.removeprefix("grad."): torch.empty(0)}, PUBLISHED_NAMES)
        np.testing.assert_allclose(gradients[ours], stored[key], **CLOSE, err_msg=key)


@pytest.mark.parametrize("path", golden.files("mclstexp"), ids=golden.name)
def test_training_steps_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network = build(stored).train()
    optimiser, _ = MclSTExp(MclSTExp.Config()).optimiser(network, torch.device("cpu"))
    for expected in stored["train.losses_adam_lr1e4_wd1e3"]:
        loss = published_loss(network, stored)
        np.testing.assert_allclose(loss.item(), expected, **CLOSE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("path", golden.files("mclstexp"), ids=golden.name)
def test_retrieval_is_the_published_one(path: Path) -> None:
    stored = golden.read(path)
    names = ("queries", "keys", "key_expression")
    queries, keys, values = (torch.from_numpy(stored[f"retrieval.{name}"]) for name in names)
    k = int(stored["retrieval.k"])
    # the published float32 product may order keys otherwise whose similarities are equal to its rounding
    similarity = torch.cosine_similarity(queries[:, None].double(), keys[None].double(), dim=2)
    ours, published = nearest(queries, keys, k), torch.from_numpy(stored["retrieval.indices"])
    np.testing.assert_allclose(similarity.gather(1, ours), similarity.gather(1, published), atol=1e-6)
    for distance in ("l1", "l2"):
        prediction = retrieve(queries, keys, values, k, distance=distance)
        np.testing.assert_allclose(prediction, stored[f"retrieval.prediction_{distance}"], **CLOSE)


# The specification's small configuration, a real DenseNet-121: every tensor filled with a sine of its name, float64.

EXACT = {"rtol": 0, "atol": 1e-8}

OUR_NAMES = (
    (r"positions\.([xy]_embed\.weight)", r"\1"),
    (r"image_encoder\.features\.(.+)", r"image_encoder.model.0.\1"),
    (r"(spot_encoder\.\d+)\.attention_norm\.(\w+)", r"\1.attn.norm.\2"),
    (r"(spot_encoder\.\d+)\.qkv\.weight", r"\1.attn.fn.to_qkv.weight"),
    (r"(spot_encoder\.\d+)\.out\.(\w+)", r"\1.attn.fn.to_out.0.\2"),
    (r"(spot_encoder\.\d+)\.mlp_norm\.(\w+)", r"\1.ff.norm.\2"),
    (r"(spot_encoder\.\d+)\.expand\.(\w+)", r"\1.ff.fn.net.0.\2"),
    (r"(spot_encoder\.\d+)\.contract\.(\w+)", r"\1.ff.fn.net.3.\2"),
)
SHAPES = {
    r"[xy]_embed\.weight": (65_536, 12),
    r"spot_encoder\.[01]\.attn\.fn\.to_qkv\.weight": (24, 12),
    r"spot_encoder\.[01]\.attn\.fn\.to_out\.0\.weight": (12, 8),
    r"spot_encoder\.[01]\.ff\.fn\.net\.[03]\.weight": (12, 12),
    r"spot_encoder\.[01]\.(attn|ff)\.norm\.(weight|bias)": (12,),
    r"image_projection\.projection\.weight": (8, 1024),
    r"spot_projection\.projection\.weight": (8, 12),
    r"(image|spot)_projection\.(fc|layer_norm|projection)\.bias": (8,),
    r"image_encoder\.model\.0\.conv0\.weight": (64, 3, 7, 7),
    r"image_encoder\.model\.0\.denseblock3\.denselayer24\.norm1\.weight": (256 + 32 * 23,),
    r"image_encoder\.model\.0\.denseblock3\.denselayer24\.conv1\.weight": (128, 256 + 32 * 23, 1, 1),
    r"image_encoder\.model\.0\.denseblock\d\.denselayer\d+\.conv2\.weight": (32, 128, 3, 3),
    r"image_encoder\.model\.0\.transition3\.conv\.weight": (512, 1024, 1, 1),
    r"image_encoder\.model\.0\.norm5\.running_var": (1024,),
}


@pytest.fixture(scope="module")
def untrained() -> MclSTExpNetwork:
    encoder = build_encoder("densenet121")
    network = MclSTExpNetwork(
        SignedDenseNet(encoder.module), encoder.n_features, LearnablePositions(65_536, 12), 12, 8, 2, 4, 2
    ).double()
    state = sine.filled(rename(network.state_dict(), OUR_NAMES))
    network.load_state_dict(rename(state, PUBLISHED_NAMES))
    return network.eval()


@pytest.fixture
def network(untrained: MclSTExpNetwork) -> MclSTExpNetwork:
    return copy.deepcopy(untrained)


@pytest.fixture(scope="module")
def embeddings(untrained: MclSTExpNetwork) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        return untrained(sine.IMAGES, sine.EXPRESSION, sine.POSITIONS)


def test_the_network_has_the_published_tensors(untrained: MclSTExpNetwork) -> None:
    state = rename(untrained.state_dict(), OUR_NAMES)
    assert len(state) == 761
    assert sum(name.startswith("image_encoder.") for name in state) == 725
    assert sine.n_parameters(untrained) == 8_536_712
    for pattern, shape in SHAPES.items():
        found = [tuple(value.shape) for name, value in state.items() if re.fullmatch(pattern, name)]
        assert found, pattern
        assert set(found) == {shape}, pattern
    assert sine.phase("x_embed.weight") == pytest.approx(0.873363, abs=1e-6)
    assert sine.phase("image_encoder.model.0.conv0.weight") == pytest.approx(2.513274, abs=1e-6)


@pytest.mark.parametrize(("n_genes", "parameters"), [(785, 116_132_850), (171, 30_625_982), (685, 102_001_050)])
def test_full_networks_have_the_published_number_of_parameters(n_genes: int, parameters: int) -> None:
    with torch.device("meta"):
        network = MclSTExp(MclSTExp.Config()).network({"n_genes": n_genes, "n_slides": 31})
    assert sine.n_parameters(network) == parameters
    assert sine.n_parameters(network.image_encoder) == 6_953_856
    assert sine.n_parameters(network.positions) == 2 * 65_536 * n_genes


@torch.no_grad()
def test_sine_filled_network_embeds_as_specified(network: MclSTExpNetwork, embeddings) -> None:
    features = network.image_encoder(sine.IMAGES)
    np.testing.assert_allclose(features[0, :4], [3.576624145, 5.542827468, 5.907942521, 4.832801324], **EXACT)
    assert features.mean().item() == pytest.approx(0.0021015454, abs=1e-8)
    assert features.min().item() == pytest.approx(-12.996418885, abs=1e-8)
    z = network.place(sine.EXPRESSION, sine.POSITIONS)
    np.testing.assert_allclose(z[0, :4], [1.089771069, 1.402321462, 1.416859596, 1.306042508], **EXACT)
    mixed = network.spot_encoder(z)
    np.testing.assert_allclose(mixed[0, :4], [1.104587059, -0.905372929, 2.044385280, 4.319663766], **EXACT)
    spots, images = embeddings
    expected = [
        1.284653177,
        0.538872700,
        -0.262874371,
        -0.875535740,
        -1.123159913,
        -0.824552244,
        0.151854176,
        1.629746146,
    ]
    np.testing.assert_allclose(images[0], expected, **EXACT)
    assert images.abs().sum().item() == pytest.approx(40.075050330, abs=1e-8)
    expected = [
        -1.107217366,
        -0.865385193,
        1.287546444,
        -0.074616884,
        0.136732047,
        1.942095499,
        -0.555020819,
        -0.820265784,
    ]
    np.testing.assert_allclose(spots[0], expected, **EXACT)
    assert spots.abs().sum().item() == pytest.approx(41.647079015, abs=1e-8)


def test_sine_filled_network_has_the_specified_loss(embeddings) -> None:
    z = logits(*embeddings)
    expected = [-5.337894360, -0.361888754, -5.136244175, -0.513987343, 2.514577783, -5.425346608]
    np.testing.assert_allclose(z.diagonal(), expected, **EXACT)
    assert one_hot_loss(z, balance=0).item() == pytest.approx(1.790591374951, abs=1e-8)
    assert one_hot_loss(z, balance=1).item() == pytest.approx(4.979119404264, abs=1e-8)
    assert one_hot_loss(z).item() == pytest.approx(3.384855389607, abs=1e-8)
    assert one_hot_loss(logits(*embeddings, temperature=0.5)).item() == pytest.approx(5.774523152538, abs=1e-8)


@torch.no_grad()
def test_a_spot_depends_on_its_company_as_specified(network: MclSTExpNetwork, embeddings) -> None:
    three = network.embed_spots(sine.EXPRESSION[:3], sine.POSITIONS[:3])
    expected = [
        -1.105156864,
        -0.874433308,
        1.282372443,
        -0.077576590,
        0.131674414,
        1.949233716,
        -0.543283461,
        -0.815589456,
    ]
    np.testing.assert_allclose(three[0], expected, **EXACT)
    assert (three[0] - embeddings[0][0]).abs().max().item() == pytest.approx(0.0117373585, abs=1e-8)


def test_sine_filled_network_trains_as_specified(network: MclSTExpNetwork) -> None:
    optimiser, _ = MclSTExp(MclSTExp.Config()).optimiser(network.train(), torch.device("cpu"))
    loss = one_hot_loss(logits(*network(sine.IMAGES, sine.EXPRESSION, sine.POSITIONS)))
    assert loss.item() == pytest.approx(1.883871444006, abs=1e-8)
    loss.backward()
    norms = {
        network.positions.x_embed.weight: 0.085887057,
        network.positions.y_embed.weight: 0.085887057,
        network.spot_encoder[0].qkv.weight: 0.577521655,
        network.spot_encoder[1].contract.bias: 0.061950143,
        network.image_projection.projection.weight: 12.625787657,
        network.image_encoder.features.norm5.bias: 0.398947780,
    }
    for parameter, norm in norms.items():
        assert parameter.grad.norm().item() == pytest.approx(norm, abs=1e-8)
    used = network.positions.x_embed.weight.grad.abs().sum(dim=1).nonzero().flatten()
    assert used.tolist() == [3, 10, 17, 24, 31, 38]
    total = nn.utils.clip_grad_norm_(network.parameters(), float("inf"))
    assert total.item() == pytest.approx(20.371522030, abs=1e-8)
    before = network.positions.x_embed.weight[100].detach().clone()
    optimiser.step()
    with torch.no_grad():
        loss = one_hot_loss(logits(*network.eval()(sine.IMAGES, sine.EXPRESSION, sine.POSITIONS)))
    assert loss.item() == pytest.approx(1.890384505, abs=1e-8)
    # L2 inside Adam moves a row that no spot has by about lr towards zero
    moved = network.positions.x_embed.weight[100].detach() - before
    np.testing.assert_allclose(moved, -1e-4 * before.sign(), atol=1e-6)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        (
            "l2",
            [
                [0.888401701, 0.287787699, 1.133327749],
                [0.792087734, 0.652410032, 1.306157341],
                [0.963934064, 1.257387699, 1.630543550],
            ],
        ),
        (
            "l1",
            [
                [0.907426083, 0.332921488, 1.152462185],
                [0.847880349, 0.704388313, 1.298406137],
                [0.940034228, 1.248683091, 1.633986197],
            ],
        ),
        (
            "cosine",
            [
                [0.825797079, 0.153405745, 1.089060746],
                [0.591522536, 0.462016811, 1.311990822],
                [0.985038864, 1.357173379, 1.689029158],
            ],
        ),
    ],
)
def test_retrieval_gives_the_specified_values(distance, expected) -> None:
    indices = nearest(sine.QUERIES, sine.KEYS, 4)
    assert indices.tolist() == [[6, 9, 3, 2], [4, 1, 7, 8], [9, 2, 6, 5]]
    np.testing.assert_allclose(retrieve(sine.QUERIES, sine.KEYS, sine.VALUES, 4, distance=distance), expected, **EXACT)
    if distance == "l2":
        weights = neighbour_weights(sine.QUERIES, sine.KEYS, indices, "inverse-square", "l2")
        np.testing.assert_allclose(weights[0], [0.916490733, 0.037615903, 0.035612350, 0.010281014], **EXACT)


# Behaviour


@torch.no_grad()
def test_permuting_a_batch_permutes_the_spots_and_leaves_the_loss(network: MclSTExpNetwork, embeddings) -> None:
    order = [3, 0, 5, 1, 4, 2]
    shuffled = network(sine.IMAGES[order], sine.EXPRESSION[order], sine.POSITIONS[order])
    torch.testing.assert_close(shuffled[0], embeddings[0][order])
    torch.testing.assert_close(one_hot_loss(logits(*shuffled)), one_hot_loss(logits(*embeddings)))


@torch.no_grad()
def test_an_image_embedding_does_not_depend_on_its_batch(network: MclSTExpNetwork, embeddings) -> None:
    torch.testing.assert_close(network.embed_images(sine.IMAGES[:2]), embeddings[1][:2], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("context", "leaks"), [("chunks", False), ("slice", False), ("straddling", True)])
@torch.no_grad()
def test_only_straddling_sequences_carry_one_slice_into_the_keys_of_another(
    network: MclSTExpNetwork, context, leaks
) -> None:
    offsets = (0, 40, 76)  # neither border is a multiple of 32
    rng = np.random.default_rng(0)
    expression, positions = (
        torch.from_numpy(rng.uniform(0, 4, (76, 12))),
        torch.from_numpy(rng.integers(0, 40, (76, 2))),
    )

    def keys(expression: Tensor) -> Tensor:
        sequences = key_sequences(offsets, context, 32)
        return torch.cat([network.embed_spots(expression[spots], positions[spots]) for spots in sequences])

    changed = expression.clone()
    changed[40:] = changed[40:].flip(1)
    moved = (keys(changed) - keys(expression)).abs().amax(dim=1)
    assert (moved[:40] > 1e-9).any().item() is leaks
    assert (moved[40:] > 1e-9).all()


@torch.no_grad()
def test_a_published_checkpoint_loads_whatever_its_prefix(network: MclSTExpNetwork, embeddings, tmp_path: Path) -> None:
    state = rename(network.state_dict(), OUR_NAMES)
    state = {"module." + name.replace("spot", "well"): value.float() for name, value in state.items()}
    torch.save(state, tmp_path / "best_0.pt")
    loaded = load_published(tmp_path / "best_0.pt", heads=2).double()
    spots, images = loaded(sine.IMAGES, sine.EXPRESSION, sine.POSITIONS)
    torch.testing.assert_close(spots, embeddings[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(images, embeddings[1], rtol=1e-4, atol=1e-4)


def test_another_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(UserError, match="not a published mclSTExp checkpoint"):
        load_published(tmp_path / "other.pt")
