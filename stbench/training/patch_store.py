"""What a process keeps of slides' patches between its trials: those of one bank for each device, within its memory."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .windows import Windows

# How much of the free memory resident patches may take. The rest of a GPU's is for weights and activations; main memory
# is shared with other processes, and the operating system caches the memory-mapped file there anyway.
CUDA_SHARE = 0.5
CPU_SHARE = 0.25
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

    def fits(self, windows: Sequence[Windows], input_px: int, device: torch.device) -> bool:
        """Whether the windows' patches are kept already, or have room on the device."""
        kept = self._kept.get(device)
        reusable = 0 if kept is None else kept.patches.nbytes
        return self._find(windows, input_px, device) is not None or _n_bytes(windows, input_px) <= room(
            device, reusable
        )

    def resident(
        self, windows: Sequence[Windows], input_px: int, device: torch.device
    ) -> tuple[ResidentPatches, list[int]]:
        """Patches that those of the windows are among, and the first row of each."""
        patches = self._find(windows, input_px, device)
        if patches is None:
            patches = self._load(windows, input_px, device)
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

    def _load(self, windows: Sequence[Windows], input_px: int, device: torch.device) -> ResidentPatches:
        wanted = dict(zip(_keys(windows), windows, strict=True))
        keyed = all(window.key is not None for window in windows)
        earlier: Mapping[Hashable, Windows] = {}
        if device in self._kept:
            # what was kept is given up before its successor is filled: there is memory for one of them
            before = self._kept.pop(device)
            if keyed and before.input_px == input_px and wanted.keys() & before.windows.keys():
                earlier = before.windows
            del before
        together = {**earlier, **wanted}
        if earlier and _n_bytes(together.values(), input_px) > room(device):
            together = wanted
        patches = ResidentPatches.filled(together, input_px, device)
        if keyed:
            self._kept[device] = patches
        return patches


STORE = PatchStore()  # of this process


def release_resident_patches() -> None:
    """Give back the memory of the patches that this process keeps for its next trial."""
    STORE.release()


def _keys(windows: Sequence[Windows]) -> list[Hashable]:
    """What tells the windows of one bank apart: their keys, or their places in the bank."""
    return [place if window.key is None else window.key for place, window in enumerate(windows)]


def _n_bytes(windows: Iterable[Windows], input_px: int) -> int:
    return sum(map(len, windows)) * input_px**2 * 3


def room(device: torch.device, reusable: int = 0) -> int:
    """Bytes that resident patches may take on a device, ``reusable`` ones of them being in use already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((free + cached + reusable) * CUDA_SHARE)
    import psutil

    return int((psutil.virtual_memory().available + reusable) * CPU_SHARE)


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
