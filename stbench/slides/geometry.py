"""Whether a slide's spots, array and pictures can belong together: one check of what every reader returns.

Numbers from spots that lie elsewhere than their patches look like any others, so what cannot be is an error, and what
is only unlikely a notice; each says the likely cause and what to do. Limits stand against what real sections show (21
sections of both generations of arrays): spots lie within 0.4 pitches of where the array puts them, none is mirrored,
pictures of one section in two sizes correlate by 0.999, and neighbouring sections by 0.8 at most, however turned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from .image import SlideImage
from .lattice import pitch
from .on_tissue import BLACK, check_on_tissue, fit
from .pixel_size import check_pixel_size

if TYPE_CHECKING:
    from .slide import Slide
from .evidence import Finding

FOLLOWS = 0.5  # of the positions' variance: less is explained by the array where spots stand in another order
ASTRAY = 1.0  # pitches between a spot and where the array puts it
TOUCHING, APART = 0.95, 4.0  # pitch over spot diameter: 1.0 (Visium HD), 1.4 to 2.0 on all other arrays
OFF_TISSUE = 0.02  # of a filtered matrix's barcodes; spots may have been set off by hand
SAME_PICTURE, ALIKE = 0.95, 0.85  # correlation of two pictures
GRID = 64  # pixels of a side at which pictures are compared
BLACK_SHARE = 0.1  # of an image; a rim is less
GREY = 3  # between the channels of a pixel: a grey picture that was compressed as JPEG in colour differs by so little
DIM = 110  # of 255: brightness of the brightest channel, which stained tissue exceeds under white light
PLAIN = 3.0  # standard deviation of brightness below which a picture shows too little to be compared


def check_image(slide: Slide) -> list[Finding]:
    """Whether the image of ``slide`` is as its smaller pictures and the size of its pixels say; looks at no spot."""
    return [*_stain(slide.image), *_pictures(slide), *check_pixel_size(slide)]


def _stain(image: SlideImage) -> Iterator[Finding]:
    """Whether the image can be one of haematoxylin and eosin under white light."""
    pixels = image.thumbnail(4 * GRID)
    if pixels.min() == 255:
        yield Finding(
            "error", f"{image.name} is white all over: transparent everywhere, or nothing was scanned - fetch it again"
        )
        return
    brightest = pixels.max(axis=2)
    if brightest.std() < PLAIN:
        return
    if int((brightest - pixels.min(axis=2)).max()) <= GREY:
        yield Finding(
            "error",
            f"{image.name} is grey: red, green and blue are the same everywhere - an H&E image in colour is needed",
        )
        return
    black = brightest < BLACK
    if BLACK_SHARE < black.mean() < 1 and np.median(brightest[~black]) < DIM:
        yield Finding(
            "notice",
            f"{image.name} is dim on black, as images of fluorescence are, and H&E is not: it is bright on white glass "
            "- give the H&E image",
        )


def check_spots(slide: Slide) -> list[Finding]:
    """What does not fit together in ``slide``, whose schema, positions and image have been found sound."""
    findings = [*_off_tissue(slide), *_on_array(slide), *_spot_size(slide)]
    # what lies beside tissue for a reason that has been named need not be said again
    return findings or check_on_tissue(slide)


def _off_tissue(slide: Slide) -> Iterator[Finding]:
    off = slide.evidence.off_tissue
    if off is None or off.n == 0:
        return
    fact = (
        f"a filtered matrix holds only spots under tissue, but {off.n} of the {off.of} barcodes of {off.counts} have "
        f"in_tissue = 0 in {off.positions}"
    )
    if off.n > OFF_TISSUE * off.of:
        yield Finding(
            "error",
            f"{fact} - the two are of different sections (all slides share their barcodes): "
            "put the files that Space Ranger wrote for one section together",
        )
    else:
        yield Finding("notice", f"{fact}; they are left out - check that both files are of this section")


@dataclass(frozen=True)
class ArrayMap:
    """The linear map from array (column, row) to pixels (x, y) that fits a slide's spots best."""

    column_step: np.ndarray  # (2,) x, y: pixels from one column to the next
    row_step: np.ndarray
    residuals: np.ndarray  # (n_spots,) pixels
    explained: float  # of the positions' variance, 0 to 1

    @property
    def turn(self) -> float:
        """Sine of the angle from the column's to the row's step: 1 upright or rotated, -1 mirrored."""
        lengths = np.linalg.norm(self.column_step) * np.linalg.norm(self.row_step)
        x, y = self.column_step, self.row_step
        return float((x[0] * y[1] - x[1] * y[0]) / lengths) if lengths else 0.0


def array_map(array_xy: np.ndarray, centres: np.ndarray) -> ArrayMap | None:
    """``array_xy`` (n, 2) column, row; ``centres`` (n, 2) x, y. ``None`` for spots in one line or fewer than four."""
    if len(array_xy) < 4:
        return None
    design = np.column_stack([array_xy - np.mean(array_xy, axis=0), np.ones(len(array_xy))])
    steps, _, rank, _ = np.linalg.lstsq(design, centres, rcond=None)
    spread = float(((centres - centres.mean(axis=0)) ** 2).sum())
    if rank < 3 or spread == 0:
        return None
    residuals = np.linalg.norm(centres - design @ steps, axis=1)
    return ArrayMap(steps[0], steps[1], residuals, 1 - float((residuals**2).sum()) / spread)


def _on_array(slide: Slide) -> Iterator[Finding]:
    array_xy, centres = slide.array_xy, slide.centres
    _, count = np.unique(centres, axis=0, return_counts=True)
    if (count > 1).any():
        yield Finding(
            "notice",
            f"{int(count[count > 1].sum())} of {slide.n_spots} spots have the very position of another one, and so "
            "the same patch - check the positions",
        )
    fitted = array_map(array_xy, centres)
    if fitted is None:
        return
    if fitted.explained < FOLLOWS and slide.n_spots >= 10:
        yield Finding(
            "error",
            "the spots' pixel positions do not follow their places on the array (of the positions' variance "
            f"{fitted.explained:.0%} is explained by array_row and array_col) - positions and spots are of different "
            "sections or in different orders: join them by barcode again",
        )
        return
    astray = fitted.residuals > ASTRAY * pitch(centres)
    if astray.any():
        yield Finding(
            "notice",
            f"{int(astray.sum())} of {slide.n_spots} spots lie more than a pitch from where the array puts them, the "
            f"first is {slide.spot_ids[int(np.argmax(astray))]} - check their positions",
        )
    if fitted.turn < -0.5 and fitted.explained > 0.9:
        yield Finding("notice", f"the spots on the image are the mirror image of the array, {_mirrored(slide, fitted)}")


def _mirrored(slide: Slide, fitted: ArrayMap) -> str:
    hexagonal = bool((slide.array_xy.sum(axis=1) % 2 == 0).all())
    rows_over_columns = float(np.linalg.norm(fitted.row_step) / np.linalg.norm(fitted.column_step))
    if hexagonal and rows_over_columns < 0.75:  # on Visium rows are 1.73 times as far apart as columns
        return "and its rows are nearer to each other than its columns - exchange array_row and array_col"
    found = fit(slide)
    better = None if found is None else found.better or found.mirrored
    if better is not None:
        return f"which turning a section never gives; {better} - correct the positions"
    if slide.image.outside(slide.centres[:, ::-1]).any():
        return (
            "which turning a section never gives - either array_row and array_col are exchanged, or positions run from "
            "the bottom or the right of the image; correct them, unless image and positions were mirrored together"
        )
    other = "" if hexagonal else ", or array_row and array_col"
    return (
        f"which turning a section never gives - x and y of the positions are probably exchanged{other} (x is the "
        "image's column, y its row): exchange them, unless image and positions were mirrored together"
    )


def _spot_size(slide: Slide) -> Iterator[Finding]:
    section = slide.adata.uns.get("spatial", {}).get(slide.id, {})
    diameter = float(section.get("scalefactors", {}).get("spot_diameter_fullres") or 0)
    step = _pitch(slide)
    if not (diameter > 0 and np.isfinite(step)):
        return
    ratio = step / diameter
    fact = f"neighbouring spots are {step:.4g} px apart, but by spot_diameter_fullres {diameter:.4g} px wide"
    if ratio < TOUCHING:
        for picture in (slide.image, *slide.evidence.pictures):
            scale = picture.scale
            full = not slide.image.outside(slide.centres / scale).any()
            if scale < 1 and full and TOUCHING <= ratio / scale <= APART / 2:
                yield Finding(
                    "error",
                    f"{fact}: the positions are in pixels of the {picture.level} image ({scale:.4g} per "
                    "full-resolution pixel), not of the full-resolution one - divide them by that scale factor",
                )
                return
        yield Finding("notice", f"{fact}: the two are in pixels of different images{_scaled(slide)}")
    elif ratio > APART:
        yield Finding("notice", f"{fact}: the two may be in pixels of different images{_scaled(slide)}")


def _scaled(slide: Slide) -> str:
    """What would bring spots of another scale onto the tissue, and what to do."""
    found = fit(slide)
    better = "" if found is None or found.better is None else f"; {found.better}"
    return f"{better} - check positions and scale factors"


def _pitch(slide: Slide) -> float:
    """Pixels between neighbours on the array; of a few scattered spots the nearest one is farther."""
    fitted = array_map(slide.array_xy, slide.centres)
    if fitted is None or fitted.explained < 0.9:
        return pitch(slide.centres)
    column, row = fitted.column_step, fitted.row_step
    if (slide.array_xy.sum(axis=1) % 2 == 0).all():  # every other place of the grid has a spot
        steps = [2 * column, 2 * row, column + row, column - row]
    else:
        steps = [column, row]
    return float(min(np.linalg.norm(step) for step in steps))


SYMMETRIES: dict[str, Callable[[np.ndarray], np.ndarray]] = {  # what is done to a picture
    "as it is": lambda array: array,
    "turned by 180 degrees": lambda array: array[::-1, ::-1],
    "mirrored left to right": lambda array: array[:, ::-1],
    "mirrored top to bottom": lambda array: array[::-1],
    "turned by 90 degrees clockwise": lambda array: np.rot90(array, -1),
    "turned by 90 degrees anticlockwise": lambda array: np.rot90(array),
    "mirrored across the diagonal": lambda array: array.T,
    "mirrored across the other diagonal": lambda array: array[::-1, ::-1].T,
}


def likeness(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Correlation of the brightness of two RGB pictures, the first one turned in every way; empty: too plain to say.

    Both (height, width, 3) uint8 of any size; they are compared at 64 x 64 pixels.
    """
    small, other = _brightness(first), _brightness(second)
    if small.std() < PLAIN or other.std() < PLAIN:
        return {}
    return {name: float(np.corrcoef(turned(small).ravel(), other.ravel())[0, 1]) for name, turned in SYMMETRIES.items()}


def _brightness(pixels: np.ndarray) -> np.ndarray:
    from PIL import Image

    reduced = Image.fromarray(pixels).convert("L").resize((GRID, GRID), Image.Resampling.BOX)
    return np.asarray(reduced, dtype=np.float64)


def _pictures(slide: Slide) -> Iterator[Finding]:
    """The image against every smaller picture of the section; the first that does not fit is named."""
    image = slide.image
    # where patches come from a small image already, which of two small ones is wrong is not known
    severity: Literal["error", "notice"] = "error" if image.level == "full" else "notice"
    thumbnail: np.ndarray | None = None
    for picture in slide.evidence.pictures:
        if thumbnail is None:
            thumbnail = image.thumbnail(4 * GRID)
        found = likeness(thumbnail, picture.thumbnail(4 * GRID))
        best = max(found, key=lambda name: found[name], default="as it is")
        fits = best != "as it is" and found[best] >= SAME_PICTURE and found[best] > found["as it is"] + 0.02
        name = _called(picture)
        if not _same_size(image, picture):
            yield Finding(severity, _other_size(image, picture, name, best if fits else None))
            return
        if fits:
            yield Finding(
                severity,
                f"{image.name} does not lie as {name} does: it fits {best} (correlation {found[best]:.2f}, as it is "
                f"{found['as it is']:.2f}) - give the image as the positions were found on it",
            )
            return
        if found and found["as it is"] < SAME_PICTURE:
            different = found["as it is"] < ALIKE
            yield Finding(
                severity if different else "notice",
                f"{image.name} {'shows something else than' if different else 'is not quite like'} {name} "
                f"(correlation {found['as it is']:.2f}, the same section gives 0.99) - it "
                f"{'is' if different else 'may be'} of another section, or cut or stained otherwise: give the image "
                "that the positions were found on",
            )
            return


def _called(picture: SlideImage) -> str:
    return f"the {picture.level} image inside the file" if picture.path is None else str(picture.path)


def _same_size(image: SlideImage, picture: SlideImage) -> bool:
    # a small picture is a rounded copy of the large one: a pixel of it is 1 / scale pixels
    tolerance = 2 / min(picture.scale, image.scale)
    return bool(np.abs(np.subtract(image.full_resolution_size, picture.full_resolution_size)).max() <= tolerance)


def _other_size(image: SlideImage, picture: SlideImage, name: str, best: str | None) -> str:
    width, height = image.full_resolution_size
    wanted = picture.full_resolution_size
    fact = (
        f"{image.name} is {width:.0f} x {height:.0f} px, but by {name} and its scale factor the full-resolution image "
        f"has about {wanted[0]:.0f} x {wanted[1]:.0f}"
    )
    if best is not None and np.allclose((height, width), wanted, rtol=0.02):
        return f"{fact}: it fits {best} - give the image as the positions were found on it"
    if np.isclose(width / wanted[0], height / wanted[1], rtol=0.02):
        return (
            f"{fact}: it is one of another scale ({width / wanted[0]:.3g} times as large) - give the image that the "
            "positions were found on, or bring positions and scale factors to this one"
        )
    return f"{fact} - give the image that the positions were found on (that Space Ranger was run on)"
