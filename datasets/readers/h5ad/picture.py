"""The pictures that an ``.h5ad`` file embeds or names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stbench.errors import UserError
from stbench.slides.colour import Colours, eight_bits
from stbench.slides.image import Level, SlideImage
from stbench.system.scalars import as_text

if TYPE_CHECKING:
    pass
from .file import beside, libraries_of, open_hdf5, part_of

# the last is HEST-1k's name for its only small image
EMBEDDED: tuple[tuple[str, Level], ...] = (("hires", "hires"), ("lowres", "lowres"), ("downscaled_fullres", "lowres"))


def named_image(path: Path, library: str | None = None) -> Path | None:
    """The image file that the object names as its source, if it is there; reads no counts."""
    import h5py

    with open_hdf5(path) as file:
        libraries = libraries_of(file.get("uns/spatial"))
        section = libraries.get(library if library is not None else next(iter(libraries), ""), {})
        named = part_of(section, "metadata").get("source_image_path")
        if isinstance(named, h5py.Dataset):
            named = None if named.shape is None else named[()]  # a dataset without a shape is how None is written
        return beside(path, as_text(named))


def section_image(
    path: Path, given: Path | SlideImage | None, content: Mapping[str, Any], factors: Mapping[str, float]
) -> SlideImage:
    if isinstance(given, SlideImage):
        return given
    if given is not None:
        return SlideImage.from_file(given)
    named = as_text(part_of(content, "metadata").get("source_image_path"))
    source = beside(path, named)
    if source is not None:
        return SlideImage.from_file(source)
    images = part_of(content, "images")
    for name, level in EMBEDDED:
        if name in images and np.size(images[name]):
            scale = factors.get(f"tissue_{name}_scalef")
            if scale is None:
                raise UserError(
                    f"{path} has a {name} image but no tissue_{name}_scalef - without it its scale is unknown"
                )
            return SlideImage.from_array(_eight_bits(path, name, np.asarray(images[name])), scale, level)
    missing = f"; the image that it names, {named}, is not there" if named is not None else ""
    raise UserError(
        f"{path} holds no image in uns['spatial']{missing} - give the full-resolution image with --image "
        "(in a manifest: image)"
    )


def smaller_pictures(path: Path, content: Mapping[str, Any], factors: Mapping[str, float]) -> tuple[SlideImage, ...]:
    """The images inside the file, largest first, that are sound and of a known scale: to check the chosen one by."""
    images = part_of(content, "images")
    found = []
    for name, level in EMBEDDED:
        array, scale = np.asarray(images.get(name, ())), factors.get(f"tissue_{name}_scalef", 0.0)
        if _is_colour(array) and np.isfinite(scale) and scale > 0:
            found.append(SlideImage.from_array(_eight_bits(path, name, array), scale, level))
    return tuple(found)


def _is_colour(array: np.ndarray) -> bool:
    """Whether an embedded image is what :func:`_eight_bits` takes."""
    if array.ndim != 3 or array.shape[2] not in (3, 4) or array.size == 0:
        return False
    return array.dtype == np.uint8 or (array.dtype.kind == "f" and bool(array.min() >= 0 and array.max() <= 1))


def _eight_bits(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """RGB, 8 bits, transparent parts white: embedded images are uint8, or floating point from 0 to 1."""
    if array.ndim != 3 or array.shape[2] not in (3, 4):
        grey = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 2))
        what = f"the shape {array.shape}" + (" (greyscale)" if grey else "")
        raise UserError(f"{path}: the {name} image has {what}, not (height, width, 3) - replace it")
    if array.dtype.kind == "f" and array.min() >= 0 and array.max() <= 1:
        array = eight_bits(array, 1.0)
    if array.dtype != np.uint8:
        raise UserError(
            f"{path}: the {name} image is {array.dtype} up to {array.max():g}, neither uint8 nor 0 to 1 - convert it"
        )
    return Colours(alpha="unassociated" if array.shape[2] == 4 else None).rgb(array)
