"""The patches that a network sees: the right pixels, the same whether resident or streamed, read only once."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as reference

from stbench.errors import DamagedFileError
from stbench.method import TestSlide
from stbench.training import patch_bank
from stbench.training.patch_bank import PatchBank, release_resident_patches


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
    """A slide whose patches are a read-only memory map, as the prepared data are."""
    np.save(path, slide(n, side, seed).patches)
    return slide(n, side, seed, np.load(path, mmap_mode="r"))


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
    monkeypatch.setattr(patch_bank, "_room", lambda device: 10 * 8 * 8 * 3)
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


def test_the_next_fold_of_a_dataset_loads_nothing_again(tmp_path, monkeypatch):
    slides = [on_disk(tmp_path / f"{i}.npy", 4 + i, 6, i) for i in range(4)]
    loaded: list[int] = []
    fill = patch_bank._Arena._fill

    def counting_fill(windows, input_px, device):
        loaded.append(len(windows))
        return fill(windows, input_px, device)

    monkeypatch.setattr(patch_bank._Arena, "_fill", staticmethod(counting_fill))
    for held_out in range(4):
        fold = [s for i, s in enumerate(slides) if i != held_out]
        bank = PatchBank(fold, 6, resident=True)
        (found,) = all_of(bank, [slice(0, len(bank))])
        assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), np.concatenate([s.patches for s in fold]))
    # the first fold's three; the second's missing one brings all four together; then nothing
    assert loaded == [3, 4]


def test_other_sizes_or_a_changed_file_are_loaded_anew(tmp_path):
    path = tmp_path / "a.npy"
    first = on_disk(path, 3, 6, 0)
    PatchBank([first], 6, resident=True)
    (smaller,) = all_of(PatchBank([first], 6, input_px=4, resident=True), [slice(0, 3)])
    assert smaller.shape == (3, 3, 4, 4)
    PatchBank([first], 6, resident=True)
    second = on_disk(tmp_path / "b.npy", 3, 6, 9)
    os.utime(tmp_path / "b.npy", ns=(1, 1))
    os.replace(tmp_path / "b.npy", path)
    changed = slide(3, 6, 9, np.load(path, mmap_mode="r"))
    (found,) = all_of(PatchBank([changed], 6, resident=True), [slice(0, 3)])
    assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), np.asarray(second.patches))


def test_arrays_in_memory_are_never_taken_for_one_another():
    for seed in range(3):
        one = slide(3, 6, seed)
        (found,) = all_of(PatchBank([one], 6, resident=True), [slice(0, 3)])
        assert np.array_equal(found.permute(0, 2, 3, 1).numpy(), one.patches)
        del one


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
    one = replace(on_disk(tmp_path / "a.npy", 4, 8, 5), margins=bordered().margins)
    (white,) = all_of(PatchBank([one], 8, resident=True), [slice(0, 4)])
    (black,) = all_of(PatchBank([one], 8, resident=True, padding="black"), [slice(0, 4)])
    assert not torch.equal(white, black)


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
