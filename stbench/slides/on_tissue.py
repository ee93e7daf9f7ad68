"""Whether spots lie on the tissue of their image, or would if their positions were read in another way.

The array says how spots lie to each other, and nothing of where they lie on the image. What does is that spots under
tissue cover the tissue: the area that they cover is correlated with the darkness of the image, as it is and after
every change that a mistake could have made. On 13 sections of three kinds of arrays the correlation is 0.72 to 0.92;
turned or mirrored positions are at least 0.07 lower, and no change raises it by more than 0.01. Of the area covered,
0.76 to 0.90 is tissue: fat is as pale as glass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .evidence import Finding
from .lattice import pitch

if TYPE_CHECKING:
    from .slide import Slide

GRID = 128  # pixels of the image's longer side at which it is looked at
FEWEST_SPOTS = 30
COVERED = 0.75  # pitches around a spot that it stands for
BETTER, FITS = 0.05, 0.7  # by how much, and to what correlation, a change must raise it to be told
NEARLY_ALL = 0.95  # share of the tissue that is covered where spots off tissue were not left out
LESS_BESIDE = 0.02  # share of the covered area that the change must bring onto tissue: an array may be smaller than it
ALSO_FITS = 0.02  # below the best: the simplest change that fits as well is the one to tell
UNLIKE, BESIDE = 0.4, 0.5  # correlation and share on tissue below which spots and image do not belong together
TWO_TONES = 0.55  # share of the darkness' variance that lies between tissue and glass; less is neither
SHARES = (0.01, 0.8)  # of the image that is tissue, between which there is something to tell tissue from
FACTORS = np.geomspace(1 / 16, 16.0, 161)  # by which positions may have to be multiplied; 1.0 is among them
BLACK = 30  # brightness of the brightest channel
ASTRAY = 1.5  # pitches: a smaller shift is not told
SCALED = 1.0  # pitches by which another scale must move spots on average to be told
SCATTERED = 1.5  # times as far as the nearest neighbour the fourth is, if spots are on no lattice: cells, for instance
LOOKED_AT = 5000  # spots whose neighbours are looked for


@dataclass(frozen=True)
class Reading:
    """Another way to read the positions."""

    change: str  # in words, to follow "with"
    correlation: float
    on_tissue: float  # share of the area covered
    of_tissue: float  # share of the tissue that is covered

    def __str__(self) -> str:
        return f"with {self.change} they would lie on the tissue ({self.correlation:.2f})"


@dataclass(frozen=True)
class Fit:
    """How well spots cover the tissue of their image."""

    correlation: float  # of the area that they cover with the image's darkness
    on_tissue: float  # share of that area
    of_tissue: float  # share of the tissue that they cover
    best: float  # the same after the change that fits best
    better: Reading | None  # the simplest change that fits clearly better, if there is one
    mirrored: Reading | None  # of the changes that mirror positions the one that fits, if it is one alone


def check_on_tissue(slide: Slide) -> list[Finding]:
    """A notice where spots lie elsewhere than on the tissue, with what would bring them there."""
    found = fit(slide)
    if found is None or (found.better is None and (found.correlation >= UNLIKE or found.on_tissue >= BESIDE)):
        return []
    fact = (
        "the spots do not lie on the tissue (the area that they cover and the image's darkness correlate by "
        f"{found.correlation:.2f}"
    )
    look = "look at the picture of 'stbench data check'"
    if found.better is not None:
        mend = "correct the positions (of Xenium the alignment), or give the image that they were found on"
        rest = f"); {found.better} - {look} and {mend}"
    else:
        why = (
            "is the image of another section?"
            if found.of_tissue < NEARLY_ALL
            else "spots cover nearly all of the tissue and much besides: leave out those off tissue (in_tissue = 0)"
        )
        rest = f", and by {found.best:.2f} at most wherever they are put) - {look}: {why}"
    return [Finding("notice", fact + rest)]


def fit(slide: Slide) -> Fit | None:
    """How well the spots cover the tissue; ``None`` where image or spots are too few or too plain to say."""
    if slide.n_spots < FEWEST_SPOTS:
        return None
    step = spacing(slide.centres)
    if not np.isfinite(step):
        return None
    dark = tissue(slide.image.thumbnail(GRID))
    if dark is None:
        return None
    view = _View(dark, np.array(slide.image.full_resolution_size), step)
    given = view.reading("", slide.centres)
    readings = [*_simple(slide, view), *_scaled(slide, view), *_shifted(slide, view)]
    best = max((reading.correlation for reading in readings), default=-1.0)
    told = [
        reading
        for reading in readings
        if reading.correlation >= max(FITS, given.correlation + BETTER)
        and reading.on_tissue >= given.on_tissue + LESS_BESIDE
    ]
    most = max((reading.correlation for reading in told), default=0.0)
    better = next((reading for reading in told if reading.correlation >= most - ALSO_FITS), None)
    mirrored = _distinct([reading for reading in readings if reading.change in MIRRORING], given)
    return Fit(given.correlation, given.on_tissue, given.of_tissue, max(best, given.correlation), better, mirrored)


def _distinct(readings: list[Reading], given: Reading) -> Reading | None:
    """The one that fits best, at least as well as positions as they were given, and clearly better than the others."""
    ordered = sorted(readings, key=lambda reading: -reading.correlation)
    if not ordered or ordered[0].correlation < max(FITS, given.correlation):
        return None
    first, *others = ordered
    return first if all(other.correlation <= first.correlation - ALSO_FITS for other in others) else None


def spacing(centres: np.ndarray) -> float:
    """How far apart spots are: the pitch of a lattice; of scattered spots, as cells are, the distance to the fourth.

    The nearest neighbour of a spot of many at random places is much nearer than they are apart on average, so that
    what is within a pitch of them is a part of what they cover. NaN where no two spots differ.
    """
    from scipy.spatial import cKDTree

    step = pitch(centres)
    places = np.unique(np.asarray(centres, dtype=np.float64), axis=0)
    if len(places) < FEWEST_SPOTS:
        return step
    some = places[:: max(1, len(places) // LOOKED_AT)]
    fourth = float(np.median(cKDTree(places).query(some, k=5)[0][:, 4]))
    return fourth if fourth > SCATTERED * step else step


def tissue(pixels: np.ndarray) -> np.ndarray | None:
    """How much of each pixel is tissue, 0 (glass) to 1; ``None`` where the picture is not of tissue on glass.

    ``pixels`` (height, width, 3) uint8. Haematoxylin and eosin both take away green. Typical glass becomes 0 and
    typical tissue 1, so that dense nuclei do not count more than stroma. Black is no stain: a mask, a pen, a rim.
    """
    black = pixels.max(axis=2) < BLACK
    if black.mean() > SHARES[1]:
        return None
    dark = 255.0 - pixels[..., 1]
    dark[black] = 0.0
    threshold, between = _two_tones(dark)
    above = dark > threshold
    if between < TWO_TONES or not SHARES[0] < above.mean() < SHARES[1]:
        return None
    low, high = np.median(dark[~above]), np.median(dark[above])
    return np.clip((dark - low) / (high - low), 0.0, 1.0)


def _two_tones(values: np.ndarray) -> tuple[float, float]:
    """Otsu's threshold, and the share of the variance that lies between what is below and above it."""
    counts, edges = np.histogram(values, bins=128)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1] / counts.sum()
    partial = np.cumsum(counts * middle)[:-1] / counts.sum()
    mean = float((counts * middle).sum() / counts.sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        between = np.nan_to_num((mean * below - partial) ** 2 / (below * (1 - below)))
    at = int(np.argmax(between))
    variance = float(values.var())
    return float(edges[at + 1]), float(between[at] / variance) if variance else 0.0


@dataclass(frozen=True)
class _View:
    """The image at a small size, and how spots are laid over it."""

    dark: np.ndarray  # (height, width), 0 to 1
    size: np.ndarray  # (2,) width and height at full resolution
    pitch: float  # full-resolution pixels

    @property
    def shrink(self) -> float:
        return float(self.dark.shape[1] / self.size[0])

    def covered(self, centres: np.ndarray, step: float | None = None) -> np.ndarray:
        """(height, width) of 0 and 1: what spots at ``centres`` cover; ``step`` is their pitch if it is another."""
        from scipy.ndimage import distance_transform_edt

        height, width = self.dark.shape
        columns, rows = np.floor(centres * self.shrink).T  # perhaps further out than integers reach
        empty = np.ones((height, width), dtype=bool)
        inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
        empty[rows[inside].astype(np.int64), columns[inside].astype(np.int64)] = False
        reach = COVERED * (self.pitch if step is None else step) * self.shrink
        return np.asarray(distance_transform_edt(empty) <= max(reach, 0.5), dtype=np.float64)

    def reading(self, change: str, centres: np.ndarray, step: float | None = None) -> Reading:
        """How spots at ``centres`` fit; a correlation of 0 where they cover nothing or everything."""
        covered = self.covered(centres, step)
        if covered.std() == 0:
            return Reading(change, 0.0, float(covered.mean() * self.dark.mean()), float(covered.mean()))
        correlation = np.corrcoef(covered.ravel(), self.dark.ravel())[0, 1]
        on_tissue = self.dark[covered > 0]
        return Reading(change, float(correlation), float(on_tissue.mean()), float(on_tissue.sum() / self.dark.sum()))


MIRRORING = (
    "x and y exchanged",
    "x counted from the right",
    "y counted from the bottom",
    "positions mirrored across the other diagonal",
)


def _simple(slide: Slide, view: _View) -> Iterator[Reading]:
    """Axes exchanged or counted from the other end, and pixels of a smaller picture."""
    centres, (width, height) = slide.centres, view.size - 1
    x, y = centres.T
    readings = {
        "x and y exchanged": np.column_stack([y, x]),
        "x counted from the right": np.column_stack([width - x, y]),
        "y counted from the bottom": np.column_stack([x, height - y]),
        "positions turned by 180 degrees": np.column_stack([width - x, height - y]),
        "positions turned by 90 degrees clockwise": np.column_stack([width - y, x]),
        "positions turned by 90 degrees anticlockwise": np.column_stack([y, height - x]),
        "positions mirrored across the other diagonal": np.column_stack([width - y, height - x]),
    }
    for change, places in readings.items():
        if not slide.image.outside(places).any():
            yield view.reading(change, places)
    for picture in (slide.image, *slide.evidence.pictures):
        places = centres / picture.scale
        if picture.scale < 1 and not slide.image.outside(places).any():
            change = f"positions taken for pixels of the {picture.level} image (divided by {picture.scale:.4g})"
            yield view.reading(change, places, view.pitch / picture.scale)


def _scaled(slide: Slide, view: _View) -> Iterator[Reading]:
    """Positions in pixels of an image of another size."""
    farness = float(np.linalg.norm(slide.centres, axis=1).mean())
    found = [
        view.reading(
            f"positions multiplied by {factor:.2f} (as of an image of another size)",
            slide.centres * factor,
            view.pitch * factor,
        )
        for factor in FACTORS
        if abs(factor - 1) * farness > SCALED * view.pitch and not slide.image.outside(slide.centres * factor).any()
    ]
    if found:
        yield max(found, key=lambda reading: reading.correlation)


def _shifted(slide: Slide, view: _View) -> Iterator[Reading]:
    """Positions moved as a whole, to wherever all of them lie within the image."""
    from scipy.fft import irfft2, rfft2

    covered = view.covered(slide.centres)
    rows, columns = np.nonzero(covered)
    if not len(rows):
        return
    patch = covered[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    shape = tuple(np.add(view.dark.shape, patch.shape))
    product = irfft2(rfft2(view.dark, s=shape) * np.conj(rfft2(patch, s=shape)), s=shape)
    under = product[: view.dark.shape[0] - patch.shape[0] + 1, : view.dark.shape[1] - patch.shape[1] + 1]
    share, spread = patch.sum() / view.dark.size, view.dark.std()
    if not 0 < share < 1:
        return
    correlation = (under / view.dark.size - share * view.dark.mean()) / (spread * np.sqrt(share * (1 - share)))
    row, column = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    right, down = (column - columns.min()) / view.shrink, (row - rows.min()) / view.shrink
    if np.hypot(right, down) > ASTRAY * view.pitch:
        across = f"{abs(right):.0f} px to the {'right' if right > 0 else 'left'}" if round(right) else ""
        along = f"{abs(down):.0f} px {'down' if down > 0 else 'up'}" if round(down) else ""
        change = f"positions moved by {' and '.join(filter(None, (across, along)))}"
        yield view.reading(change, slide.centres + np.array([right, down]))
