"""The patches of many slides as uint8 on the device: resident where they fit, else streamed, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..method import TestSlide
from ..system.mapped import require_whole

# How much of the free memory resident patches may take. The rest of a GPU's is for weights and activations; main memory
# is shared with other processes, and the operating system caches the memory-mapped file there anyway.
CUDA_SHARE = 0.5
CPU_SHARE = 0.25
CHUNK_BYTES = 64 * 2**20  # of patches read, sent to the device and resized at a time

Padding = Literal["white", "black"]  # of what lies outside the image in a window at its border
Group = slice | Tensor  # spots of a bank: a run of them, or an int64 CPU tensor of indices


class PatchBank:
    """Patches of ``slides``, one after the other, as the network is to see them: N spots of side S = ``input_px``.

    The centre ``patch_px`` pixels of each window are taken (the whole window where it is smaller; ``note`` is told) and
    resized once to ``input_px``: bilinear with antialiasing, rounded to uint8. They are kept on the device where they
    fit in a share of its free memory, else read from the memory-mapped arrays group by group, one ahead of the
    computation. ``resident`` forces one or the other. ``padding``: what lies outside the image, by the slides'
    ``margins``, is left white or made black before it is resized.
    """

    def __init__(
        self,
        slides: Sequence[TestSlide],
        patch_px: int,
        input_px: int | None = None,
        device: torch.device | str = "cpu",
        note: Callable[[str], None] | None = None,
        resident: bool | None = None,
        padding: Padding = "white",
    ) -> None:
        self.device = torch.device(device)
        self.input_px = input_px or patch_px
        self.windows = [_Windows.of(slide, patch_px, padding) for slide in slides]
        self.offsets: list[int] = [0, *np.cumsum([len(window) for window in self.windows]).tolist()]
        smallest = min(window.side for window in self.windows)
        if smallest < patch_px and note is not None:
            note(
                f"patches of {patch_px} px are asked for and the dataset's windows have {smallest} px:"
                f" whole windows are used, resized to {self.input_px} px"
            )
        self._arena: _Arena | None = None
        if resident is None:
            resident = _Arena.holds(self) or len(self) * self.input_px**2 * 3 <= _room(self.device)
        if resident:
            self._arena = _Arena.of(self)
            starts = [self._arena.starts[window.content] for window in self.windows]
            self._shifts = [start - offset for start, offset in zip(starts, self.offsets[:-1], strict=True)]
            rows = [torch.arange(len(w)) + start for w, start in zip(self.windows, starts, strict=True)]
            self._rows = torch.cat(rows).to(self.device)

    def __len__(self) -> int:
        return self.offsets[-1]

    @property
    def resident(self) -> bool:
        return self._arena is not None

    def stream(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Tensor]]:
        """For each group: what indexes other tensors on the device for it, and its (B, 3, S, S) uint8 patches there,
        channels-last in memory. All indices are sent to the device in one piece, before the first group."""
        indices = [group for group in groups if isinstance(group, Tensor)]
        if indices:
            sent = _to_device(torch.cat(indices), self.device).split([len(index) for index in indices])
            on_device = iter(sent)
        ready: list[Group] = [next(on_device) if isinstance(group, Tensor) else group for group in groups]
        patches = self._read_ahead(groups) if self._arena is None else map(self._resident_patches, ready)
        for group, found in zip(ready, patches, strict=True):
            yield group, found.permute(0, 3, 1, 2)

    def _resident_patches(self, group: Group) -> Tensor:
        assert self._arena is not None
        if isinstance(group, Tensor):
            return self._arena.patches[self._rows[group]]
        slide = int(np.searchsorted(self.offsets, group.start, side="right")) - 1
        if group.stop <= self.offsets[slide + 1]:  # within one slide: a view, not a copy
            return self._arena.patches[group.start + self._shifts[slide] : group.stop + self._shifts[slide]]
        return self._arena.patches[self._rows[group]]

    def _read_ahead(self, groups: Sequence[Group]) -> Iterator[Tensor]:
        with ThreadPoolExecutor(1, thread_name_prefix="patches") as reader:
            coming = None
            for group in groups:
                current, coming = coming, reader.submit(self._read, group)
                if current is not None:
                    yield self._send(current.result())
            if coming is not None:
                yield self._send(coming.result())

    def _read(self, group: Group) -> list[tuple[np.ndarray, Tensor]]:
        """The group's windows in main memory, one (places in the group, windows) for each window size among its slides.

        Within the file, reads go forward.
        """
        wanted = np.arange(group.start, group.stop) if isinstance(group, slice) else group.numpy()
        forward = np.argsort(wanted, kind="stable")
        slide_of = np.searchsorted(self.offsets, wanted[forward], side="right") - 1
        sides = np.array([window.side for window in self.windows])[slide_of]
        read = []
        for slide in np.unique(slide_of):
            require_whole(self.windows[slide].pixels)
        for side in np.unique(sides):
            places = np.sort(forward[sides == side])
            windows = _main_memory((len(places), side, side, 3), self.device)
            target = windows.numpy()
            for place, slide in zip(forward[sides == side], slide_of[sides == side], strict=True):
                row = int(np.searchsorted(places, place))
                self.windows[slide].read_one(int(wanted[place] - self.offsets[slide]), target[row])
            read.append((places, windows))
        return read

    def _send(self, read: list[tuple[np.ndarray, Tensor]]) -> Tensor:
        parts = [_resize(windows.to(self.device, non_blocking=True), self.input_px) for _, windows in read]
        if len(parts) == 1:
            return parts[0]
        back = np.argsort(np.concatenate([places for places, _ in read]))
        return torch.cat(parts)[_to_device(torch.from_numpy(back), self.device)]


@dataclass(frozen=True)
class _Windows:
    """The centre of one slide's windows, as they are read."""

    pixels: np.ndarray  # (n, side, side, 3) uint8; a view
    margins: np.ndarray | None  # (n, 4): pixels of each that are made black: left, above, right, below; None: none
    content: Hashable

    @classmethod
    def of(cls, slide: TestSlide, patch_px: int, padding: Padding) -> _Windows:
        pixels = _centre(slide.patches, patch_px)
        whole, side = slide.patches.shape[1], pixels.shape[1]
        margins = None
        if padding == "black" and slide.margins is not None:
            start = whole // 2 - side // 2
            cut_off = [start, start, whole - side - start, whole - side - start]
            margins = (np.asarray(slide.margins) - cut_off).clip(0, side)
        black = None if margins is None or not margins.any() else margins
        painted = "" if black is None else black.tobytes()
        return cls(pixels, black, (*_content(pixels), painted))

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        return int(self.pixels.shape[1])

    def read(self, start: int, stop: int, into: np.ndarray) -> None:
        """Windows ``start`` to ``stop`` into an array of their shape."""
        require_whole(self.pixels)
        into[...] = self.pixels[start:stop]
        if self.margins is not None:
            for place, window in enumerate(into):
                self._paint(window, self.margins[start + place])

    def read_one(self, index: int, into: np.ndarray) -> None:
        into[...] = self.pixels[index]
        if self.margins is not None:
            self._paint(into, self.margins[index])

    def _paint(self, window: np.ndarray, margins: np.ndarray) -> None:
        left, above, right, below = margins
        window[:, :left] = 0
        window[:above] = 0
        window[:, self.side - right :] = 0
        window[self.side - below :] = 0


@dataclass
class _Arena:
    """Resident patches of some slides, one after the other.

    The process keeps the last one: a bank whose slides are all in it loads nothing, and one that shares slides with it
    (the next fold of the same dataset) is loaded together with all that it held, so that later folds load nothing.
    """

    windows: dict[Hashable, _Windows]
    starts: dict[Hashable, int]
    input_px: int
    patches: Tensor  # (rows, S, S, 3) uint8

    @staticmethod
    def holds(bank: PatchBank) -> bool:
        held = _held.get(bank.device)
        return (
            held is not None
            and held.input_px == bank.input_px
            and all(window.content in held.starts for window in bank.windows)
        )

    @staticmethod
    def of(bank: PatchBank) -> _Arena:
        if _Arena.holds(bank):
            return _held[bank.device]
        windows: dict[Hashable, _Windows] = {window.content: window for window in bank.windows}
        before = _held.pop(bank.device, None)
        if before is not None and before.input_px == bank.input_px and windows.keys() & before.windows.keys():
            together = before.windows | windows
            del before  # its memory is free before the next is filled
            if sum(map(len, together.values())) * bank.input_px**2 * 3 <= _room(bank.device):
                windows = together
        arena = _Arena._fill(windows, bank.input_px, bank.device)
        if all(key[0] == "file" for key in windows):  # type: ignore[index]
            _held[bank.device] = arena
        return arena

    @staticmethod
    def _fill(windows: dict[Hashable, _Windows], input_px: int, device: torch.device) -> _Arena:
        n_rows = sum(map(len, windows.values()))
        patches = torch.empty((n_rows, input_px, input_px, 3), dtype=torch.uint8, device=device)
        starts: dict[Hashable, int] = {}
        row = 0
        for key, window in windows.items():
            starts[key] = row
            at_a_time = max(1, CHUNK_BYTES // (3 * window.side**2))
            for first in range(0, len(window), at_a_time):
                last = min(first + at_a_time, len(window))
                read = _main_memory((last - first, window.side, window.side, 3), device)
                window.read(first, last, read.numpy())
                patches[row : row + last - first] = _resize(read.to(device, non_blocking=True), input_px)
                row += last - first
        return _Arena(windows, starts, input_px, patches)


_held: dict[torch.device, _Arena] = {}


def release_resident_patches() -> None:
    """Give back the memory of the patches that this process keeps for its next trial."""
    _held.clear()


def _centre(patches: np.ndarray, patch_px: int) -> np.ndarray:
    """The centre ``patch_px`` pixels of (n, side, side, 3) windows; a view."""
    side = patches.shape[1]
    if side <= patch_px:
        return patches
    start = side // 2 - patch_px // 2  # the spot's centre is pixel side // 2
    return patches[:, start : start + patch_px, start : start + patch_px]


def _resize(patches: Tensor, side: int) -> Tensor:
    """(B, s, s, 3) uint8 to (B, ``side``, ``side``, 3) uint8, bilinear with antialiasing (torchvision's resize)."""
    if patches.shape[1] == side:
        return patches
    images = patches.permute(0, 3, 1, 2).to(torch.float32)
    images = interpolate(images, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    return images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _content(window: np.ndarray) -> tuple[Hashable, ...]:
    """What tells one slide's window array from another: its place in its file, or in memory where it has no file."""
    root = window
    while isinstance(root.base, np.ndarray):
        root = root.base
    address = window.__array_interface__["data"][0]
    if not isinstance(root, np.memmap) or root.filename is None:
        return ("memory", address, window.shape, window.strides)
    path = Path(root.filename)
    offset = root.offset + address - root.__array_interface__["data"][0]
    found = path.stat()
    return ("file", str(path), found.st_mtime_ns, found.st_size, offset, window.shape, window.strides)


def _room(device: torch.device) -> int:
    """Bytes that resident patches may take on a device, counting those that are already kept there for reuse."""
    held = _held.get(device)
    reusable = held.patches.nbytes if held is not None else 0
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int((free + cached + reusable) * CUDA_SHARE)
    import psutil

    return int((psutil.virtual_memory().available + reusable) * CPU_SHARE)


def _main_memory(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """An empty uint8 tensor in main memory, pinned where it is to be sent to a GPU."""
    return torch.empty(shape, dtype=torch.uint8, pin_memory=device.type == "cuda")


def _to_device(index: Tensor, device: torch.device) -> Tensor:
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)
