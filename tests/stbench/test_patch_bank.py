"""The patches that a network sees: the right pixels, the same whether resident or streamed, read only once."""

from __future__ import annotations

import copy
import os
import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from exchanging import predict_exchanged
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from stbench.errors import DamagedFileError
from stbench.method import TestSlide
from stbench.scores.alarms import part_of
from stbench.slides.content import with_content
from stbench.system.files import file_digest
from stbench.training import patch_store
from stbench.training.patch_bank import PatchBank
from stbench.training.patch_store import ResidentPatches, release_resident_patches
from stbench.training.windows import central_windows


@pytest.fixture(autouse=True)
def nothing_resident():
    release_resident_patches()
    yield
    release_resident_patches()


def slide(n: int, side: int, seed: int = 0, patches: np.ndarray | None = None) -> TestSlide:
    if patches is None:
        patches = np.random.default_rng(seed).integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    zeros = np.zeros((len(patches), 2))
    return TestSlide(f"S{seed}", "P", patches, zeros.astype(np.int64), zeros, None)


def on_disk(path, n: int, side: int, seed: int) -> TestSlide:
    """A slide as the harness hands it out: its patches are a read-only memory map, and its content has a key."""
    np.save(path, slide(n, side, seed).patches)
    return with_content(slide(n, side, seed, np.load(path, mmap_mode="r")), file_digest(path))


def all_of(bank: PatchBank, groups) -> list[torch.Tensor]:
    return [patches.clone() for _, patches in bank.stream(groups)]


@pytest.mark.parametrize("resident", [True, False])
def test_patches_come_channel_first_in_the_order_asked_for(resident):
    slides = [slide(5, 8, 1), slide(4, 8, 2)]
    pixels = np.concatenate([s.patches for s in slides])
    bank = PatchBank(slides, patch_px=8, resident=resident)
    wanted = [torch.tensor([7, 0, 3, 3]), torch.tensor([8])]
    for (index, patches), group in zip(bank.stream(wanted), wanted, strict=True):
        assert torch.equal(index, group)
        assert patches.dtype == torch.uint8
        assert patches.is_contiguous(memory_format=torch.channels_last)
        assert np.array_equal(patches.permute(0, 2, 3, 1).numpy(), pixels[group.numpy()])
    assert len(bank) == 9


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize(("start", "stop"), [(0, 5), (5, 9), (3, 7), (0, 9)])
def test_a_run_of_spots_is_the_same_spots_one_by_one(resident, start, stop):
    bank = PatchBank([slide(5, 8, 1), slide(4, 8, 2)], patch_px=8, resident=resident)
    (one_by_one,) = all_of(bank, [torch.arange(start, stop)])
    (run,) = all_of(bank, [slice(start, stop)])
    assert torch.equal(run, one_by_one)


@pytest.mark.parametrize("patch_px", [4, 6, 7])
def test_the_centre_of_a_larger_window_is_taken(patch_px):
    large = slide(2, 12)
    (found,) = all_of(PatchBank([large], patch_px), [slice(0, 2)])
    start = 6 - patch_px // 2  # the window's pixel 6 is the spot's centre
    expected = large.patches[:, start : start + patch_px, start : start + patch_px]
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), expected)


def test_a_smaller_window_is_used_whole_and_the_run_is_told_once():
    notes: list[str] = []
    bank = PatchBank([slide(2, 8, 1), slide(2, 8, 2)], patch_px=16, note=notes.append)
    (found,) = all_of(bank, [slice(0, 4)])
    assert found.shape == (4, 3, 16, 16)
    assert len(notes) == 1
    assert "16 px" in notes[0]
    assert "8 px" in notes[0]


@pytest.mark.parametrize("input_px", [5, 8, 24])
def test_resizing_is_torchvisions_with_antialiasing(input_px):
    one = slide(3, 16)
    (found,) = all_of(PatchBank([one], 16, input_px), [slice(0, 3)])
    images = torch.from_numpy(one.patches).permute(0, 3, 1, 2)
    expected = reference.resize(images.float(), [input_px, input_px], antialias=True).round().clamp(0, 255)
    assert (found.float() - expected).abs().max() <= 1  # a value on the edge of two integers may fall to either
    assert (found == expected).float().mean() > 0.99


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.tuples(st.integers(1, 6), st.sampled_from([6, 9, 14])), min_size=1, max_size=4),
    patch_px=st.sampled_from([5, 9, 12]),
    input_px=st.sampled_from([4, 9]),
    data=st.data(),
)
def test_streamed_and_resident_patches_are_the_same_numbers(sizes, patch_px, input_px, data):
    slides = [slide(n, side, seed) for seed, (n, side) in enumerate(sizes)]
    n = sum(n for n, _ in sizes)
    groups = [
        torch.tensor(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=7)), dtype=torch.int64)
        for _ in range(3)
    ]
    resident = all_of(PatchBank(slides, patch_px, input_px, resident=True), groups)
    streamed = all_of(PatchBank(slides, patch_px, input_px, resident=False), groups)
    for one, other in zip(resident, streamed, strict=True):
        assert torch.equal(one, other)


def test_what_fits_in_memory_is_resident_and_what_does_not_is_streamed(monkeypatch):
    one = slide(10, 8)
    monkeypatch.setattr(patch_store, "room", lambda device, reusable=0, workers=None: 10 * 8 * 8 * 3)
    assert PatchBank([one], 8).resident
    assert not PatchBank([one], 8, input_px=9).resident


def test_streaming_reads_only_the_spots_asked_for(tmp_path):
    class Counting(np.ndarray):
        reads: list[int] = []  # noqa: RUF012 - shared by the views on purpose

        def __getitem__(self, key):
            if isinstance(key, int | np.integer):
                self.reads.append(int(key))
            return super().__getitem__(key)

    counted = slide(50, 6).patches.view(Counting)
    bank = PatchBank([slide(50, 6, patches=counted)], 6, resident=False)
    Counting.reads.clear()
    all_of(bank, [torch.tensor([40, 2, 17]), torch.tensor([3])])
    assert Counting.reads == [2, 17, 40, 3]  # forward through the file


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many slides were loaded each time that patches were made resident."""
    counts: list[int] = []
    filled = ResidentPatches.filled

    def counted(windows, input_px, device):
        counts.append(len(windows))
        return filled(windows, input_px, device)

    monkeypatch.setattr(ResidentPatches, "filled", counted)
    return counts


def resident_pixels(slides: list[TestSlide], patch_px: int = 6, **options: Any) -> np.ndarray:
    """(n_spots, S, S, 3): what a resident bank of the slides holds."""
    bank = PatchBank(slides, patch_px, resident=True, **options)
    (found,) = all_of(bank, [slice(0, len(bank))])
    return found.permute(0, 2, 3, 1).numpy()


def test_the_next_fold_of_a_dataset_loads_nothing_again(tmp_path, loaded):
    slides = [on_disk(tmp_path / f"{i}.npy", 4 + i, 6, i) for i in range(4)]
    for held_out in range(4):
        fold = [s for i, s in enumerate(slides) if i != held_out]
        assert np.array_equal(resident_pixels(fold), np.concatenate([s.patches for s in fold]))
    # the first fold's three; the second's missing one brings all four together; then nothing
    assert loaded == [3, 4]


def test_the_next_fold_of_slides_that_a_method_cut_loads_nothing_again(tmp_path, loaded):
    slides = [on_disk(tmp_path / f"{i}.npy", 4 + i, 9, i) for i in range(3)]
    for held_out in range(3):
        fold = [s for i, s in enumerate(slides) if i != held_out]
        cut = [central_windows(s, 6) for s in fold]
        assert np.array_equal(
            resident_pixels(cut, 9, input_px=6), np.concatenate([s.patches[:, 1:7, 1:7] for s in fold])
        )
    assert loaded == [2, 3]


def test_slides_of_another_dataset_take_the_place_of_what_was_kept(tmp_path, loaded):
    first, second = (on_disk(tmp_path / f"{i}.npy", 3, 6, i) for i in range(2))
    for one in (first, second, first):
        assert np.array_equal(resident_pixels([one]), one.patches)
    assert loaded == [1, 1, 1]


def test_what_does_not_fit_together_is_not_kept_together(tmp_path, loaded, monkeypatch):
    slides = [on_disk(tmp_path / f"{i}.npy", 4, 6, i) for i in range(3)]
    monkeypatch.setattr(patch_store, "room", lambda device, reusable=0, workers=None: 2 * 4 * 6 * 6 * 3)
    for held_out in range(3):
        fold = [s for i, s in enumerate(slides) if i != held_out]
        assert np.array_equal(resident_pixels(fold), np.concatenate([s.patches for s in fold]))
    assert loaded == [2, 2, 2]


def test_other_sizes_or_a_changed_file_are_loaded_anew(tmp_path):
    path = tmp_path / "a.npy"
    first = on_disk(path, 3, 6, 0)
    resident_pixels([first])
    assert resident_pixels([first], input_px=4).shape == (3, 4, 4, 3)
    assert resident_pixels([first], 4).shape == (3, 4, 4, 3)
    resident_pixels([first])
    second = on_disk(tmp_path / "b.npy", 3, 6, 9)
    os.utime(tmp_path / "b.npy", ns=(1, 1))
    os.replace(tmp_path / "b.npy", path)
    changed = with_content(slide(3, 6, 9, np.load(path, mmap_mode="r")), file_digest(path))
    assert np.array_equal(resident_pixels([changed]), np.asarray(second.patches))


def test_arrays_in_memory_are_never_taken_for_one_another():
    for seed in range(3):
        one = slide(3, 6, seed)
        assert np.array_equal(resident_pixels([one]), one.patches)
        del one


@pytest.mark.parametrize(
    "change",
    [
        lambda s: replace(s, patches=s.patches[::-1]),
        lambda s: replace(s, patches=s.patches[:2], array_xy=s.array_xy[:2], pixel_xy=s.pixel_xy[:2]),
        lambda s: replace(s, margins=s.margins[::-1]),
        lambda s: replace(s, margins=None),
        lambda s: part_of(s, np.array([2, 0])),
        lambda s: TestSlide(**vars(s)),
        lambda s: TestSlide(**{item.name: getattr(s, item.name) for item in fields(s)}),
        copy.copy,
        lambda s: pickle.loads(pickle.dumps(s)),
    ],
    ids=["patches", "a subset", "margins", "no margins", "spots of an alarm", "vars", "fields", "copy", "pickle"],
)
@pytest.mark.parametrize("padding", ["white", "black"])
def test_a_slide_that_was_made_of_another_is_never_taken_for_what_is_kept(tmp_path, loaded, change, padding):
    kept = with_content(replace(on_disk(tmp_path / "a.npy", 4, 8, 5), margins=bordered().margins), "content")
    other = on_disk(tmp_path / "b.npy", 3, 8, 6)
    resident_pixels([kept, other], 8, padding=padding)
    changed = change(kept)
    assert (kept.content, changed.content) == ("content", None)
    found = resident_pixels([changed, other], 8, padding=padding)
    assert loaded == [2, 2]
    (expected,) = all_of(PatchBank([changed, other], 8, resident=False, padding=padding), [slice(0, len(found))])
    assert np.array_equal(found, expected.permute(0, 2, 3, 1).numpy())
    resident_pixels([changed, other], 8, padding=padding)  # nor was it kept
    assert loaded == [2, 2, 2]


def test_patches_that_are_exchanged_between_spots_are_not_taken_for_those_that_are_kept(tmp_path, loaded):
    kept = on_disk(tmp_path / "a.npy", 5, 6, 5)

    class Pixels:
        """Predicts the pixels of a patch, by a bank that would keep them."""

        def predict(self, slide: TestSlide) -> np.ndarray:
            return resident_pixels([slide]).reshape(slide.n_spots, -1).astype(np.float32)

    before = Pixels().predict(kept)
    exchanged = predict_exchanged(Pixels(), kept, "dataset", 0)
    assert (exchanged != before).any(axis=1).all()
    assert sorted(map(tuple, exchanged)) == sorted(map(tuple, before))
    assert loaded == [1, 1]


def test_an_error_while_reading_ahead_reaches_the_reader():
    bank = PatchBank([slide(3, 6)], 6, resident=False)
    with pytest.raises(IndexError):
        all_of(bank, [torch.tensor([0]), torch.tensor([5])])


# What lies outside the image ------------------------------------------------------------------------------------------


def bordered(n: int = 4, side: int = 8) -> TestSlide:
    """A slide whose first window reaches two pixels over the left border, and the second one over the lower one."""
    margins = np.zeros((n, 4), dtype=np.int64)
    margins[0, 0], margins[1, 3] = 2, 1
    return replace(slide(n, side, 5), margins=margins)


@pytest.mark.parametrize("resident", [True, False])
def test_black_padding_paints_what_lies_outside_the_image_alone(resident):
    one = bordered()
    (found,) = all_of(PatchBank([one], 8, resident=resident, padding="black"), [slice(0, 4)])
    expected = one.patches.copy()
    expected[0, :, :2] = 0
    expected[1, 7:] = 0
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), expected)
    (white,) = all_of(PatchBank([one], 8, resident=resident), [slice(0, 4)])
    assert np.array_equal(white.permute(0, 2, 3, 1).numpy(), one.patches)


def test_of_a_smaller_window_only_what_is_left_of_the_margin_is_painted():
    (found,) = all_of(PatchBank([bordered()], 6, padding="black"), [slice(0, 4)])
    expected = bordered().patches[:, 1:7, 1:7].copy()
    expected[0, :, :1] = 0
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), expected)


def test_padding_is_painted_before_the_window_is_resized():
    one = bordered()
    painted = replace(one, patches=one.patches.copy(), margins=None)
    painted.patches[0, :, :2] = 0
    painted.patches[1, 7:] = 0
    (found,) = all_of(PatchBank([one], 8, 5, padding="black"), [slice(0, 4)])
    (expected,) = all_of(PatchBank([painted], 8, 5), [slice(0, 4)])
    assert torch.equal(found, expected)


def test_resident_patches_of_one_padding_are_not_taken_for_the_others(tmp_path):
    one = with_content(replace(on_disk(tmp_path / "a.npy", 4, 8, 5), margins=bordered().margins), "content")
    white, black = (resident_pixels([one], 8, padding=padding) for padding in ("white", "black"))
    assert not np.array_equal(white, black)
    assert np.array_equal(resident_pixels([one], 8), white)


@pytest.mark.parametrize("resident", [True, False])
def test_a_file_that_is_cut_is_an_error_in_words_not_the_end_of_the_process(tmp_path, resident):
    cut = on_disk(tmp_path / "cut.npy", 6, 8, 1)
    bank = PatchBank([cut, slide(3, 8, 2)], patch_px=4, resident=False)
    with (tmp_path / "cut.npy").open("r+b") as stream:
        stream.truncate(300)
    with pytest.raises(DamagedFileError, match="was cut while it was in use"):
        all_of(PatchBank([cut], patch_px=4, resident=True) if resident else bank, [slice(0, 6)])
    assert len(all_of(bank, [slice(6, 9)])) == 1  # of the other slide
    (tmp_path / "cut.npy").unlink()
