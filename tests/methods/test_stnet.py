"""STnet against golden values of the published implementation, and its options."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
import torchvision

from stbench.errors import Interrupted, UserError
from stbench.method import Method, Run, TestSlide, configure
from stbench.methods import stnet
from stbench.methods.checkpoints.names import rename
from stbench.methods.checkpoints.stnet import PUBLISHED_NAMES
from stbench.methods.checkpoints.stnet import load as load_published
from stbench.methods.stnet import STNet, STNetConfig, STNetwork, choose_epoch, input_statistics
from stbench.torch_method import Batch, TestBatch, TrainingData
from stbench.training import augment
from stbench.training.encoders import build_encoder
from stbench.training.patch_bank import PatchBank

# Parity: the published network, with weights that a rule makes --------------------------------------------------------


def sine_fill(key: str, like: torch.Tensor) -> torch.Tensor:
    """Weights by a rule, from an entry's published name."""
    wave = torch.sin(0.37 * torch.arange(like.numel(), dtype=torch.float64) + sum(map(ord, key)) % 97)
    wave = wave.view(like.shape)
    if key.endswith("running_var"):
        return 1 + 0.5 * wave
    if key.endswith("running_mean"):
        return 0.1 * wave
    if like.dim() == 1 and key.endswith("weight"):
        return 1 + 0.1 * wave
    if like.dim() >= 2:
        return wave * math.sqrt(2 / like[0].numel())
    return 0.1 * wave


def published_state(n_genes: int = 3) -> dict[str, torch.Tensor]:
    """An official checkpoint's entry ``model``: torchvision's DenseNet-121, keys prefixed ``module.``."""
    with torch.device("meta"):
        model = torchvision.models.densenet121(num_classes=n_genes)
    return {
        f"module.{key}": torch.zeros((), dtype=torch.int64) if key.endswith("tracked") else sine_fill(key, value)
        for key, value in model.state_dict().items()
    }


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return published_state()


@pytest.fixture
def network(published) -> STNetwork:
    """The filled network in float64, in eval mode; its inputs are taken as standardised."""
    network = STNetwork(build_encoder("densenet121"), 3).double()
    network.load_state_dict(rename(published, PUBLISHED_NAMES), strict=False)
    return network.eval()


def sine_images(n: int, side: int) -> torch.Tensor:
    return torch.sin(0.013 * torch.arange(n * 3 * side * side, dtype=torch.float64)).view(n, 3, side, side)


def cosine_targets(n: int) -> torch.Tensor:
    return torch.cos(0.3 * torch.arange(n * 3, dtype=torch.float64)).view(n, 3)


def test_the_state_dict_is_the_published_one(published, network):
    own = {key for key in network.state_dict() if not key.startswith("input_")}
    assert len(published) == 727
    assert set(rename(published, PUBLISHED_NAMES)) == own
    assert sum(p.numel() for p in network.parameters()) == 6_956_931
    assert network.head.weight.shape == (3, 1024)


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        (64, [[-1.148671500786, 3.003445280897, -0.975218710388], [-1.148660397220, 3.003417025346, -0.975212140196]]),
        (224, [[-1.612467440058, 4.784079973204, -1.625204177743], [-1.612487093374, 4.784228069364, -1.625277158110]]),
    ],
)
def test_outputs_are_the_published_ones(network, side, expected):
    images = sine_images(2, side)
    with torch.no_grad():
        np.testing.assert_allclose(network(images).numpy(), expected, rtol=0, atol=1e-9)
        if side == 64:
            assert network.encoder(images).sum().item() == pytest.approx(1766.990782812, abs=1e-6)
            single = network.float()(images.float())
            np.testing.assert_allclose(single.numpy(), expected, rtol=0, atol=1e-4)


class Fixed(STNet):
    """STnet's objective on images that are given as they are."""

    def _augmented(self, batch: Batch) -> torch.Tensor:
        return batch.patches

    def predict_batch(self, network: torch.nn.Module, batch: TestBatch) -> torch.Tensor:
        return network(batch.patches)


def batch_of(images: torch.Tensor, target: torch.Tensor) -> Batch:
    n = len(images)
    index = torch.arange(n)
    xy = torch.zeros(n, 2)
    return Batch(
        images, xy.long(), xy, {}, target, torch.zeros_like(target).int(), index, index * 0, index, torch.Generator(), 1
    )


def test_the_loss_is_summed_over_spots_and_averaged_over_genes(network):
    batch = batch_of(sine_images(2, 64), cosine_targets(2))
    with torch.no_grad():
        exact = Fixed(STNetConfig()).loss(network, batch)
        mean = Fixed(STNetConfig(loss_reduction="mean")).loss(network, batch)
    assert exact["loss"].item() == pytest.approx(7.752198661498, abs=2e-8)
    assert mean["loss"].item() == pytest.approx(7.752198661498 / 2, abs=2e-8)


def training_losses(network: STNetwork, lr: float, target: torch.Tensor) -> list[float]:
    method = Fixed(STNetConfig(lr=lr))
    optimiser, _ = method.optimiser(network, torch.device("cpu"))
    network.train()
    losses = []
    for _ in range(4):
        loss = method.loss(network, batch_of(sine_images(4, 64), target))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses


def test_training_steps_are_the_published_ones(network):
    losses = training_losses(network, 1e-4, cosine_targets(4))
    assert losses == pytest.approx([9.0928453775, 9.4064711290, 7.8470307261, 6.6246112715], abs=2e-8)


def test_training_steps_from_the_published_start_are_the_published_ones(network):
    target = cosine_targets(4)
    torch.nn.init.zeros_(network.head.weight)
    network.head.bias.data.copy_(target.mean(0))
    losses = training_losses(network, 1e-3, target)
    assert losses == pytest.approx([2.1665534437, 1.7739022767, 2.4209496114, 1.5535305065], abs=2e-8)


def test_the_average_over_symmetries_is_the_published_one(network):
    row, column = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    channels = [3 * column + row, column + 5 * row, 7 * column + 2 * row]
    patch = torch.stack([channel % 256 for channel in channels]).to(torch.uint8)[None]
    network.input_mean.copy_(torch.tensor(stnet.FIXED_MEAN, dtype=torch.float64))
    network.input_std.copy_(torch.tensor(stnet.FIXED_STD, dtype=torch.float64))
    with torch.no_grad():
        each = torch.cat([network(image.double() / 255) for image in augment.symmetries(patch)])
        expected = [-1.172065, -1.164709, -1.160447, -1.173926, -1.164044, -1.173543, -1.163948, -1.164151]
        np.testing.assert_allclose(each[:, 0].numpy(), expected, atol=1e-6)
        average = [-1.167104325654, 3.141081028318, -1.042876613184]
        np.testing.assert_allclose(each.mean(0).numpy(), average, atol=1e-6)
        own = network.float().average_of_symmetries(patch)
    np.testing.assert_allclose(own[0].numpy(), average, atol=1e-5)


def test_torchvisions_weights_load_and_give_its_own_predictions(tmp_path):
    torch.manual_seed(0)
    reference = torchvision.models.densenet121().eval()
    torch.save(reference.state_dict(), tmp_path / "densenet121.pth")
    reference.classifier = torch.nn.Linear(1024, 5)
    network = STNetwork(build_encoder("densenet121", str(tmp_path / "densenet121.pth")), 5).eval()
    network.head.load_state_dict(reference.classifier.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images), reference(images), rtol=0, atol=1e-6)


def test_a_published_checkpoint_is_loaded_without_unpickling_anything_else(published, network, tmp_path):
    torch.save({"model": published, "optim": {"state": {}, "param_groups": []}}, tmp_path / "best.pt")
    loaded = load_published(tmp_path / "best.pt")
    images = sine_images(2, 64)
    with torch.no_grad():
        np.testing.assert_allclose(loaded(images.float()).numpy(), network(images).numpy(), atol=1e-4)
    for name, content in {
        "other": {"fc.weight": torch.ones(1)},
        "short": {"module.classifier.weight": torch.ones(3, 1024)},
    }.items():
        torch.save(content, tmp_path / name)
        with pytest.raises(UserError, match="is not a published STnet checkpoint") as caught:
            load_published(tmp_path / name)
        assert "\n" not in str(caught.value)


# The method -----------------------------------------------------------------------------------------------------------

SMALL = {"encoder": "resnet18", "weights": "random", "patch_px": 32, "epochs": 1, "tta": "none"}


def config(**changes) -> STNetConfig:
    return STNetConfig(**{**SMALL, **changes})


def started(method: STNet, slides, seed: int = 0) -> tuple[STNetwork, TrainingData]:
    """The untrained network as training finds it."""
    data = TrainingData(slides, PatchBank(slides, method.config.patch_px))
    torch.manual_seed(seed)
    network = method.network(method.describe(data))
    method.start(network, data, Run(seed=seed))
    return network, data


def test_it_is_a_method_with_the_published_settings_as_its_defaults():
    method = STNet(configure(STNet, "published"))
    assert isinstance(method, Method)
    c = method.config
    assert (c.encoder, c.weights, c.epochs, c.batch_size, c.patch_px) == ("densenet121", "imagenet", 50, 32, 224)
    assert (c.optimiser, c.lr, c.momentum, c.weight_decay) == ("sgd", 1e-6, 0.9, 0)
    assert (c.loss_reduction, c.head_init, c.norm, c.norm_patches) == ("sum_spots", "zero_mean", "train", 384)
    assert (c.augment, c.tta, c.select, c.freeze_trunk, c.lr_scale_genes) == ("d4", "d4", "last", False, False)
    assert method.weights_label == "imagenet (densenet121-a639ec97)"
    assert not method.needs.whole_slide


@pytest.mark.parametrize("preset", sorted(STNet.presets))
def test_a_preset_sets_what_it_names_and_nothing_else(preset):
    """Also on a dataset, where the preset's own settings come first."""
    name, _, dataset = preset.partition("/")
    expected = dict(STNet.presets[name]) | dict(STNet.presets[preset])
    assert expected.items() <= configure(STNet, name, dataset).model_dump().items()
    assert configure(STNet, name, dataset).model_dump(exclude=set(expected)) == STNetConfig().model_dump(
        exclude=set(expected)
    )


def test_it_has_the_presets_that_the_report_names():
    assert {"published", "tuned", "histogene_stmodel", "quick"} <= set(STNet.presets)


def test_the_reading_of_histogenes_authors_has_their_settings():
    """github.com/maxpmx/HisToGene, STModel: ResNet-101, Adam, 1e-5, a mean squared error, nothing standardised."""
    fields = configure(STNet, "histogene_stmodel")
    assert (fields.encoder, fields.optimiser, fields.lr, fields.loss_reduction) == ("resnet101", "adam", 1e-5, "mean")
    assert (fields.norm, fields.tta, fields.augment, fields.head_init) == ("none", "none", "jitter_rot180", "default")


def test_every_option_is_documented():
    assert all(field.description for field in STNetConfig.model_fields.values())


def test_the_untrained_network_predicts_the_training_mean_of_every_gene(make_training_slides):
    slides = make_training_slides(side=32)
    network, _ = started(STNet(config()), slides)
    mean = np.concatenate([s.target for s in slides]).astype(np.float64).mean(0)
    with torch.no_grad():
        out = network.eval()(torch.rand(3, 3, 32, 32))
    assert not network.head.weight.any()
    np.testing.assert_allclose(network.head.bias.detach(), mean, atol=1e-6)
    np.testing.assert_allclose(out, np.tile(mean, (3, 1)), atol=1e-6)


def test_the_first_gradient_reaches_the_head_alone(make_training_slides):
    slides = make_training_slides(side=64)
    method = STNet(config(encoder="densenet121", patch_px=64))
    network, data = started(method, slides)
    (whole_set,) = data.batches([torch.arange(data.n_spots)])
    network.train()
    method.loss(network, whole_set)["loss"].backward()
    assert all(not p.grad.any() for p in network.encoder.parameters())
    assert network.head.weight.grad.abs().max() > 1e-3
    assert network.head.bias.grad.abs().max() < 1e-4


def test_input_statistics_are_of_384_training_patches_with_the_population_deviation(make_training_slides):
    slides = make_training_slides(n_slides=2, n_spots=250, side=8)
    seen: list[int] = []

    class Watched(TrainingData):
        def batches(self, groups, *arguments, **options):
            seen.extend(int(i) for group in groups for i in group)
            return super().batches(groups, *arguments, **options)

    data = Watched(slides, PatchBank(slides, 8))
    method = STNet(config(patch_px=8))
    mean, std = method._input_statistics(data, Run(seed=3))
    assert len(seen) == len(set(seen)) == 384
    pixels = np.concatenate([s.patches for s in slides])[seen].reshape(-1, 3) / 255.0
    np.testing.assert_allclose(mean, pixels.mean(0), atol=1e-6)
    np.testing.assert_allclose(std, pixels.std(0), atol=1e-6)
    again = method._input_statistics(data, Run(seed=3))
    other = method._input_statistics(data, Run(seed=4))
    assert torch.equal(mean, again[0])
    assert not torch.equal(mean, other[0])
    few = make_training_slides(n_slides=1, n_spots=20, side=8)
    seen.clear()
    method._input_statistics(Watched(few, PatchBank(few, 8)), Run())
    assert sorted(seen) == list(range(20))


@pytest.mark.parametrize(
    ("norm", "mean", "std"),
    [
        ("imagenet", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ("fixed", (0.54, 0.51, 0.68), (0.25, 0.21, 0.16)),
        ("none", (0, 0, 0), (1, 1, 1)),
    ],
)
def test_other_input_statistics_can_be_chosen_and_are_saved(make_training_slides, tmp_path, norm, mean, std):
    slides = make_training_slides(n_slides=1, n_spots=4, side=64)
    method = STNet(config(norm=norm, patch_px=64))
    method.fit(slides, Run())
    method.save(tmp_path)
    loaded = STNet.load(tmp_path).trained
    np.testing.assert_allclose(loaded.input_mean, mean)
    np.testing.assert_allclose(loaded.input_std, std)


def test_a_constant_channel_does_not_make_the_input_infinite(make_training_slides):
    slides = make_training_slides(n_slides=1, side=8)
    black = [s.__class__(**{**vars(s), "patches": np.zeros_like(s.patches)}) for s in slides]
    mean, std = input_statistics(TrainingData(black, PatchBank(black, 8)), torch.arange(20))
    assert torch.isfinite(augment.standardise(torch.zeros(1, 3, 8, 8), mean, std)).all()


@pytest.mark.parametrize("name", ["d4", "jitter_rot180", "none"])
def test_augmentation_is_of_the_named_kind_and_off_outside_training(make_training_slides, name):
    slides = make_training_slides(side=32)
    method = STNet(config(augment=name))
    network, data = started(method, slides)
    network.head.weight.data.normal_(0, 0.1)
    (batch,) = data.batches([torch.arange(10)], torch.Generator().manual_seed(1))
    images = method._augmented(batch)
    plain = augment.to_float(batch.patches)
    same_pixels = torch.equal(images.flatten(2).sort(-1).values, plain.flatten(2).sort(-1).values)
    assert images.shape == (10, 3, 32, 32)
    assert torch.equal(images, plain) == (name == "none")
    assert same_pixels == (name != "jitter_rot180")
    network.eval()
    with torch.no_grad():
        first, second = (method.loss(network, batch)["loss"] for _ in range(2))
        assert torch.equal(first, second)
        expected = (network(plain) - batch.target).square().sum() / 6
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW])
def test_the_heads_learning_rate_can_follow_the_number_of_genes(kind):
    name = kind.__name__.lower()
    network = STNetwork(build_encoder("resnet18"), 500)
    optimiser, _ = STNet(config(optimiser=name, lr=1e-3, lr_scale_genes=True)).optimiser(network, torch.device("cpu"))
    assert type(optimiser) is kind
    assert [group["lr"] for group in optimiser.param_groups] == [2e-3, 1e-3]
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(network.parameters()))


def test_a_frozen_trunk_is_left_as_it_was_batch_norms_included(make_training_slides):
    slides = make_training_slides(n_slides=1, n_spots=12, side=64)
    initial: dict[str, torch.Tensor] = {}

    class Watched(STNet):
        def start(self, network, data, run):
            super().start(network, data, run)
            initial.update({key: value.clone() for key, value in network.state_dict().items()})

    method = Watched(config(freeze_trunk=True, patch_px=64, optimiser="adamw", lr=1e-2))
    method.fit(slides, Run())
    changed = {key for key, value in method.trained.state_dict().items() if not torch.equal(value, initial[key])}
    assert changed == {"head.weight", "head.bias"}


def test_predictions_do_not_depend_on_batches_and_average_the_symmetries(
    make_training_slides, hide_expression, monkeypatch
):
    slides = make_training_slides(n_slides=1, n_spots=10, side=64)
    method = STNet(config(tta="d4", patch_px=64, optimiser="adamw", lr=1e-3))
    method.fit(slides, Run())
    test = hide_expression(slides[0])
    whole = method.predict(test)
    monkeypatch.setattr(STNet, "predict_batch_size", 3)
    np.testing.assert_allclose(method.predict(test), whole, atol=1e-5)
    turned = TestSlide(**{**vars(test), "patches": np.ascontiguousarray(np.rot90(test.patches, axes=(1, 2)))})
    np.testing.assert_allclose(method.predict(turned), whole, atol=1e-4)
    method.config = method.config.model_copy(update={"tta": "none"})
    assert np.abs(method.predict(turned) - whole).max() > 1e-3


def test_it_learns_what_the_image_shows(make_training_slides, hide_expression):
    """A gene that follows the patch's redness, on a slide never seen, beside five that follow nothing."""
    *slides, held_out = make_training_slides(n_slides=3, n_spots=60, side=32)
    method = STNet(configure(STNet, "quick", changes={"weights": "random", "patch_px": 32, "epochs": 8}))
    method.fit(slides, Run(seed=1))
    predicted = method.predict(hide_expression(held_out))
    assert np.corrcoef(predicted[:, 0], held_out.target[:, 0])[0, 1] > 0.5
    assert method.weights_label == "random"


# Choice of the epoch --------------------------------------------------------------------------------------------------


class Line(STNet):
    """STnet with a network of one parameter, so that inner cross-validation costs nothing."""

    def network(self, shape):
        with torch.random.fork_rng():
            return STNetwork(
                type(
                    "E",
                    (),
                    {"module": torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()), "n_features": 3},
                ),
                shape["n_genes"],
            )

    def start(self, network, data, run):
        torch.nn.init.zeros_(network.head.weight)
        network.head.bias.data.copy_(data.target[data.training_spots].mean(0))


@pytest.fixture
def line(monkeypatch):
    class Inner(stnet._InnerFold, Line):
        pass

    inner: list[Inner] = []

    def remembered(config):
        inner.append(Inner(config))
        return inner[-1]

    monkeypatch.setattr(stnet, "_InnerFold", remembered)
    return inner


def test_the_chosen_epoch_has_the_lowest_error_over_all_held_out_patients(make_training_slides, line):
    slides = make_training_slides(n_slides=10, n_spots=7, side=8)  # patients P0 to P4
    settings = config(select="inner_cv", epochs=6, lr=3e-2, patch_px=8, batch_size=4)
    chosen = choose_epoch(settings, slides, Run(seed=2))
    assert [m.held_out for m in line] == [("P0", "P4"), ("P1",), ("P2",), ("P3",)]
    # a fold's error is the sum over its held-out spots, however they fall into batches
    batches = [7, 4, 4, 4]
    totals = [
        sum(m.history[e]["validation_squared_error"] * n for m, n in zip(line, batches, strict=True)) for e in range(6)
    ]
    assert chosen == 1 + int(np.argmin(totals))
    assert len({round(total, 6) for total in totals}) > 1


def test_a_batch_that_takes_in_a_single_spot_counts_once(make_training_slides, monkeypatch):
    """65 spots in batches of 32 are two batches, 32 and 33 spots: the mean over them weighs two batches, not three."""
    first, *_, second = make_training_slides(n_slides=3, n_spots=65)
    arrays = ("patches", "array_xy", "pixel_xy", "target", "counts", "total_counts")
    second = dataclasses.replace(second, **{name: getattr(second, name)[:64] for name in arrays})
    means = {65: [10.0, 12.0], 64: [13.0, 10.5]}  # of two batches each: sums 20, 24 and 26, 21

    def fit(self, slides, run):
        (held_out,) = [slide for slide in slides if slide.patient in self.held_out]
        self.history = [{"validation_squared_error": mean} for mean in means[held_out.n_spots]]

    monkeypatch.setattr(stnet._InnerFold, "fit", fit)
    chosen = choose_epoch(config(select="inner_cv", epochs=2, batch_size=32), [first, second], Run())
    assert chosen == 2  # 45 against 46; three batches for two would make it 57 against 56


def test_training_then_runs_for_the_chosen_number_of_epochs(make_training_slides, monkeypatch):
    slides = make_training_slides(n_slides=4, n_spots=6, side=8)
    monkeypatch.setattr(stnet, "choose_epoch", lambda config, slides, run: 2)
    method = Line(config(select="inner_cv", epochs=6, patch_px=8))
    method.fit(slides, Run())
    assert [row["epoch"] for row in method.history] == [1, 2]
    two = Line(config(epochs=2, patch_px=8))
    two.fit(slides, Run())
    assert torch.equal(method.trained.head.bias, two.trained.head.bias)


def test_an_interrupted_choice_of_the_epoch_goes_on(make_training_slides, line, tmp_path):
    slides = make_training_slides(n_slides=6, n_spots=6, side=8)
    settings = config(select="inner_cv", epochs=4, lr=3e-2, patch_px=8, batch_size=4)
    expected = choose_epoch(settings, slides, Run(seed=2))
    histories = [[row["validation_loss"] for row in m.history] for m in line]
    steps = iter(range(30))  # an inner fold asks 23 times: stop in the second one
    run = Run(seed=2, checkpoint_directory=tmp_path, should_stop=lambda: next(steps, None) is None)
    with pytest.raises(Interrupted):
        choose_epoch(settings, slides, run)
    line.clear()
    epochs: list[int] = []
    again = Run(seed=2, checkpoint_directory=tmp_path, on_log=lambda e, _: epochs.append(e))
    assert choose_epoch(settings, slides, again) == expected
    assert [[row["validation_loss"] for row in m.history] for m in line] == histories
    assert not again.notes
    assert not epochs  # inner trainings are not the trial's history


def test_choosing_the_epoch_needs_two_patients(make_training_slides):
    """A fold of one training patient keeps the last epoch, and says so: it is no reason to have no number at all."""
    slides, run = make_training_slides(n_slides=2), Run()
    with pytest.raises(UserError, match="at least two patients"):
        choose_epoch(config(select="inner_cv"), slides, run)
    method = STNet(config(select="inner_cv"))
    method.fit(slides, run)
    assert method.chosen_epoch is None
    assert any("needs two training patients" in note for note in run.notes)
