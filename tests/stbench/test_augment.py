"""Augmentation on the device against torchvision's functions on single images."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from stbench.methods.layers.pixels import encoder_input
from stbench.training import augment


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def patches(n: int, side: int = 12, seed: int = 1) -> torch.Tensor:
    nhwc = torch.randint(0, 256, (n, side, side, 3), dtype=torch.uint8, generator=generator(seed))
    return nhwc.permute(0, 3, 1, 2)  # as a patch bank hands them out


def symmetry_of(image: np.ndarray, original: np.ndarray) -> int:
    """Index in STnet's table of the symmetry that made ``image``; both (side, side, 3)."""
    turned = [original, np.rot90(original)]
    table = [*turned, *map(np.flipud, turned)]
    table += [np.fliplr(entry) for entry in table]
    found = [k for k, entry in enumerate(table) if np.array_equal(entry, image)]
    assert len(found) == 1
    return found[0]


def test_the_symmetries_are_stnets_eight_in_its_order():
    image = patches(1)
    numpy_image = image[0].permute(1, 2, 0).numpy()
    order = [symmetry_of(out[0].permute(1, 2, 0).numpy(), numpy_image) for out in augment.symmetries(image)]
    assert order == list(range(8))


@pytest.mark.parametrize("function", [augment.flip_and_quarter_turn, augment.flip_and_quarter_turns])
def test_flips_and_turns_draw_all_eight_symmetries_evenly_and_one_per_image(function):
    images = patches(1, side=5).expand(4000, -1, -1, -1)
    original = images[0].permute(1, 2, 0).numpy()
    out = function(images, generator()).permute(0, 2, 3, 1).numpy()
    counts = np.bincount([symmetry_of(image, original) for image in out], minlength=8)
    assert out.dtype == np.uint8
    # 500 each expected, standard deviation 21
    assert counts.min() > 400
    assert counts.max() < 600


@pytest.mark.parametrize("floating", [False, True])
def test_flips_and_turns_are_those_of_the_draws_one_after_the_other(floating):
    """Left-right, up-down, a quarter turn, for BLEEP half a turn: in this order, each with a draw for every image."""
    images = torch.randint(0, 256, (64, 6, 6, 3), dtype=torch.uint8).permute(0, 3, 1, 2)
    images = images / 255 if floating else images
    draws = torch.Generator().manual_seed(3)
    across, down, turn, half = (torch.rand(64, generator=draws) < 0.5 for _ in range(4))
    quarter, whole = [], []
    for place, image in enumerate(images):
        image = image.flip(-1) if across[place] else image
        image = image.flip(-2) if down[place] else image
        image = image.rot90(1, (-2, -1)) if turn[place] else image
        quarter.append(image)
        whole.append(image.rot90(2, (-2, -1)) if half[place] else image)
    for function, expected in ((augment.flip_and_quarter_turn, quarter), (augment.flip_and_quarter_turns, whole)):
        found = function(images, torch.Generator().manual_seed(3))
        assert torch.equal(found, torch.stack(expected))
        assert found.is_contiguous(memory_format=torch.channels_last)


def test_flips_happen_with_the_probability_asked_for():
    images = patches(1, side=4).expand(2000, -1, -1, -1)
    flipped = (augment.hflip(images, generator(), p=0.2) != images).flatten(1).any(1).float().mean()
    assert 0.16 < flipped < 0.24
    assert torch.equal(augment.hflip(images, generator(), p=1.0), images.flip(-1))
    assert torch.equal(augment.vflip(images, generator(), p=1.0), images.flip(-2))
    assert torch.equal(augment.vflip(images, generator(), p=0.0), images)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_colours_are_adjusted_as_torchvision_does_in_any_order(order):
    image = augment.to_float(patches(1))
    factors = (0.6, 1.4, 0.5)
    functions = (reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation)
    expected = image[0]
    for which in order:
        expected = functions[which](expected, factors[which])
    found = augment.adjust_colours(image, torch.tensor([factors]), torch.tensor([order]))[0]
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=0)


def test_colour_jitter_makes_its_adjustments_in_each_of_the_six_orders():
    """Which order an image met is told by trying all six with the factors that it was given."""
    n = 600
    images = augment.to_float(patches(1, side=6)).expand(n, -1, -1, -1)
    out = augment.colour_jitter(images, generator())
    draws = torch.rand((n, 3), generator=generator())
    factors = 0.5 + draws  # uniform in [0.5, 1.5]
    orders = list(itertools.permutations(range(3)))
    tried = torch.stack(
        [augment.adjust_colours(images, factors, torch.tensor([order]).expand(n, 3)) for order in orders]
    )
    error = (tried - out).abs().flatten(2).amax(2)  # (6, n)
    assert error.amin(0).max() < 1e-6
    clear = error.sort(0).values[1] > 1e-3  # images whose order can be told
    met = torch.bincount(error[:, clear].argmin(0), minlength=6) / clear.sum()
    assert clear.sum() > n / 2
    assert met.min() > 0.08  # one in six expected
    assert met.max() < 0.26


def test_colour_jitter_gives_each_image_factors_and_an_order_of_its_own():
    images = augment.to_float(patches(1)).expand(64, -1, -1, -1)
    out = augment.colour_jitter(images, generator())
    assert len(torch.unique(out.flatten(1), dim=0)) == 64
    assert out.min() >= 0
    assert out.max() <= 1
    # a factor of exactly 1 everywhere changes nothing
    torch.testing.assert_close(augment.colour_jitter(images, generator(), 0, 0, 0), images, atol=1e-6, rtol=0)


def test_brightness_factors_are_uniform_in_the_stated_range():
    flat = torch.full((4000, 3, 2, 2), 0.4)  # grey and flat: contrast and saturation leave it as it is
    factors = augment.colour_jitter(flat, generator(), brightness=0.5, contrast=0, saturation=0)[:, 0, 0, 0] / 0.4
    assert 0.5 <= factors.min() < 0.52
    assert 1.48 < factors.max() <= 1.5
    assert abs(factors.mean() - 1) < 0.02


@pytest.mark.parametrize("angle", [-180.0, -90.0, -33.0, 0.0, 17.5, 45.0, 90.0, 151.0])
@pytest.mark.parametrize("side", [11, 32])
def test_rotation_is_torchvisions_with_nearest_neighbour_and_black_corners(angle, side):
    images = augment.to_float(patches(3, side))
    found = augment.rotate_by(images, torch.tensor([0.0, angle, -angle]))
    for image, out, degrees in zip(images, found, (0.0, angle, -angle), strict=True):
        expected = reference.rotate(image, degrees, interpolation=InterpolationMode.NEAREST)
        # a point half way between two pixels may fall to either
        assert (out == expected).all(dim=0).float().mean() > 0.97


def test_rotation_draws_an_angle_per_image_within_the_limits():
    image = torch.zeros(1, 3, 41, 41)
    image[:, :, 20, 30] = 1  # right of the centre
    out = augment.rotate(image.expand(200, -1, -1, -1), generator(), 60)[:, 0]
    rows, columns = out.flatten(1).argmax(1) // 41 - 20, out.flatten(1).argmax(1) % 41 - 20
    angles = torch.rad2deg(torch.atan2(-rows.float(), columns.float()))[out.flatten(1).max(1).values > 0]
    assert angles.abs().max() <= 64
    assert angles.min() < -45
    assert angles.max() > 45


def test_grey_is_torchvisions():
    images = augment.to_float(patches(4))
    expected = reference.rgb_to_grayscale(images)
    torch.testing.assert_close(augment.to_grey(images), expected, atol=1e-6, rtol=0)


def test_standardising_is_per_channel():
    images = augment.to_float(patches(2))
    mean, std = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.4])
    expected = reference.normalize(images, mean.tolist(), std.tolist())
    torch.testing.assert_close(augment.standardise(images, mean, std), expected)


@pytest.mark.parametrize(
    "function",
    [
        augment.flip_and_quarter_turn,
        augment.flip_and_quarter_turns,
        augment.colour_jitter,
        augment.rotate,
    ],
)
def test_the_same_generator_state_gives_the_same_images_and_leaves_torchs_own_alone(function):
    images = augment.to_float(patches(8))
    before = torch.get_rng_state()
    assert torch.equal(function(images, generator(3)), function(images, generator(3)))
    assert not torch.equal(function(images, generator(3)), function(images, generator(4)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("side", [7, 28, 112])
def test_places_are_those_that_torch_samples(side):
    angles = torch.rand(40, generator=generator()) * 360 - 180
    image = torch.arange(1, side**2 + 1).float().view(1, 1, side, side)
    sampled = augment.rotate_by(image.expand(40, -1, -1, -1), angles)[:, 0]
    places = augment.turned_places(side, angles)
    assert torch.equal(torch.where(places == side**2, 0, places + 1).float(), sampled)


@pytest.mark.parametrize("way", range(16))
def test_every_way_to_draw_moves_pixels_as_flips_and_turns_do(way, monkeypatch):
    images = patches(1, 12)
    draws = iter([torch.tensor([0.2 if way & bit else 0.7]) for bit in (1, 2, 4, 8)])
    monkeypatch.setattr(augment.torch, "rand", lambda *_, **__: next(draws))
    expected = images.flip(-1) if way & 1 else images
    expected = expected.flip(-2) if way & 2 else expected
    expected = expected.rot90(1, (-2, -1)) if way & 4 else expected
    expected = expected.rot90(2, (-2, -1)) if way & 8 else expected
    assert torch.equal(augment.flip_and_quarter_turns(images, generator()), expected)
    looked_up = augment._looked_up(images, torch.tensor([way]))  # as on a GPU
    assert torch.equal(looked_up, expected)
    assert looked_up.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("n", [1, 15, 16, 19])
def test_images_changed_a_few_at_a_time_have_the_numbers_of_all_at_once(n, threads, monkeypatch):
    monkeypatch.setattr(augment, "BLOCK", 4)
    torch.set_num_threads(threads)  # which share what is summed over
    images, theirs, ours = patches(n, side=48), generator(5), generator(5)
    jittered = augment.colour_jitter(augment.to_float(images), theirs)
    expected = augment.rotate(augment.hflip(jittered, theirs), theirs)
    found = augment.jitter_flip_and_rotate(images, ours)
    assert torch.equal(found, expected)
    assert torch.equal(ours.get_state(), theirs.get_state())
    assert n < 8 or found.is_contiguous(memory_format=torch.channels_last)  # as the network takes them


def test_no_image_is_changed_alone_and_rows_stay_with_their_images(monkeypatch):
    monkeypatch.setattr(augment, "BLOCK", 4)
    sizes, rows = [], torch.arange(19.0).view(-1, 1)

    def change(block: torch.Tensor, drawn: torch.Tensor) -> torch.Tensor:
        sizes.append(len(block))
        return block.float() + drawn[:, :, None, None]

    images = patches(19)
    assert torch.equal(augment.in_blocks(change, images, rows), images + rows[:, :, None, None])
    assert (sum(sizes), min(sizes)) == (19, 4)


def test_colours_are_adjusted_in_a_copy():
    images = augment.to_float(patches(3))
    before = images.clone()
    augment.colour_jitter(images, generator())
    assert torch.equal(images, before)


@pytest.mark.parametrize("scale", ["unit", "imagenet", "bgr-255"])
def test_a_contrastive_methods_input_is_the_same_in_blocks(scale, monkeypatch):
    monkeypatch.setattr(augment, "BLOCK", 100)
    images = patches(19)
    for augmentation in ("jitter-flip-rotate", "flip-quarter-turns", "none"):
        whole = encoder_input(images, scale, augmentation, generator())
        with monkeypatch.context() as patch:
            patch.setattr(augment, "BLOCK", 4)
            assert torch.equal(encoder_input(images, scale, augmentation, generator()), whole)
