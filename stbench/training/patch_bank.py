"""The patches of many slides as uint8 on the device: resident where they fit, else streamed, with the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from ..method import TestSlide
from ..system.mapped import require_whole
from ..system.sharing import workers_on_device
from .patch_store import STORE, main_memory, n_bytes, resized
from .windows import Padding, Windows

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
        self.windows = [Windows.of(slide, patch_px, padding) for slide in slides]
        self.offsets: list[int] = [0, *np.cumsum([len(window) for window in self.windows]).tolist()]
        smallest = min(window.side for window in self.windows)
        if smallest < patch_px and note is not None:
            note(
                f"patches of {patch_px} px are asked for and the dataset's windows have {smallest} px:"
                f" whole windows are used, resized to {self.input_px} px"
            )
        self._patches: Tensor | None = None  # those of the slides, among others' perhaps, if they are resident
        self.crowded_out = False  # streamed, and resident if this worker were alone on the device
        placed = None
        if resident is not False:
            placed = STORE.resident(self.windows, self.input_px, self.device, forced=resident is True)
        if placed is None:
            crowded = resident is None and workers_on_device() > 1
            self.crowded_out = crowded and STORE.fits(self.windows, self.input_px, self.device, workers=1)
        else:
            found, starts = placed
            self._patches = found.patches
            self._shifts = [start - offset for start, offset in zip(starts, self.offsets[:-1], strict=True)]
            rows = [torch.arange(len(w)) + start for w, start in zip(self.windows, starts, strict=True)]
            self._rows = torch.cat(rows).to(self.device)

    def __len__(self) -> int:
        return self.offsets[-1]

    @property
    def n_bytes(self) -> int:
        """Of the patches, as they are on the device."""
        return n_bytes(self.windows, self.input_px)

    @property
    def resident(self) -> bool:
        return self._patches is not None

    def stream(self, groups: Sequence[Group]) -> Iterator[tuple[Group, Tensor]]:
        """For each group: what indexes other tensors on the device for it, and its (B, 3, S, S) uint8 patches there,
        channels-last in memory. All indices are sent to the device in one piece, before the first group."""
        indices = [group for group in groups if isinstance(group, Tensor)]
        if indices:
            sent = _to_device(torch.cat(indices), self.device).split([len(index) for index in indices])
            on_device = iter(sent)
        ready: list[Group] = [next(on_device) if isinstance(group, Tensor) else group for group in groups]
        patches = self._read_ahead(groups) if self._patches is None else map(self._resident_patches, ready)
        for group, found in zip(ready, patches, strict=True):
            yield group, found.permute(0, 3, 1, 2)

    def _resident_patches(self, group: Group) -> Tensor:
        assert self._patches is not None
        if isinstance(group, Tensor):
            return self._patches[self._rows[group]]
        slide = int(np.searchsorted(self.offsets, group.start, side="right")) - 1
        if group.stop <= self.offsets[slide + 1]:  # within one slide: a view, not a copy
            return self._patches[group.start + self._shifts[slide] : group.stop + self._shifts[slide]]
        return self._patches[self._rows[group]]

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
            windows = main_memory((len(places), side, side, 3), self.device)
            target = windows.numpy()
            for place, slide in zip(forward[sides == side], slide_of[sides == side], strict=True):
                row = int(np.searchsorted(places, place))
                self.windows[slide].read_one(int(wanted[place] - self.offsets[slide]), target[row])
            read.append((places, windows))
        return read

    def _send(self, read: list[tuple[np.ndarray, Tensor]]) -> Tensor:
        parts = [resized(windows.to(self.device, non_blocking=True), self.input_px) for _, windows in read]
        if len(parts) == 1:
            return parts[0]
        back = np.argsort(np.concatenate([places for places, _ in read]))
        return torch.cat(parts)[_to_device(torch.from_numpy(back), self.device)]


def _to_device(index: Tensor, device: torch.device) -> Tensor:
    return index.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else index.to(device)
