"""TIFF pictures: how they are opened, their layouts and colour models."""

from __future__ import annotations

import io
import logging
import math
import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..system.compressed import is_gzipped, open_binary
from ..system.wording import shortened
from .colour import Alpha, Colours, Model, eight_bits, not_rgb

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # what is wrong with a file is said in one line


@contextmanager
def opened_tiff(path: Path) -> Iterator[Any]:
    """The largest series of a TIFF, which is the image at full resolution with the levels of its pyramid.

    It is checked to be complete. A label, an overview or a thumbnail may stand before it.
    """
    import tifffile

    if is_gzipped(path):
        with open_binary(path) as stream:
            content = stream.read()
        source: Any = io.BytesIO(content)
        length = len(content)
    else:
        source, length = path, path.stat().st_size
    with tifffile.TiffFile(source) as file:
        if not file.series:
            raise ValueError("there is no image in it")
        series = max(file.series, key=lambda each: each.size)  # the first of several as large
        for page in series.pages:
            # tifffile fills what is missing with zeros; a black corner must not pass for tissue
            if page is not None and any(
                offset + count > length for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True)
            ):
                raise ValueError("the file ends before its last pixel")
        yield series


@dataclass(frozen=True, eq=False)
class TiffLayout:
    """Which axes of a series' shape hold rows, columns and samples of a pixel, and what the samples mean."""

    rows: int
    columns: int
    samples: int | None  # None: one sample, without an axis of its own
    size: tuple[int, int]  # width, height
    colours: Colours
    order: tuple[int, ...] | None = None  # which planes are red, green and blue, where it is not this order

    @classmethod
    def of(cls, path: Path, series: Any) -> TiffLayout:
        """(y, x, c), (c, y, x), or (y, x) for a palette, each with ones between them. ``series`` may be one level."""
        page, shape = series.keyframe, series.shape
        colours = tiff_colours(path, page)
        axes = [axis for axis, length in enumerate(shape) if length != 1]
        lengths = [shape[axis] for axis in axes]
        if colours.model == "palette" and colours.alpha is None and len(axes) == 2:
            return cls(axes[0], axes[1], None, (lengths[1], lengths[0]), colours)
        # planes of one sample each, as OME-TIFF has them, are taken in the order red, green, blue
        possible = (3, 4) if page.samplesperpixel == 1 else (page.samplesperpixel,)
        if len(axes) == 3 and lengths[2] in possible and lengths[2] >= colours.n_samples:
            return cls(axes[0], axes[1], axes[2], (lengths[1], lengths[0]), colours)
        if len(axes) == 3 and lengths[0] in possible and lengths[0] >= colours.n_samples:
            order = order_of_planes(path, page) if page.samplesperpixel == 1 else None
            return cls(axes[1], axes[2], axes[0], (lengths[2], lengths[1]), colours, order)
        if len(axes) == 2 or page.samplesperpixel == 2:
            raise not_rgb(path, "greyscale" + (" with an alpha channel" if page.samplesperpixel == 2 else ""))
        raise not_rgb(path, f"its TIFF axes are {' x '.join(map(str, shape))}, not height x width x 3 or 4")

    def last(self, pixels: np.ndarray) -> np.ndarray:
        """``pixels``, an array of the series' axes, as (height, width, samples)."""
        height, width = pixels.shape[self.rows], pixels.shape[self.columns]
        if self.samples is not None:
            pixels = np.moveaxis(pixels, self.samples, -1)
        return pixels.reshape(height, width, -1)

    def rgb(self, samples: np.ndarray, white: tuple[float, float]) -> np.ndarray:
        """(height, width, 3) uint8 RGB of ``samples``, (height, width, at least as many as the colours have)."""
        colours, samples = self.colours, samples[..., : self.colours.n_samples]
        if self.order is not None:
            samples = samples[..., list(self.order)]
        if colours.model != "palette" and samples.dtype != np.uint8:
            n = colours.n_samples - (colours.alpha is not None)
            parts = [eight_bits(samples[..., :n], white[0])]
            if colours.alpha is not None:
                parts.append(eight_bits(samples[..., n:], white[1]))
            samples = np.concatenate(parts, axis=-1)
        return colours.rgb(samples)


def ome_image(page: Any) -> str:
    """What OME metadata say of the image that a page is part of; empty where there are none."""
    file = page.parent
    images = re.split(r"<(?:\w+:)?Image\b", file.ome_metadata or "")[1:]
    levels = [[level.keyframe.offset for level in series.levels] for series in file.series]
    number = next((i for i, offsets in enumerate(levels) if page.offset in offsets), 0)
    return images[number] if number < len(images) else ""


_COLOURS = {"r": 0, "red": 0, "g": 1, "green": 1, "b": 2, "blue": 2}
# Channels of fluorescence: dyes, filters and antibodies. Bright-field channels have other names, or none.
_FLUORESCENT = re.compile(
    r"dapi|hoechst|draq5|syto|sytox|fitc|tritc|cy[357]\b|texas.?red|alexa|\baf ?\d{3}|atto|opal|gfp|rfp|yfp|mcherry|"
    r"\bcd\d+|pan-?ck|cytokeratin|vimentin|ki-?67|boundary|interior|18s|autofluorescence",
    re.IGNORECASE,
)


def order_of_planes(path: Path, page: Any) -> tuple[int, ...] | None:
    """Where red, green and blue are by the names that OME metadata give to channels; ``None``: first, second, third.

    Raises ``UserError`` where the names are those of fluorescence.
    """
    names = re.findall(r"""<(?:\w+:)?Channel\b[^>]*?\bName\s*=\s*["']([^"']*)["']""", ome_image(page))
    if any(_FLUORESCENT.search(name) for name in names):
        raise not_rgb(path, f"its channels are those of fluorescence: {shortened(names, 6)}")
    colours = [_COLOURS.get(name.strip().lower()) for name in names[:3]]
    if sorted(colour for colour in colours if colour is not None) != [0, 1, 2] or colours == [0, 1, 2]:
        return None
    return tuple(colours.index(colour) for colour in range(3))


_JPEG = (6, 7, 34892)
_JPEG2000_YCBCR, _JPEG2000_RGB = 33003, 33005  # Aperio's, whatever the photometric tag says
_BT601 = (0.299, 0.587, 0.114)
_FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)


def tiff_colours(path: Path, page: Any) -> Colours:
    """What the samples of a TIFF page mean once decoded; a model that cannot be converted is refused by its name."""
    photometric = getattr(page.photometric, "name", str(page.photometric))
    if page.compression == _JPEG2000_YCBCR:
        photometric = "YCBCR"
    elif page.compression == _JPEG2000_RGB or decodes_to_rgb(page):
        photometric = "RGB"
    if photometric == "PALETTE":
        return Colours("palette", palette=_tiff_palette(path, page))
    models: dict[str, Model] = {
        "RGB": "RGB",
        "MINISBLACK": "RGB",  # of three or four planes; a single one is refused as grey
        "YCBCR": "YCbCr",
        "SEPARATED": "CMYK",
        "CIELAB": "CIELab",
        "ICCLAB": "ICCLab",
    }
    model = models.get(photometric)
    if photometric == "MINISWHITE" and page.samplesperpixel <= 2:
        raise not_rgb(path, "greyscale, white is zero")
    if model is None:
        raise not_rgb(path, f"the colours of this TIFF are {photometric}, which is not converted")
    if model in ("CIELab", "ICCLab") and page.dtype != np.uint8:
        raise not_rgb(path, f"its colours are {model} of type {page.dtype}, of which only 8 bits are converted")
    if model == "YCbCr":
        _require_usual_ycbcr(path, page)
    if model == "CMYK" and page.samplesperpixel < 4:
        raise not_rgb(path, f"it has {page.samplesperpixel} inks, not the four of CMYK")
    return Colours(model, None if photometric == "MINISBLACK" else _tiff_alpha(page, model))


def decodes_to_rgb(page: Any) -> bool:
    """A JPEG inside a TIFF is decoded to RGB, unless its three components lie apart."""
    return page.photometric == 6 and page.compression in _JPEG and page.planarconfig == 1


def needs_libtiff(page: Any) -> bool:
    """Chroma of fewer pixels than luma, without JPEG: tifffile decodes it not, libtiff does."""
    return page.photometric == 6 and page.compression not in _JPEG and page.subsampling not in (None, (1, 1))


def _tiff_alpha(page: Any, model: Model) -> Alpha | None:
    n = 4 if model == "CMYK" else 3
    if page.samplesperpixel <= n:
        return None
    if not page.extrasamples:  # against the standard; Pillow and libtiff take it for opacity
        return "unassociated" if page.samplesperpixel == n + 1 else None
    kinds: dict[int, Alpha] = {1: "associated", 2: "unassociated"}
    return kinds.get(int(page.extrasamples[0]))  # 0: unspecified, no opacity


def _tiff_palette(path: Path, page: Any) -> np.ndarray:
    table = tag_of(page, "ColorMap")
    if table is None:
        raise not_rgb(path, "its colours are those of a palette that it lacks")
    table = np.asarray(table, dtype=np.uint16).reshape(3, -1).T
    # 16 bits; some writers put 8 into them
    return (table >> 8 if table.max() > 255 else table).astype(np.uint8)


def _require_usual_ycbcr(path: Path, page: Any) -> None:
    for tag, usual in (("YCbCrCoefficients", _BT601), ("ReferenceBlackWhite", _FULL_RANGE)):
        stated = tag_of(page, tag)
        if stated is None:
            continue
        pairs = np.asarray(stated, dtype=np.float64).reshape(-1, 2)
        values = pairs[:, 0] / pairs[:, 1]
        # one unit of black and white makes no difference that is seen
        if len(values) != len(usual) or np.abs(values - usual).max() > (0.001 if tag == "YCbCrCoefficients" else 1):
            shown = ", ".join(f"{value:g}" for value in values)
            raise not_rgb(path, f"its colours are YCbCr with the {tag} {shown}, which is not converted")


def tag_of(page: Any, name: str) -> Any:
    tag = page.tags.get(name)
    return None if tag is None else tag.value


def libtiff_array(path: Path, page: Any) -> np.ndarray:
    """The page as libtiff converts it to RGB, in the order in which its rows and columns are stored."""
    import imagecodecs

    with open_binary(path) as stream:
        content = bytearray(stream.read())
    tag = page.tags.get("Orientation")
    if tag is not None:  # libtiff would apply half of it
        upright = struct.pack(page.parent.byteorder + "H", 1)
        content[tag.valueoffset : tag.valueoffset + 2] = upright
    rgba = imagecodecs.tiff_decode(bytes(content), index=page.index, asrgb=True)
    return np.ascontiguousarray(rgba[..., :3])


def white_levels(path: Path, colours: Colours, pieces: Iterable[np.ndarray]) -> tuple[float, float]:
    """The values that stand for white, and for opaque; ``pieces`` are (height, width, samples) and hold them all."""
    n = colours.n_samples - (colours.alpha is not None)
    white, opaque = _Range(), _Range()
    for piece in pieces:
        if colours.model == "palette" or piece.dtype == np.uint8:
            return 255.0, 255.0
        white.see(piece[..., :n])
        if colours.alpha is not None:
            opaque.see(piece[..., n])
    level = white.level(path)
    return level, opaque.level(path) if colours.alpha is not None else level


class _Range:
    """The least and the highest value of what was seen."""

    def __init__(self) -> None:
        self.lowest, self.highest = math.inf, -math.inf
        self.dtype = np.dtype(np.uint16)

    def see(self, values: np.ndarray) -> None:
        self.dtype = values.dtype
        self.lowest, self.highest = min(self.lowest, float(values.min())), max(self.highest, float(values.max()))

    def level(self, path: Path) -> float:
        """What stands for white. 16-bit files hold 8, 10, 12, 14 or 16 significant bits: the fewest that fit."""
        if self.dtype == np.uint16:
            return next(2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if self.highest < 2**bits)
        if self.dtype.kind == "f" and self.lowest >= 0 and self.highest <= 1:
            return 1.0
        raise not_rgb(path, f"values of type {self.dtype} up to {self.highest:g}, not 8 or 16 bits")
