"""Colour models of image files, and how their samples become RGB with 8 bits on white glass.

The arithmetic is Pillow's and LittleCMS's. A colour profile (ICC) inside a file is not applied: other tools of the
field do not either, and what a file says beyond plain RGB is named by :meth:`stbench.slides.image.SlideImage.remarks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import UserError

Model = Literal["RGB", "YCbCr", "CMYK", "CIELab", "ICCLab", "palette"]
Alpha = Literal["associated", "unassociated"]

SAMPLES = {"RGB": 3, "YCbCr": 3, "CMYK": 4, "CIELab": 3, "ICCLab": 3, "palette": 1}
_ROWS = 1024  # converted at once: the steps between need several times the picture's memory


@dataclass(frozen=True, eq=False)
class Colours:
    """What the samples of a pixel mean.

    ``alpha`` says whether the sample after the colours is opacity, and whether colours have been multiplied by it
    (associated) or not. ``palette`` is (n, 3) uint8 RGB for the model "palette", whose sample is an index into it.
    """

    model: Model = "RGB"
    alpha: Alpha | None = None
    palette: np.ndarray | None = None

    @property
    def n_samples(self) -> int:
        """Samples that are looked at; a file may hold more."""
        return SAMPLES[self.model] + (self.alpha is not None)

    def rgb(self, samples: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB of ``samples``, (height, width, at least ``n_samples``).

        Samples are uint8, those of the model "palette" integers of any width.
        """
        if self.model == "RGB" and self.alpha is None:
            return np.ascontiguousarray(samples[..., :3])
        out = np.empty((*samples.shape[:2], 3), dtype=np.uint8)
        n = SAMPLES[self.model]
        for top in range(0, len(samples), _ROWS):
            rows = samples[top : top + _ROWS]
            colours = self._opaque(rows[..., :n])
            if self.alpha is not None:
                colours = on_white(colours, rows[..., n], associated=self.alpha == "associated")
            out[top : top + _ROWS] = colours
        return out

    def _opaque(self, samples: np.ndarray) -> np.ndarray:
        if self.model == "RGB":
            return samples
        if self.model == "palette":
            assert self.palette is not None
            return self.palette[samples[..., 0]]
        if self.model in ("CIELab", "ICCLab"):
            return _lab_to_rgb(samples, signed=self.model == "CIELab")
        return _pillow_to_rgb(samples, self.model)


def on_white(colours: np.ndarray, alpha: np.ndarray, associated: bool = False) -> np.ndarray:
    """``colours`` (..., 3) uint8 with the opacity ``alpha`` (...) uint8, laid over white: uint8.

    What is transparent is white, as glass without tissue is and as windows beyond the border are. ``associated``:
    colours have already been multiplied by their opacity.
    """
    clear = 255 - alpha[..., None].astype(np.uint32)
    if associated:
        return np.minimum(colours + clear, 255).astype(np.uint8)
    # rounded: exact for every pair of uint8
    return ((colours * (255 - clear) + 255 * clear + 127) // 255).astype(np.uint8)


def eight_bits(samples: np.ndarray, white: float) -> np.ndarray:
    """``samples`` as uint8, ``white`` becoming 255; those that are uint8 stay as they are."""
    if samples.dtype == np.uint8:
        return samples
    scaled = np.multiply(samples, 255.0 / white, dtype=np.float32)
    return np.rint(scaled).clip(0, 255).astype(np.uint8)


def _pillow_to_rgb(samples: np.ndarray, mode: str) -> np.ndarray:
    from PIL import Image

    height, width = samples.shape[:2]
    picture = Image.frombytes(mode, (width, height), np.ascontiguousarray(samples).tobytes())
    return np.asarray(picture.convert("RGB"))


def _lab_to_rgb(samples: np.ndarray, signed: bool) -> np.ndarray:
    """``signed``: a and b are two's complement (TIFF's CIELab), else 128 is their zero (ICC's encoding)."""
    from PIL import Image, ImageCms

    if not signed:
        samples = samples ^ np.array([0, 128, 128], dtype=np.uint8)
    height, width = samples.shape[:2]
    picture = Image.frombytes("LAB", (width, height), np.ascontiguousarray(samples).tobytes())
    converted = ImageCms.applyTransform(picture, _lab_to_srgb())
    assert converted is not None
    return np.asarray(converted)


@cache
def _lab_to_srgb() -> Any:
    from PIL import ImageCms

    return ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), inMode="LAB", outMode="RGB"
    )


def not_rgb(path: Path, what: str) -> UserError:
    return UserError(f"{path} is not a colour image ({what}) - an H&E image in RGB is needed")
