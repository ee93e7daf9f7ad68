"""Labels that repeat, that were smoothed over neighbouring spots, or that rest on next to no counts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from ..data.prepared import PreparedSlide
from .record import Finding, some
from .sides import Group, Sides, Spot

CHUNK = 4096  # spots, or pairs of them, that are looked at at a time
BY_CHANCE = 1e-3  # pairs of equal rows expected by chance in the whole dataset, at which equality says nothing
NEARLY_EMPTY = 10  # counts over the panel
MANY = 0.05  # share of a slice's spots

# On real sections (HER2+, mouse olfactory bulb, Visium breast and lymph node) and the demo the ratio is 1.01 or above;
# the same HER2+ and demo sections smoothed, even with seven tenths of a spot's own counts, are below 0.77.
SMOOTHED_BELOW = 0.8
MIN_MEAN = 0.2  # counts a spot: rarer genes show no smoothing once they are rounded
MIN_GENES, MIN_PAIRS = 20, 150  # fewer leave the quartile too uncertain: chance alone could bring it below
NEIGHBOURS = 1.25  # pairs of spots up to so many times the median distance to the nearest one


def repeated_rows(slides: Mapping[str, PreparedSlide], sides: Sides) -> tuple[Finding, list[Group]]:
    """Spots with the same panel counts, also up to a whole factor, that chance does not explain; and their groups."""
    n_spots = sum(slide.n_spots for slide in slides.values())
    rare = np.log(BY_CHANCE / max(1, n_spots * (n_spots - 1) // 2))
    groups: dict[bytes, list[Spot]] = {}
    for name, slide in slides.items():
        for start in range(0, slide.n_spots, CHUNK):
            counts = slide.counts[start : start + CHUNK]
            reduced = counts // np.maximum(np.gcd.reduce(counts, axis=1), 1)[:, None]
            for row in np.flatnonzero(_log_chance(reduced) < rare):
                digest = hashlib.blake2b(reduced[row].tobytes(), digest_size=16).digest()
                groups.setdefault(digest, []).append(Spot(name, start + int(row)))
    repeated = [tuple(group) for group in groups.values() if len(group) > 1]
    finding = sides.copies(
        "identical-expression",
        "Identical expression on both sides of a fold",
        repeated,
        slides,
        "Panel counts were compared up to a whole factor; rows so sparse that two independent spots could share them "
        "are left out.",
    )
    return finding, repeated


def _log_chance(counts: np.ndarray) -> np.ndarray:
    """(n,) greatest log-probability with which an independent spot could have the same counts.

    That of Poisson counts whose means are the row itself: no other means make the row more probable.
    """
    from scipy.special import gammaln

    values = np.arange(int(counts.max(initial=0)) + 1)
    log_probability = np.where(values > 0, values * np.log(np.maximum(values, 1)) - values - gammaln(values + 1), 0.0)
    return np.asarray(log_probability[counts].sum(axis=1))


def smoothed(slides: Mapping[str, PreparedSlide]) -> Finding:
    """Slides whose neighbouring spots are more alike than counting permits."""
    ratios = {name: neighbour_ratio(slide.counts, slide.pixel_xy) for name, slide in slides.items()}
    found = {name: ratio for name, ratio in ratios.items() if ratio is not None and ratio < SMOOTHED_BELOW}
    tested = [name for name, ratio in ratios.items() if ratio is not None]
    untested = len(slides) - len(tested)
    lowest = min(tested, key=lambda name: (ratios[name], name), default=None)
    aside = f"; the lowest here is {ratios[lowest]:.2f} ({lowest})" if lowest is not None else ""
    aside += f"; {untested} slices have too few spots or counts to tell" if untested else ""
    return Finding(
        "smoothed-labels",
        "Slices whose labels look smoothed over neighbouring spots",
        "leak" if found else "note" if not tested else "ok",
        len(found),
        len(tested),
        "A gene's raw counts differ between neighbouring spots at least as much as counting at random makes them "
        f"(ratio about 1 or more at the lower quartile of genes); below {SMOOTHED_BELOW:g} they look smoothed, imputed "
        f"or denoised, so that a spot's label holds its neighbours' and is easier to predict{aside}.",
        some([f"{name}: {ratio:.2f}" for name, ratio in found.items()]),
    )


def neighbour_ratio(counts: np.ndarray, pixel_xy: np.ndarray) -> float | None:
    """Differences between neighbouring spots against those that counting alone makes: lower quartile over genes.

    ``counts`` (n_spots, n_genes) raw, ``pixel_xy`` (n_spots, 2). Given a gene's sum n over two spots whose totals are N
    and M, and the same share of both totals, its count in the first is binomial(n, q = N / (N + M)), less what the gene
    itself contributes to the totals: variance n q (1 - q) (1 - its share). A gene's ratio is the sum over pairs of
    (count - n q)² over the sum of those variances: 1 in expectation when spots differ by chance only, above it when
    they truly differ. Smoothing takes chance away, and true differences too. The lower quartile, because abundant genes
    differ so much between places that even smoothed they stay above 1.

    ``None`` where too few pairs or genes are left to tell.
    """
    pairs = _neighbours(pixel_xy)
    totals = counts.sum(axis=1, dtype=np.float64)
    pairs = pairs[(totals[pairs] > 0).all(axis=1)]
    genes = counts.mean(axis=0) >= MIN_MEAN
    if len(pairs) < MIN_PAIRS or genes.sum() < MIN_GENES:
        return None
    share = counts.sum(axis=0, dtype=np.float64)[genes] / totals.sum()
    one, other = pairs.T
    q = (totals[one] / (totals[one] + totals[other]))[:, None]
    observed, expected = np.zeros(int(genes.sum())), np.zeros(int(genes.sum()))
    for start in range(0, len(pairs), CHUNK):
        part = slice(start, start + CHUNK)
        first = counts[one[part]][:, genes].astype(np.float64)
        both = first + counts[other[part]][:, genes]
        observed += ((first - both * q[part]) ** 2).sum(axis=0)
        expected += (both * q[part] * (1 - q[part])).sum(axis=0)
    return float(np.quantile(observed / (expected * (1 - share)), 0.25))


def _neighbours(pixel_xy: np.ndarray) -> np.ndarray:
    """(n_pairs, 2): spots that lie beside each other."""
    from scipy.spatial import cKDTree

    if len(pixel_xy) < 2:
        return np.zeros((0, 2), dtype=np.int64)
    tree = cKDTree(pixel_xy)
    nearest = tree.query(pixel_xy, k=2)[0][:, 1]
    return tree.query_pairs(NEIGHBOURS * float(np.median(nearest)), output_type="ndarray")


def nearly_empty(slides: Mapping[str, PreparedSlide]) -> Finding:
    """Spots whose label rests on a handful of counts."""
    counts = {
        name: int((slide.counts.sum(axis=1, dtype=np.int64) < NEARLY_EMPTY).sum()) for name, slide in slides.items()
    }
    n_spots = sum(slide.n_spots for slide in slides.values())
    many = any(count > MANY * slides[name].n_spots for name, count in counts.items())
    return Finding(
        "nearly-empty-spots",
        f"Spots with fewer than {NEARLY_EMPTY} counts over the panel",
        "warning" if many else "note" if any(counts.values()) else "ok",
        sum(counts.values()),
        n_spots,
        "Their label is almost only chance, and scaling by so small a total makes it extreme; they are kept, as in the "
        "published benchmark.",
        some([f"{name}: {count} of {slides[name].n_spots}" for name, count in counts.items() if count]),
    )
