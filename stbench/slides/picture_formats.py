"""What a picture's file is, and how PNG, JPEG and OpenSlide's formats are opened."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from ..errors import UserError, reason_of
from ..system.compressed import is_gzipped, open_binary
from ..system.cores import usable_memory
from .colour import Colours, eight_bits, not_rgb, on_white
from .tiff import white_levels

# A Visium section at full resolution has about 0.7 Gpx; Pillow's guard against decompression bombs warns at 0.09.
PIXEL_LIMIT = 4_000_000_000
ROWS = 1024  # of a picture that are copied at a time
OPENSLIDE_CACHE = 256 * 2**20  # bytes of decoded tiles


class Pixels(Protocol):
    """What windows are cut from: an array (height, width, 3) uint8, or something lazy that is sliced like one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, key: Any, /) -> np.ndarray: ...


def require_room(path: Path, size: tuple[int, int], n_bytes: int, how: str) -> None:
    """Raise a ``UserError`` where a picture that can only be decoded as a whole would take more memory than is free.

    ``how`` says what it is that leaves no choice: "a JPEG", "whose ...".
    """
    free = usable_memory()
    if n_bytes > free:
        raise UserError(
            f"{path} ({size[0]:,} x {size[1]:,} px, {how}) can only be decoded in one piece, which takes about "
            f"{n_bytes / 2**30:.1f} GiB of memory, and {free / 2**30:.1f} GiB are free - save it as a tiled TIFF, of "
            "which windows are read one by one (vips tiffsave IN OUT.tif --tile --pyramid --bigtiff --compression "
            "deflate), or use a machine with more memory"
        )


# what decoders raise on headers and data that make no sense to them
DECODING = (
    OSError, EOFError, ValueError, LookupError, TypeError, ArithmeticError, SyntaxError, RuntimeError, struct.error,
    zlib.error,
)  # fmt: skip


@contextmanager
def in_one_line(path: Path) -> Iterator[None]:
    """Decoders raise all kinds of errors on a damaged image; the user needs its name and one reason."""
    try:
        yield
    except MemoryError as error:
        raise UserError(
            f"{path} cannot be read as an image (it asks for more memory than there is) - it is damaged, or save it as "
            "a tiled TIFF"
        ) from error
    except DECODING as error:
        reason = reason_of(error)
        if isinstance(error, NotImplementedError) or "not supported" in reason:
            advice = "this form of image is not supported: save it as RGB, in PNG or TIFF"
        else:
            advice = "it is damaged or cut off: fetch it again"
        raise UserError(f"{path} cannot be read as an image ({reason}) - {advice}") from error


def picture_format(path: Path) -> Literal["jpeg", "png", "tiff", "openslide"]:
    with open_binary(path) as stream:
        head = stream.read(8)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if head.startswith(b"\xff\xd8\xff"):
        # the index file of a MIRAX slide is a small JPEG; the slide itself is in the folder of the same name
        return "openslide" if (path.with_suffix("") / "Slidedat.ini").is_file() else "jpeg"
    if not is_gzipped(path) and _openslide_knows(path):
        return "openslide"
    raise UserError(
        f"{path} is not an image that can be read (it begins with {head[:4]!r}) - "
        "give a JPEG, PNG or TIFF, or install stbench[wsi] for other whole-slide formats"
    )


def _openslide_knows(path: Path) -> bool:
    try:
        import openslide
    except ImportError:
        return False
    return openslide.OpenSlide.detect_format(str(path)) is not None


@contextmanager
def opened_picture(path: Path) -> Iterator[Any]:
    """A JPEG or PNG opened by Pillow, not yet decoded."""
    from PIL import Image

    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, PIXEL_LIMIT
    try:
        with open_binary(path) as stream, Image.open(stream) as picture:
            if picture.mode not in ("RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"):
                grey = picture.mode in ("1", "L", "LA", "I", "F") or picture.mode.startswith("I;16")
                raise not_rgb(path, f"greyscale, mode {picture.mode}" if grey else f"mode {picture.mode}")
            yield picture
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def picture_array(path: Path, picture: Any) -> np.ndarray:
    """All pixels of a JPEG or PNG that Pillow has opened: (height, width, 3) uint8."""
    width, height = picture.size
    # Pillow holds four bytes of a pixel; PNGs of 16 bits, and colours that are converted, take more for a moment
    taken = 7 if picture.mode == "RGB" and picture.format == "JPEG" else 16
    require_room(path, picture.size, taken * width * height, f"a {picture.format}")
    if picture.format == "PNG" and png_bits(path) == 16:  # Pillow drops the lower half of the bits
        import imagecodecs

        with open_binary(path) as stream:
            samples = imagecodecs.png_decode(stream.read())
        colours = Colours("RGB", "unassociated" if samples.shape[2] == 4 else None)
        white = white_levels(path, colours, [samples])
        parts = [eight_bits(samples[..., :3], white[0]), eight_bits(samples[..., 3:], white[1])]
        return colours.rgb(np.concatenate(parts, axis=-1))
    if picture.mode in ("RGBA", "PA") or "transparency" in picture.info:
        return Colours("RGB", "unassociated").rgb(np.asarray(picture.convert("RGBA")))
    if picture.mode != "RGB":
        return np.asarray(picture.convert("RGB"))
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    for top in range(0, height, ROWS):  # at once it would be held three times over
        bottom = min(top + ROWS, height)
        pixels[top:bottom] = np.asarray(picture.crop((0, top, width, bottom)))
    return pixels


def png_bits(path: Path) -> int:
    with open_binary(path) as stream:
        return stream.read(25)[24]  # signature, then the header chunk: length, name, width, height, bits a sample


ORIENTATION = 274  # the tag's number in TIFF and EXIF
_SHOWN_FROM = {  # where an orientation tag wants the first stored row and column
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "mirrored across the diagonal",
    6: "turned by 90 degrees clockwise",
    7: "mirrored across the other diagonal",
    8: "turned by 90 degrees anticlockwise",
}


def remarks(orientation: Any, model: str | None, profile: Any) -> list[str]:
    said = []
    if orientation in _SHOWN_FROM:
        said.append(
            f"its orientation tag ({orientation}) says that it should be shown {_SHOWN_FROM[orientation]}; the tag is "
            "not applied, because positions are taken to be those of the stored pixels, as in scanpy and squidpy - "
            "look at the picture of 'stbench data check'"
        )
    if model is not None:
        said.append(f"its colours are {model}; they are converted to RGB without a colour profile")
    if profile:
        name = _profile_name(bytes(profile))
        if "srgb" not in name.lower():
            said.append(f"its colour profile ({name}) is not applied: other slides may have other colours for that")
    return said


def _profile_name(profile: bytes) -> str:
    from PIL import ImageCms

    try:
        return " ".join(ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).split())
    except (OSError, ImageCms.PyCMSError):
        return "unreadable"


@contextmanager
def opened_slide(path: Path) -> Iterator[Any]:
    try:
        import openslide
    except ImportError as error:
        raise UserError(f"{path} needs OpenSlide to be read - install it with: pip install 'stbench[wsi]'") from error
    with openslide_errors():
        slide = openslide.OpenSlide(str(path))
    with slide:
        if hasattr(openslide, "OpenSlideCache"):
            slide.set_cache(openslide.OpenSlideCache(OPENSLIDE_CACHE))
        yield slide


@contextmanager
def openslide_errors() -> Iterator[None]:
    """OpenSlide's errors as those of other decoders."""
    import openslide

    try:
        yield
    except openslide.OpenSlideError as error:
        raise ValueError(str(error)) from error


class OpenSlidePixels:
    """A slide opened by OpenSlide, sliced like an array, at the coarsest level that is not ``reduction`` times coarser.

    Reading is safe from several threads at once.
    """

    def __init__(self, path: Path, slide: Any, reduction: float = 1.0) -> None:
        self._path = path
        self._slide, self._level, self._downsample = slide, 0, 1.0
        width, height = slide.dimensions
        if reduction > 1:
            self._level = slide.get_best_level_for_downsample(reduction)
            self._downsample = slide.level_downsamples[self._level]
            width, height = slide.level_dimensions[self._level]
        self.shape = (height, width, 3)
        self.cell_height = self.cell_width = 256  # as good a guess as any: OpenSlide does not say for all formats

    def __getitem__(self, key: tuple[slice, slice]) -> np.ndarray:
        top, bottom, _ = key[0].indices(self.shape[0])
        left, right, _ = key[1].indices(self.shape[1])
        corner = (round(left * self._downsample), round(top * self._downsample))  # in pixels of the finest level
        with in_one_line(self._path), openslide_errors():
            region = self._slide.read_region(corner, self._level, (right - left, bottom - top))
        rgba = np.asarray(region)  # unscanned areas are transparent
        return on_white(rgba[..., :3], rgba[..., 3])
