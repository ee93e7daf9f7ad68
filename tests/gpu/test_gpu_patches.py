"""Patches on a GPU: the same bytes whether they stay there or are sent batch by batch, and sent from pinned memory."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from stbench.method import Run, TrainingSlide, configure
from stbench.methods.stnet import STNet
from stbench.training import patch_bank, patch_store
from stbench.training.patch_bank import Group, PatchBank
from stbench.training.patch_store import main_memory


@pytest.fixture(scope="module")
def slides(make_training_slides: Callable) -> list[TrainingSlide]:
    return make_training_slides(n_slides=3, n_spots=20, side=48)


GROUPS: list[Group] = [torch.tensor([41, 3, 3, 17]), slice(20, 40), torch.tensor([59]), slice(10, 30)]


@pytest.mark.parametrize(("patch_px", "input_px"), [(48, 48), (32, 32), (48, 24), (40, 64)])
def test_resident_and_streamed_patches_are_the_same_bytes(
    slides: list[TrainingSlide], device: str, patch_px: int, input_px: int
) -> None:
    banks = [PatchBank(slides, patch_px, input_px, device, resident=resident) for resident in (True, False)]
    found = [[patches.clone() for _, patches in bank.stream(GROUPS)] for bank in banks]
    for stays, sent in zip(*found, strict=True):
        assert stays.device.type == sent.device.type == device
        assert stays.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(stays, sent)
    expected = PatchBank(slides, patch_px, input_px, resident=False)
    for (_, patches), stays in zip(expected.stream(GROUPS), found[0], strict=True):
        difference = (patches.int() - stays.cpu().int()).abs().max()
        assert difference <= (0 if patch_px == input_px else 1)  # a sum in another order may round the other way


def test_what_is_sent_lies_in_pinned_memory_and_is_read_ahead(
    slides: list[TrainingSlide], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: list[bool] = []
    events: list[str] = []

    def watched(shape: tuple[int, ...], at: torch.device) -> torch.Tensor:
        memory = main_memory(shape, at)
        pinned.append(memory.is_pinned())
        return memory

    read, send = PatchBank._read, PatchBank._send
    monkeypatch.setattr(patch_bank, "main_memory", watched)
    monkeypatch.setattr(PatchBank, "_read", lambda self, group: events.append("read") or read(self, group))
    monkeypatch.setattr(PatchBank, "_send", lambda self, found: events.append("send") or send(self, found))
    bank = PatchBank(slides, 48, 48, device, resident=False)
    for _ in bank.stream(GROUPS):
        events.append("used")
    assert pinned == [device == "cuda"] * len(GROUPS)
    for number in range(1, len(GROUPS)):  # a group is asked for before the one ahead of it is handed out
        uses = [i for i, event in enumerate(events) if event == "used"]
        assert events[: uses[number - 1]].count("read") >= number
    assert events.count("send") == events.count("used") == len(GROUPS)


def test_resident_patches_take_a_share_of_what_is_free(device: str) -> None:
    at = torch.device(device)
    free = patch_store.room(at)
    assert free > 2**28
    if device == "cuda":
        total = torch.cuda.get_device_properties(at).total_memory
        assert free <= patch_store.CUDA_SHARE * total
        held = torch.empty(2**28, dtype=torch.uint8, device=at)
        # 256 MiB less are free, half of which resident patches might have had; others use the card too
        assert patch_store.room(at) <= free - 2**26
        del held


def test_a_training_ends_alike_whether_patches_stay_or_are_sent(
    slides: list[TrainingSlide], device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"epochs": 2, "batch_size": 8, "weights": "random", "input_px": 32}
    losses = []
    for share in (0.5, 0.0):
        monkeypatch.setattr(patch_store, "CUDA_SHARE", share)
        monkeypatch.setattr(patch_store, "CPU_SHARE", share)
        patch_store.release_resident_patches()
        method = STNet(configure(STNet, "quick", changes=known))
        method.fit(slides, Run(seed=3, device=device))
        losses.append([row["loss"] for row in method.history])
    if device == "cpu":
        assert losses[0] == losses[1]
    else:  # atomic additions of a backward pass have no order
        np.testing.assert_allclose(losses[0], losses[1], rtol=1e-3)
