"""The pictures of a section: which one shows the stained tissue, at which scale, and which only seems to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stbench.errors import UserError
from stbench.slides.geometry import SAME_PICTURE, likeness
from stbench.slides.image import Level, SlideImage

from .names import begins_with, called, file_named, listed

SUFFIXES = (".tif", ".tiff", ".btf", ".png", ".jpg", ".jpeg", ".svs", ".ndpi")
CYTASSIST = "cytassist_image"
REDUCED = ("tissue_hires_image", "tissue_lowres_image")
MADE_BY_SPACE_RANGER = (*REDUCED, "aligned_fiducials", "aligned_tissue_image", "detected_tissue_image", CYTASSIST)


def reduced_picture(folders: Iterable[Path], level: Level, prefix: str | None = None) -> Path | None:
    """Space Ranger's own picture of that level, in the first folder that has one."""
    names = (f"tissue_{level}_image.png", f"tissue_{level}_image.jpg")
    return next((path for folder in folders if (path := file_named(folder, names, prefix)) is not None), None)


def own_pictures(folder: Path, prefix: str | None = None) -> list[Path]:
    """Pictures in the folder itself that Space Ranger did not make."""
    if not folder.is_dir():
        return []
    return [
        path
        for path in sorted(folder.iterdir())
        if path.name.lower().removesuffix(".gz").endswith(SUFFIXES) and path.is_file()
        if not called(path, MADE_BY_SPACE_RANGER) and begins_with(path, prefix)
    ]


def require_stained(image: Path) -> None:
    """Refuse, as the full-resolution image, a picture whose name says that it is another one."""
    if called(image, (CYTASSIST,)):
        raise UserError(
            f"{image} is the picture of the CytAssist instrument, not the microscope's of the stained section - give "
            "the H&E image that Space Ranger was run on (--image)"
        )
    if called(image, REDUCED):
        raise UserError(
            f"{image} is the reduced picture that Space Ranger made, not the full-resolution image - leave it out: "
            "without an image it is used, at its own scale"
        )


def full_resolution(folder: Path, size: tuple[float, float, float] | None, prefix: str | None = None) -> Path | None:
    """A picture named ``image`` or ``..._image`` in the folder itself; those in spatial/ are never full resolution.

    ``size`` is what :func:`expected_size` says. Of several the one of that size is meant: 10x Genomics publishes
    ``NAME_image.tif`` (CytAssist's) and ``NAME_tissue_image.tif`` (the microscope's) beside each other.
    """
    found = [path for path in own_pictures(folder, prefix) if _stem(path).split("_")[-1] == "image"]
    if len(found) > 1:
        fitting = of_size(found, size)
        if len(fitting) == 1:
            return fitting[0]
        raise UserError(f"{folder} holds several full-resolution images ({listed(found)}) - keep one, or name it")
    return found[0] if found else None


def _stem(path: Path) -> str:
    return path.name.lower().split(".")[0]


def expected_size(picture: Path | None, scale: float | None) -> tuple[float, float, float] | None:
    """Width, height and tolerance, in pixels, of the full-resolution image of which ``picture`` is a reduced copy."""
    if picture is None or scale is None or not (np.isfinite(scale) and scale > 0):
        return None
    try:
        width, height = SlideImage.from_file(picture, scale).full_resolution_size
    except UserError:
        return None  # the check of the slide says what is wrong with it
    return width, height, 2 / scale


def of_size(pictures: Sequence[Path], size: tuple[float, float, float] | None) -> list[Path]:
    """Those that have the size; one that cannot be read as a picture has none."""
    if size is None:
        return []
    width, height, tolerance = size
    fitting = []
    for path in pictures:
        try:
            found = SlideImage.from_file(path).size
        except UserError:
            continue
        if max(abs(found[0] - width), abs(found[1] - height)) <= tolerance:
            fitting.append(path)
    return fitting


def require_not_cytassist(image: SlideImage, cytassist: Path | None) -> None:
    """Refuse an image that is the CytAssist instrument's picture, whatever it is called.

    Without a microscope image Space Ranger makes its reduced pictures of that one, and positions are in its pixels.
    """
    if cytassist is None:
        return
    try:
        theirs = SlideImage.from_file(cytassist)
        difference = np.abs(np.subtract(image.full_resolution_size, theirs.size)).max()
        seen = theirs.thumbnail(256) if difference <= 2 / min(image.scale, 1.0) else None
    except UserError:  # what is not used need not be readable; what is wrong with the image its own check says
        return
    if seen is None:
        return
    found = likeness(image.thumbnail(256), seen)
    if found and found["as it is"] >= SAME_PICTURE:
        raise UserError(
            f"{image.name} is the picture of the CytAssist instrument ({cytassist.name}), not the microscope's of the "
            "stained section, and positions are in its pixels - run Space Ranger again with the H&E image (--image)"
        )
