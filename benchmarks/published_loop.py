"""mclSTExp in the harness's loop beside the loop that was published, on one device: patches a second, and their ratio.

    python benchmarks/published_loop.py --out loop.json

The other loop is written in our own words as the published code's is built: one process cuts each patch out of the
section's picture with PIL when it is asked for, torchvision transforms it (colour jitter, flip, free rotation, to a
tensor), a ``DataLoader`` without workers collates 128 of them, and a plain PyTorch step follows, whose loss is asked
for after every step. Network, objective and optimiser are the same.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import command
import gpu
import machine
import numpy as np
import torch
from PIL import Image
from plain_step import configured, made_up_slides, opened, plain_loss
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from stbench.method import TrainingSlide
from stbench.system.files import write_json

NAME = "mclstexp"
SECTIONS = 4  # of 384 spots: three batches of 128 each
ROUNDS = 3
PICTURE = 4000  # side of a section's picture in pixels; what a cut costs does not depend on it


@dataclass(frozen=True)
class Rates:
    """Patches a second, of each round."""

    loader: list[float]  # of the published loop's data alone
    published: list[float]
    harness: list[float]

    @property
    def ratio(self) -> float:
        return statistics.median(self.harness) / statistics.median(self.published)


class PublishedSpots(Dataset):
    """Every spot of every section, cut out of its section's picture when asked for."""

    def __init__(self, slides: Sequence[TrainingSlide], side: int, picture: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.side = side
        self.slides = slides
        self.pictures = [Image.fromarray(rng.integers(0, 256, (picture, picture, 3), dtype=np.uint8)) for _ in slides]
        self.centres = [rng.integers(side // 2, picture - side // 2, (slide.n_spots, 2)) for slide in slides]
        self.places = [(i, spot) for i, slide in enumerate(slides) for spot in range(slide.n_spots)]
        self.transform = transforms.Compose(
            [
                transforms.ColorJitter(0.5, 0.5, 0.5),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(180),
                transforms.ToTensor(),
            ]
        )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> dict[str, Any]:
        i, spot = self.places[number]
        x, y = self.centres[i][spot].tolist()
        half = self.side // 2
        cut = self.pictures[i].crop((x - half, y - half, x + half, y + half))
        return {
            "image": self.transform(cut),
            "target": self.slides[i].target[spot],
            "array_xy": self.slides[i].array_xy[spot],
            "slide": i,
        }


def rates(size: gpu.Size, n_sections: int, picture: int, device: str, rounds: int) -> Rates:
    """Both loops over the same made-up sections, in float32."""
    batch_size = configured(NAME, size.preset, size.changes).batch_size
    in_section = max(1, round(size.n_spots / batch_size)) * batch_size
    slides = made_up_slides(n_sections, in_section, size.n_genes, size.side)
    spots = PublishedSpots(slides, size.side, picture)
    shuffled = torch.Generator().manual_seed(0)
    loader = DataLoader(spots, batch_size=batch_size, shuffle=True, generator=shuffled)
    alone = [len(spots) / gpu.timed(lambda: [None for _ in loader], "cpu") for _ in range(rounds)]
    epoch = published_epoch(size, slides, loader, device)
    epoch()
    published = [len(spots) / gpu.timed(epoch, device) for _ in range(rounds)]
    del epoch  # and with it the network
    ours, _ = gpu.ours(NAME, size, slides, device, "fp32")
    return Rates(alone, published, [len(spots) / seconds for seconds in ours])


def published_epoch(
    size: gpu.Size, slides: Sequence[TrainingSlide], loader: DataLoader, device: str
) -> Callable[[], float]:
    """An epoch of the published loop, to be called again and again; it returns the sum of its losses."""
    start = opened(configured(NAME, size.preset, size.changes), slides, device)

    def epoch() -> float:
        total = 0.0
        for found in loader:
            sent: dict[str, Tensor] = {name: value.to(device) for name, value in found.items()}
            batch = SimpleNamespace(**sent, constants={})
            start.optimiser.zero_grad()
            loss = plain_loss(start.method, start.network, [sent["image"]], batch)  # type: ignore[arg-type]
            loss.backward()
            start.optimiser.step()
            total += loss.item()
        return total

    return epoch


def main(words: Sequence[str] | None = None) -> None:
    options = command.part_options(__doc__, words)
    size = gpu.TINY if options.tiny else gpu.HER2ST
    found = rates(size, 2 if options.tiny else SECTIONS, 300 if options.tiny else PICTURE, options.device, ROUNDS)
    out = {
        **machine.facts(options.device),
        "method": NAME,
        "meaningless": options.tiny,
        "loader_per_s": found.loader,
        "published_per_s": found.published,
        "harness_per_s": found.harness,
        "ratio": found.ratio,
    }
    write_json(options.out, out)
    print(
        f"{NAME}: {statistics.median(found.harness):,.0f} patches a second in the harness's loop, "
        f"{statistics.median(found.published):,.0f} in the published one ({found.ratio:.2f} times), whose loader alone "
        f"gives {statistics.median(found.loader):,.0f}"
    )


if __name__ == "__main__":
    command.end(main)
