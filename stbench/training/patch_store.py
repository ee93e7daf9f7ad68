"""What a process keeps of slides' patches between its trials: those of one bank for each device, within its memory."""

from __future__ import annotations

import gc
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..system.cores import memory_in_all, usable_memory
from ..system.sharing import CPU_SHARE, CUDA_SHARE, workers_on_device
from .device import free_memory
from .windows import Windows

CHUNK_BYTES = 64 * 2**20  # of patches read, sent to the device and resized at a time


@dataclass(frozen=True)
class ResidentPatches:
    """Patches of some slides on a device, one slide after the other."""

    windows: Mapping[Hashable, Windows]  # what was read, by its key
    starts: Mapping[Hashable, int]  # the first row of each
    input_px: int
    patches: Tensor  # (rows, S, S, 3) uint8, S = input_px

    @classmethod
    def filled(cls, windows: Mapping[Hashable, Windows], input_px: int, device: torch.device) -> ResidentPatches:
        """Read from the slides, sent to the device and resized there."""
        n_rows = sum(map(len, windows.values()))
        patches = torch.empty((n_rows, input_px, input_px, 3), dtype=torch.uint8, device=device)
        starts: dict[Hashable, int] = {}
        row = 0
        for key, window in windows.items():
            starts[key] = row
            at_a_time = max(1, CHUNK_BYTES // (3 * window.side**2))
            for first in range(0, len(window), at_a_time):
                last = min(first + at_a_time, len(window))
                read = main_memory((last - first, window.side, window.side, 3), device)
                window.read(first, last, read.numpy())
                patches[row : row + last - first] = resized(read.to(device, non_blocking=True), input_px)
                row += last - first
        return cls(windows, starts, input_px, patches)


class PatchStore:
    """Gives banks their resident patches, and keeps the last ones on each device for the next trial.

    They are found again by the keys of their windows. A bank whose windows are all kept loads nothing, and one that
    shares some with what is kept (the next fold of the same dataset) is loaded together with all of that where it fits,
    so that later folds load nothing. Of a bank with a window that has no key nothing is found, and nothing is kept.
    """

    def __init__(self) -> None:
        self._kept: dict[torch.device, ResidentPatches] = {}

    def fits(self, windows: Sequence[Windows], input_px: int, device: torch.device, workers: int | None = None) -> bool:
        """Whether the windows' patches are kept already, or have room on the device; see :func:`room`."""
        kept = self._kept.get(device)
        reusable = 0 if kept is None else kept.patches.nbytes
        wanted = n_bytes(windows, input_px)
        return self._find(windows, input_px, device) is not None or wanted <= room(device, reusable, workers)

    def resident(
        self, windows: Sequence[Windows], input_px: int, device: torch.device, forced: bool = False
    ) -> tuple[ResidentPatches, list[int]] | None:
        """Patches that those of the windows are among, and the first row of each; ``None`` where they have no room.

        ``forced``: they are loaded whether there is room or not.
        """
        patches = self._find(windows, input_px, device)
        if patches is None:
            if not forced and not self.fits(windows, input_px, device):
                return None
            together = self._give_up(windows, input_px, device)
            # whoever else holds what was kept has not given it up, and others may have come
            if not forced and n_bytes(windows, input_px) > room(device):
                return None
            patches = self._load(windows, together, input_px, device)
        return patches, [patches.starts[key] for key in _keys(windows)]

    def release(self) -> None:
        """Give back the memory of what is kept."""
        self._kept.clear()

    def _find(self, windows: Sequence[Windows], input_px: int, device: torch.device) -> ResidentPatches | None:
        kept = self._kept.get(device)
        if kept is None or kept.input_px != input_px:
            return None
        # a window without a key is never found: None is no key of what is kept
        return kept if all(window.key in kept.starts for window in windows) else None

    def _give_up(self, windows: Sequence[Windows], input_px: int, device: torch.device) -> Mapping[Hashable, Windows]:
        """Free what is kept: there is memory for that or for its successor, not for both.

        What was kept is returned, unread, where the windows share some of it.
        """
        before = self._kept.pop(device, None)
        if before is None:
            return {}
        keys = set(_keys(windows))
        shares = before.input_px == input_px and None not in {window.key for window in windows}
        earlier = before.windows if shares and keys & before.windows.keys() else {}
        del before
        gc.collect()  # a trial that failed may have left its frames in a circle, and its patches in them
        if device.type == "cuda":
            torch.cuda.empty_cache()  # to other processes, too, it is free now
        return earlier

    def _load(
        self, windows: Sequence[Windows], earlier: Mapping[Hashable, Windows], input_px: int, device: torch.device
    ) -> ResidentPatches:
        wanted = dict(zip(_keys(windows), windows, strict=True))
        together = {**earlier, **wanted}
        if earlier and n_bytes(together.values(), input_px) > room(device):
            together = wanted
        patches = ResidentPatches.filled(together, input_px, device)
        if all(window.key is not None for window in windows):
            self._kept[device] = patches
        return patches


STORE = PatchStore()  # of this process


def release_resident_patches() -> None:
    """Give back the memory of the patches that this process keeps for its next trial."""
    STORE.release()


def _keys(windows: Sequence[Windows]) -> list[Hashable]:
    """What tells the windows of one bank apart: their keys, or their places in the bank."""
    return [place if window.key is None else window.key for place, window in enumerate(windows)]


def n_bytes(windows: Iterable[Windows], input_px: int) -> int:
    """What the windows' patches take on a device."""
    return sum(map(len, windows)) * input_px**2 * 3


def room(device: torch.device, reusable: int = 0, workers: int | None = None) -> int:
    """Bytes that resident patches may take on a device, ``reusable`` ones of them being in use already.

    A share of what is free, and of what falls to this worker where ``workers`` (as its engine says, if not given) share
    the device: those that start at a time all see the same memory free.
    """
    workers = workers_on_device() if workers is None else workers
    if device.type == "cuda":
        _, in_all = torch.cuda.mem_get_info(device)
        own = in_all // workers - torch.cuda.memory_allocated(device)
        return int((min(free_memory(device), own) + reusable) * CUDA_SHARE)
    return int(min(usable_memory() + reusable, memory_in_all() // workers) * CPU_SHARE)


def resized(patches: Tensor, side: int, mode: Literal["bilinear", "bicubic"] = "bilinear") -> Tensor:
    """(B, s, s, 3) uint8 to (B, ``side``, ``side``, 3) uint8, with antialiasing (torchvision's resize)."""
    if patches.shape[1] == side:
        return patches
    images = patches.permute(0, 3, 1, 2).to(torch.float32)
    images = interpolate(images, size=(side, side), mode=mode, align_corners=False, antialias=True)
    return images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def main_memory(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """An empty uint8 tensor in main memory, pinned where it is to be sent to a GPU."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
