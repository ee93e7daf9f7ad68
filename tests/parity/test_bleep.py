"""BLEEP computes what the published network computes: embeddings, loss, gradients, training steps and retrieval."""

from __future__ import annotations

from pathlib import Path

import golden
import numpy as np
import pytest
import sine
import torch

from stbench.methods.bleep import BLEEP, BLEEPNetwork, random_fifth
from stbench.methods.checkpoints.bleep import PUBLISHED_NAMES
from stbench.methods.checkpoints.bleep import load as load_published
from stbench.methods.checkpoints.names import rename
from stbench.methods.layers.contrastive import logits, one_hot_loss, soft_loss, soft_targets, soft_terms
from stbench.methods.layers.retrieval import nearest, neighbour_weights, retrieve
from stbench.training.encoders import build_encoder

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def build(stored: dict[str, np.ndarray]) -> BLEEPNetwork:
    """The golden network; image features enter where the image encoder's output would."""
    config = golden.config(stored)
    network = BLEEPNetwork(
        torch.nn.Identity(),
        config["image_embedding"],
        config["spot_embedding"],
        config["projection_dim"],
        config["dropout"],
    )
    weights = {name: torch.from_numpy(array) for name, array in golden.weights(stored).items()}
    network.load_state_dict(rename(weights, PUBLISHED_NAMES))
    return network


def published_loss(network: BLEEPNetwork, stored: dict[str, np.ndarray]) -> torch.Tensor:
    temperature = golden.config(stored)["temperature"]
    features, expression = (torch.from_numpy(stored[f"input.{name}"]) for name in ("image_features", "expression"))
    spots, images = network(features, expression)
    return soft_loss(logits(spots, images, temperature), soft_targets(spots, images, temperature))


@pytest.mark.parametrize("path", golden.files("bleep"), ids=golden.name)
def test_embeddings_loss_and_gradients_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network = build(stored).eval()
    with torch.no_grad():
        images = network.embed_images(torch.from_numpy(stored["input.image_features"]))
        spots = network.embed_spots(torch.from_numpy(stored["input.expression"]))
    np.testing.assert_allclose(images, stored["output.image_embeddings"], **CLOSE)
    np.testing.assert_allclose(spots, stored["output.spot_embeddings"], **CLOSE)
    loss = published_loss(network, stored)
    np.testing.assert_allclose(loss.item(), stored["loss.contrastive"], **CLOSE)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    for key in (key for key in stored if key.startswith("grad.")):
        np.testing.assert_allclose(gradients[key.removeprefix("grad.")], stored[key], **CLOSE, err_msg=key)


@pytest.mark.parametrize("path", golden.files("bleep"), ids=golden.name)
def test_training_steps_are_the_published_ones(path: Path) -> None:
    stored = golden.read(path)
    network = build(stored).train()
    dropouts = [module for module in network.modules() if isinstance(module, torch.nn.Dropout)]
    for module in dropouts:
        module.p = 0.0
    optimiser, _ = BLEEP(BLEEP.Config()).optimiser(network, torch.device("cpu"))
    for expected in stored["train.losses_adamw_lr1e3_wd1e3"]:
        loss = published_loss(network, stored)
        np.testing.assert_allclose(loss.item(), expected, **CLOSE)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize("path", golden.files("bleep"), ids=golden.name)
def test_retrieval_is_the_published_one(path: Path) -> None:
    stored = golden.read(path)
    names = ("queries", "keys", "key_expression")
    queries, keys, values = (torch.from_numpy(stored[f"retrieval.{name}"]) for name in names)
    k = int(stored["retrieval.k"])
    # the published float32 product may order keys otherwise whose similarities are equal to its rounding
    similarity = torch.cosine_similarity(queries[:, None].double(), keys[None].double(), dim=2)
    ours, published = nearest(queries, keys, k), torch.from_numpy(stored["retrieval.indices"])
    np.testing.assert_allclose(similarity.gather(1, ours), similarity.gather(1, published), atol=1e-6)
    prediction = retrieve(queries, keys, values, k, "average")
    np.testing.assert_allclose(prediction, stored["retrieval.prediction_average"], **CLOSE)


# The specification's small configuration with a real ResNet-50: every tensor filled with a sine of its name, float64.

EXACT = {"rtol": 0, "atol": 1e-8}


@pytest.fixture(scope="module")
def network() -> BLEEPNetwork:
    encoder = build_encoder("resnet50")
    network = BLEEPNetwork(encoder.module, encoder.n_features, n_genes=12, n_dimensions=8).double()
    state = sine.filled({published_name(name): value for name, value in network.state_dict().items()})
    network.load_state_dict(rename(state, PUBLISHED_NAMES))
    return network.eval()


def published_name(name: str) -> str:
    return name.replace("image_encoder.", "image_encoder.model.")


@pytest.fixture(scope="module")
def embeddings(network: BLEEPNetwork) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.no_grad():
        return network(sine.IMAGES, sine.EXPRESSION)


def test_the_network_has_the_published_tensors(network: BLEEPNetwork) -> None:
    names = [published_name(name) for name in network.state_dict()]
    assert len(names) == 330
    assert sum(name.startswith("image_encoder.model.") for name in names) == 318
    assert network.state_dict()["image_encoder.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    branches = (network.image_encoder, network.image_projection, network.spot_projection)
    assert [sine.n_parameters(branch) for branch in branches] == [23_508_032, 16_480, 192]


@pytest.mark.parametrize(
    ("n_genes", "parameters"), [(3467, 25_052_992), (785, 24_366_400), (171, 24_209_216), (685, 24_340_800)]
)
def test_full_networks_have_the_published_number_of_parameters(n_genes: int, parameters: int) -> None:
    with torch.device("meta"):
        assert sine.n_parameters(BLEEP(BLEEP.Config()).network({"n_genes": n_genes})) == parameters


@torch.no_grad()
def test_sine_filled_network_embeds_as_specified(network: BLEEPNetwork, embeddings) -> None:
    features = network.image_encoder(sine.IMAGES)
    np.testing.assert_allclose(features[0, :4], [7.633852037, 3.390398925, 0, 0], **EXACT)
    assert features.mean().item() == pytest.approx(8.633947308, abs=1e-8)
    assert features.min().item() == 0
    spots, images = embeddings
    expected = [
        -1.988308614,
        0.145027361,
        1.343213469,
        1.020804965,
        -0.082786123,
        -0.792017721,
        -0.392462398,
        0.548582750,
    ]
    np.testing.assert_allclose(images[0], expected, **EXACT)
    assert images.abs().sum().item() == pytest.approx(37.794728158, abs=1e-8)
    expected = [
        -0.307610706,
        -1.345511412,
        1.056824953,
        0.403072953,
        -0.549317770,
        1.779448235,
        0.241721337,
        -1.290050814,
    ]
    np.testing.assert_allclose(spots[0], expected, **EXACT)
    assert spots.abs().sum().item() == pytest.approx(43.459869578, abs=1e-8)


def test_sine_filled_network_has_the_specified_loss(embeddings) -> None:
    z, targets = logits(*embeddings), soft_targets(*embeddings)
    expected = [0.081044625, -3.040402482, 2.301736216, -2.788407420, -0.986502740, -1.159947615]
    np.testing.assert_allclose(z.diagonal(), expected, **EXACT)
    expected = [0.525526941, 0.540740714, 0.971434190, 0.442536468, 0.936014418, 0.435469098]
    np.testing.assert_allclose(targets.diagonal(), expected, **EXACT)
    expected = [0.954419001, 0.919909401, 0.992376414, 1.065718521, 0.970089185, 1.097487479]
    np.testing.assert_allclose(targets.sum(dim=0), expected, **EXACT)
    spot_term, image_term = soft_terms(z, targets)
    assert spot_term.item() == pytest.approx(1.791390655758, abs=1e-8)
    assert image_term.item() == pytest.approx(3.402090963763, abs=1e-8)
    assert soft_loss(z, targets).item() == pytest.approx(2.596740809760, abs=1e-8)


@pytest.mark.parametrize(
    ("form", "loss", "diagonal"),
    [
        ("divide", 4.130720148631, [0.646958609, 0.690507236, 0.999630218, 0.610628257, 0.997451975, 0.566073272]),
        ("multiply", 4.130626156743, [0.395455284, 0.391270652, 0.756062351, 0.335594977, 0.681349760, 0.339695283]),
    ],
)
def test_a_temperature_of_a_half_divides_or_multiplies_as_specified(embeddings, form, loss, diagonal) -> None:
    targets = soft_targets(*embeddings, 0.5, form)
    np.testing.assert_allclose(targets.diagonal(), diagonal, **EXACT)
    assert soft_loss(logits(*embeddings, 0.5), targets).item() == pytest.approx(loss, abs=1e-8)


@pytest.mark.parametrize(("detached", "norm"), [(False, 4.525335235), (True, 4.525576244)])
def test_gradients_flow_through_the_targets_unless_they_are_detached(network, detached, norm) -> None:
    weight = network.spot_projection.projection.weight
    spots, images = network.embed_spots(sine.EXPRESSION), network.embed_images(sine.IMAGES)
    targets = soft_targets(spots, images)
    (gradient,) = torch.autograd.grad(
        soft_loss(logits(spots, images), targets.detach() if detached else targets), [weight]
    )
    assert gradient.norm().item() == pytest.approx(norm, abs=1e-8)


@pytest.mark.parametrize(
    ("weighting", "expected"),
    [
        (
            "average",
            [
                [1.167276519, 1.187732989, 1.470629494],
                [1.346589581, 1.095364759, 1.275538977],
                [1.147511448, 1.202949975, 1.517102887],
            ],
        ),
        (
            "exponential",
            [
                [1.272736097, 1.080705489, 1.389263036],
                [1.258665773, 1.104274515, 1.307283356],
                [0.992606845, 1.227192747, 1.603982313],
            ],
        ),
        (
            "nearest",
            [
                [0.824236970, 0.150302242, 1.088042222],
                [0.558830996, 0.430239976, 1.313973197],
                [1.607568853, 1.981214711, 1.869790111],
            ],
        ),
    ],
)
def test_retrieval_gives_the_specified_values(weighting, expected) -> None:
    np.testing.assert_allclose(retrieve(sine.QUERIES, sine.KEYS, sine.VALUES, 4, weighting), expected, **EXACT)


def test_exponential_weights_are_the_specified_ones() -> None:
    published = np.array([0.367879441, 0.209918854, 0.203121899, 0.044310196])
    weights = neighbour_weights(sine.QUERIES, sine.KEYS, nearest(sine.QUERIES, sine.KEYS, 4), "exponential")
    np.testing.assert_allclose(weights[0], published / published.sum(), **EXACT)


# Behaviour


@torch.no_grad()
def test_an_embedding_does_not_depend_on_its_batch_but_the_loss_does(network: BLEEPNetwork, embeddings) -> None:
    spots, images = network(sine.IMAGES[:3], sine.EXPRESSION[:3])
    np.testing.assert_allclose(spots, embeddings[0][:3], atol=1e-12)
    np.testing.assert_allclose(images, embeddings[1][:3], atol=1e-10)
    whole, half = (soft_loss(logits(*e), soft_targets(*e)) for e in (embeddings, (spots, images)))
    assert abs(whole - half) > 0.1


def test_the_loss_does_not_depend_on_the_order_of_the_batch(embeddings) -> None:
    order = [3, 0, 5, 1, 4, 2]
    shuffled = [e[order] for e in embeddings]
    torch.testing.assert_close(
        soft_loss(logits(*shuffled), soft_targets(*shuffled)), soft_loss(logits(*embeddings), soft_targets(*embeddings))
    )


def test_dividing_and_multiplying_are_the_same_at_temperature_one(embeddings) -> None:
    torch.testing.assert_close(soft_targets(*embeddings, 1.0, "multiply"), soft_targets(*embeddings, 1.0, "divide"))


def test_one_hot_targets_give_the_usual_contrastive_loss(embeddings) -> None:
    z = logits(*embeddings)
    torch.testing.assert_close(one_hot_loss(z), soft_loss(z, torch.eye(len(z), dtype=z.dtype)))


def test_the_split_by_spot_has_the_published_sizes() -> None:
    held_out = random_fifth(6992)
    assert (6992 - len(held_out), len(held_out)) == (5593, 1399)
    order = torch.randperm(6992, generator=torch.Generator().manual_seed(42))
    torch.testing.assert_close(held_out, order[5593:])


@torch.no_grad()
def test_a_published_checkpoint_loads_whatever_its_prefix(network: BLEEPNetwork, embeddings, tmp_path: Path) -> None:
    state = {
        "module." + published_name(name).replace("spot", "well"): value for name, value in network.state_dict().items()
    }
    torch.save(state, tmp_path / "best.pt")
    loaded = load_published(tmp_path / "best.pt").double()
    torch.testing.assert_close(loaded.embed_spots(sine.EXPRESSION), embeddings[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loaded.embed_images(sine.IMAGES), embeddings[1], rtol=1e-5, atol=1e-5)
