"""Memory and time of cutting windows out of whole-slide images of 2 GB, made on the spot in the layouts that occur.

The image is larger than what any child process may hold; it is written tile by tile, and never there as an array.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

SIDE = 26_752  # 2.0 GiB as RGB
SPOTS = 4_000
GIB = 2.0  # allowed, libraries included

WORK = """
import sys, time
from pathlib import Path
import numpy as np
from stbench.slides.cutting import Window
from stbench.slides.image import SlideImage
from stbench.system.array_file import ArrayFile

path, n = Path(sys.argv[1]), int(sys.argv[2])
image = SlideImage.from_file(path)
width, height = image.size
centres = np.random.default_rng(0).uniform(0, (width, height), (n, 2))
for name, window in (("224 px", Window.plain(224)), ("448 px to 224", Window(448.0, 224))):
    start = time.perf_counter()
    with ArrayFile(path.with_suffix(f".{window.side:g}.npy"), (n, 224, 224, 3), np.uint8) as patches:
        image.cut(centres, window, out=patches)
    print(f"{name} in {time.perf_counter() - start:.1f} s", end=", ")
start = time.perf_counter()
image.thumbnail(700), image.remarks()
print(f"thumbnail in {time.perf_counter() - start:.1f} s")
# of this program alone: ru_maxrss is at least what the process that started it held
(peak,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(int(peak.split()[1]) / 2**20)
"""


def tiles(side: int, length: int, dtype: type = np.uint8, samples: int = 3) -> Iterator[np.ndarray]:
    """Stained texture: noise on a colour, of which a few are taken in turn."""
    rng = np.random.default_rng(0)
    n = -(-side // length)
    made = [
        np.clip(rng.normal((200, 130, 180)[:samples], 12, (length, length, samples)), 0, 255).astype(np.uint8)
        for _ in range(16)
    ]
    for _ in range(n * n):
        tile = made[rng.integers(16)].astype(dtype)
        yield tile * 257 if dtype is np.uint16 else tile


def tiled_pyramid(path: Path) -> None:
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        options: dict[str, Any] = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg", "dtype": np.uint8}
        writer.write(tiles(SIDE, 256), shape=(SIDE, SIDE, 3), subifds=1, **options)
        writer.write(tiles(SIDE // 2, 256), shape=(SIDE // 2, SIDE // 2, 3), subfiletype=1, **options)


def rows_as_they_are(path: Path) -> np.ndarray:
    """One strip of the whole image, as tifffile writes what is not compressed."""
    rng = np.random.default_rng(0)
    band = np.clip(rng.normal((200, 130, 180), 12, (64, SIDE, 3)), 0, 255).astype(np.uint8)
    pixels = tifffile.memmap(path, shape=(SIDE, SIDE, 3), dtype=np.uint8, photometric="rgb", bigtiff=True)
    for top in range(0, SIDE, 64):
        pixels[top : top + 64] = np.roll(band, 97 * top, axis=1)
    pixels.flush()
    return pixels


def strips_of_jpeg(path: Path) -> None:
    pixels = rows_as_they_are(path.with_name("rows.tif"))
    tifffile.imwrite(path, pixels, photometric="rgb", rowsperstrip=64, compression="jpeg", bigtiff=True)


def planes_of_16_bits(path: Path) -> None:
    every = (tile for _ in range(3) for tile in tiles(SIDE, 256, np.uint16, samples=1))
    tifffile.imwrite(
        path, every, shape=(3, SIDE, SIDE), dtype=np.uint16, photometric="minisblack", ome=True,
        metadata={"axes": "CYX"}, tile=(256, 256), compression="zlib", compressionargs={"level": 1}, bigtiff=True,
    )  # fmt: skip


LAYOUTS: dict[str, Callable[[Path], object]] = {
    "pyramid of JPEG tiles": tiled_pyramid,
    "strips of JPEG": strips_of_jpeg,
    "strips as they are": rows_as_they_are,
    "OME planes of 16 bits": planes_of_16_bits,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_slide_of_2_gib_is_cut_within_2_gib(layout: str, tmp_path: Path, tell: Callable[[str], None]) -> None:
    path = tmp_path / "slide.tif"
    try:
        LAYOUTS[layout](path)
        done = subprocess.run(
            [sys.executable, "-c", WORK, str(path), str(SPOTS)], capture_output=True, text=True, check=True
        )
    finally:
        for left in tmp_path.iterdir():
            left.unlink()
    what, peak = done.stdout.splitlines()
    tell(f"{float(peak):8.2f} GiB at the peak, {SPOTS:,} windows of {what}: {layout}")
    assert float(peak) < GIB
