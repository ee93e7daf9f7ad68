"""The files that a prepared slide's patches are in: the patches themselves, or tiles of the image that they lie on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..slides.cutting import Window, cut_windows
from ..slides.slide import Slide
from ..slides.tiles import TILE, TiledPatches, Tiles, keep_tiles, tile_numbers
from ..system.array_file import ArrayFile, read_array
from ..system.files import value_digest

PATCHES, TILES, NUMBERS, GEOMETRY = "patches.npy", "tiles.npy", "tile_numbers.npy", "windows.json"
LARGE = 2 * 2**30  # bytes of patches above which tiles are kept instead, if they are smaller
SMALLER = 0.5  # how many times as large the tiles may be


def write_patches(directory: Path, slide: Slide, window: Window, pad: int) -> int:
    """Cut the windows of ``slide`` once; returns how many cross the image's border.

    Where all patches are large, and a large part of them are pixels that others hold too, the image under the windows
    is written as tiles. What is read of the two is the same, byte by byte.
    """
    centres, image = slide.centres, slide.image
    shape = (slide.n_spots, window.px, window.px, 3)
    corners = window.corners(centres)
    image.require_inside(centres)
    n_padded = int(image.crossing(centres, window).sum())
    with image.opened(window) as (pixels, scale):
        n_bytes = int(np.prod(shape, dtype=np.int64))
        if n_bytes > LARGE:
            size = (pixels.shape[1], pixels.shape[0])
            numbers = tile_numbers(corners, window, scale, size)
            n_tiles = int(numbers.max()) + 1
            if 3 * n_tiles * TILE**2 <= SMALLER * n_bytes:
                with ArrayFile(directory / TILES, (n_tiles, TILE, TILE, 3), np.uint8) as tiles:
                    keep_tiles(pixels, numbers, tiles)
                np.save(directory / NUMBERS, numbers, allow_pickle=False)
                geometry = {"side": window.side, "px": window.px, "scale": scale, "size": size, "pad": pad}
                (directory / GEOMETRY).write_text(json.dumps(geometry), encoding="utf-8")
                return n_padded
        with ArrayFile(directory / PATCHES, shape, np.uint8) as patches:
            cut_windows(pixels, corners, window, scale, pad, patches)
    return n_padded


def read_patches(directory: Path, centres: np.ndarray, digests: Mapping[str, str]) -> tuple[Any, str]:
    """The patches, as an array or what is read like one, and what tells them from all others.

    ``digests`` of the entry's files, which have been compared.
    """
    if PATCHES in digests:
        return read_array(directory / PATCHES, mapped=True), digests[PATCHES]
    geometry = json.loads((directory / GEOMETRY).read_text(encoding="utf-8"))
    window = Window(geometry["side"], geometry["px"])
    numbers = np.load(directory / NUMBERS, allow_pickle=False)
    tiles = Tiles(read_array(directory / TILES, mapped=True), numbers, (geometry["size"][0], geometry["size"][1]))
    scale = (geometry["scale"][0], geometry["scale"][1])
    patches = TiledPatches(tiles, window.corners(centres), window, scale, geometry["pad"])
    names = (TILES, NUMBERS, GEOMETRY, "pixel_xy.npy")
    return patches, value_digest([digests[name] for name in names])
