"""Identical and near-identical patches: by the digest of their bytes, then by what they show at two resolutions.

The frozen feature needs no weights. A patch is averaged to 32 x 32 grey cells; its *outline* is the 8 x 8 averages of
those less their mean, its *detail* is what the outline leaves of the cells. Both are scaled to length 1, so that
brightness and contrast drop out. Two patches show the same when, under one of the 8 flips and
quarter turns, outlines correlate at least ``OUTLINE_R`` and details at least ``DETAIL_R``. Smooth patches (fat, glass)
have similar outlines without being copies, and only their detail tells.

How the two numbers were chosen: of 0.7 million pairs of patches from different sections (six of HER2+ at 224 px, the
demo's six at 64 px), each under all 8 turns, no outline correlates above 0.92 and no detail above 0.40. The same
patches of HER2+ saved again as JPEG of quality 50, brightened, changed in gamma, blurred by 2 px or moved by 1 px in
both directions have outlines above 0.98 and details above 0.94. A copy that is moved by several pixels is not found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..data.prepared import PreparedSlide
from .record import Finding, some
from .sides import Group, Sides, Spot

OUTLINE_R = 0.97
DETAIL_R = 0.6
CELLS, COARSE = 32, 8  # cells a side of the reduced patch and of its outline
FLAT = 2.0  # grey levels (standard deviation): a patch whose cells vary less shows glass or padding
LOOKED_AT = 15_000  # spots of a slide, evenly spread, where it has more: pairs of spots are compared
CHUNK = 64  # patches read at a time
BLOCK = 1024  # rows of the distance matrix at a time


@dataclass(frozen=True)
class Fingerprints:
    """What is kept of all slides' patches, one row per spot, slide after slide."""

    spots: tuple[Spot, ...]
    digest: tuple[bytes, ...]
    flat: np.ndarray  # (n,) bool: nothing in it to tell it from another
    outline: np.ndarray  # (n, 8, 8) float32, length 1
    detail: np.ndarray  # (n, 32, 32) float16, length 1


def examine(slides: Mapping[str, PreparedSlide], sides: Sides) -> tuple[list[Finding], list[Group]]:
    """The findings on patches, and the groups of spots whose patches are copies. Every patch is read at most once."""
    prints = fingerprints(slides)
    sampled = [name for name, slide in slides.items() if slide.n_spots > LOOKED_AT]
    part = ""
    if sampled:
        part = f" Of {', '.join(sampled)} at most {LOOKED_AT:,} spots, evenly spread, were looked at."
    identical = _identical(prints)
    findings = [
        sides.copies(
            "identical-patches",
            "Identical patches on both sides of a fold",
            identical,
            slides,
            "The bytes of every patch were compared by digest; patches that show nothing are counted apart." + part,
        )
    ]
    side = next(iter(slides.values())).patches.shape[1]
    similar: list[Group] = []
    if side < CELLS:
        n_tested = sum(slides[name].n_spots for name in sides.tested)
        reason = f"Not looked for: windows of {side} px hold too little to tell a copy from a similar place."
        findings.append(Finding("similar-patches", SIMILAR, "note", 0, n_tested, reason))
    else:
        similar = _similar(prints)
        reason = (
            f"Patches were reduced to {CELLS} x {CELLS} cells and compared under all flips and quarter turns; what "
            "correlates more than two different places ever did is one picture, recompressed, brightened or turned."
            f"{part}"
        )
        findings.append(sides.copies("similar-patches", SIMILAR, similar, slides, reason))
    findings.append(_blank(prints, slides))
    return findings, [*identical, *similar]


SIMILAR = "Near-identical patches on both sides of a fold"


def fingerprints(slides: Mapping[str, PreparedSlide]) -> Fingerprints:
    """One pass over the memory-mapped patches; about 5 KB are kept of each, and of a slide at most ``LOOKED_AT``."""
    spots, digests, outlines, details, flat = [], [], [], [], []
    for name, slide in slides.items():
        rows = range(0, slide.n_spots, -(-slide.n_spots // LOOKED_AT) or 1)
        for start in range(0, len(rows), CHUNK):
            some_rows = rows[start : start + CHUNK]
            patches = np.asarray(slide.patches[some_rows.start : some_rows.stop : some_rows.step])
            spots += [Spot(name, row) for row in some_rows]
            digests += [hashlib.blake2b(patch.tobytes(), digest_size=16).digest() for patch in patches]
            outline, detail, contrast = _reduced(patches)
            outlines.append(outline)
            details.append(detail)
            flat.append(contrast < FLAT)
    return Fingerprints(
        tuple(spots), tuple(digests), np.concatenate(flat), np.concatenate(outlines), np.concatenate(details)
    )


def _reduced(patches: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outline, detail and contrast of (n, side, side, 3) patches; a side below 32 keeps its pixels as cells."""
    cells = _averaged(patches, min(CELLS, patches.shape[1]))
    if cells.shape[1] < CELLS:
        n = len(patches)
        return np.zeros((n, COARSE, COARSE), np.float32), np.zeros((n, CELLS, CELLS), np.float16), _contrast(cells)
    ratio = CELLS // COARSE
    grey = cells.mean(axis=3)
    coarse = grey.reshape(-1, COARSE, ratio, COARSE, ratio).mean(axis=(2, 4))
    detail = grey - coarse.repeat(ratio, axis=1).repeat(ratio, axis=2)
    outline = coarse - coarse.mean(axis=(1, 2), keepdims=True)
    return _unit(outline), _unit(detail).astype(np.float16), _contrast(cells)


def _averaged(patches: np.ndarray, cells: int) -> np.ndarray:
    """(n, cells, cells, 3) float32: means over square cells; a remainder is cut off evenly around."""
    side = patches.shape[1]
    width = side // cells
    margin = (side - width * cells) // 2
    inner = patches[:, margin : margin + width * cells, margin : margin + width * cells]
    rows = inner.reshape(len(inner), cells, width, cells * width * 3).sum(axis=2, dtype=np.uint32)
    both = rows.reshape(len(inner), cells, cells, width, 3).sum(axis=3, dtype=np.uint32)
    return both.astype(np.float32) / (width * width)


def _contrast(cells: np.ndarray) -> np.ndarray:
    return np.sqrt(((cells - cells.mean(axis=(1, 2), keepdims=True)) ** 2).mean(axis=(1, 2, 3)))


def _unit(values: np.ndarray) -> np.ndarray:
    """Each row scaled to length 1; a row of zeros stays zero."""
    length = np.sqrt((values.reshape(len(values), -1) ** 2).sum(axis=1))
    return values / np.maximum(length, 1e-6).reshape(-1, *[1] * (values.ndim - 1))


def _identical(prints: Fingerprints) -> list[Group]:
    """Groups of patches, not flat ones, with the same bytes."""
    groups: dict[bytes, list[Spot]] = {}
    for spot, digest, flat in zip(prints.spots, prints.digest, prints.flat, strict=True):
        if not flat:
            groups.setdefault(digest, []).append(spot)
    return [tuple(group) for group in groups.values() if len(group) > 1]


def _similar(prints: Fingerprints) -> list[Group]:
    """Pairs of spots of different slices whose patches show the same without having the same bytes."""
    kept = np.flatnonzero(~prints.flat)
    outline = prints.outline[kept].reshape(len(kept), COARSE**2)
    order = {name: place for place, name in enumerate(dict.fromkeys(spot.slice for spot in prints.spots))}
    slices = np.array([order[prints.spots[row].slice] for row in kept])
    found: dict[tuple[int, int], None] = {}
    for start in range(0, len(kept), BLOCK):
        block = slice(start, start + BLOCK)
        later = int(np.searchsorted(slices, slices[start], side="right"))  # slides follow each other: skip its own
        for turn, fine_turn in zip(_turns(COARSE), _turns(CELLS), strict=True):
            near = outline[block][:, turn] @ outline[later:].T >= OUTLINE_R
            first, second = np.nonzero(near)
            apart = slices[first + start] != slices[second + later]
            rows, others = kept[first[apart] + start], kept[second[apart] + later]
            for i, j in zip(rows, others, strict=True):
                detail = prints.detail[i].ravel()[fine_turn].astype(np.float32)
                if detail @ prints.detail[j].ravel().astype(np.float32) >= DETAIL_R:
                    found[int(i), int(j)] = None
    return [(prints.spots[i], prints.spots[j]) for i, j in found if prints.digest[i] != prints.digest[j]]


def _turns(side: int) -> list[np.ndarray]:
    """The 8 flips and quarter turns of a square grid: where each of its cells, row by row, comes from."""
    grid = np.arange(side * side).reshape(side, side)
    quarter = [np.rot90(grid, count) for count in range(4)]
    return [turned.ravel() for turned in (*quarter, *(turned[:, ::-1] for turned in quarter))]


def _blank(prints: Fingerprints, slides: Mapping[str, PreparedSlide]) -> Finding:
    counts: dict[str, int] = dict.fromkeys(slides, 0)
    for spot, flat in zip(prints.spots, prints.flat, strict=True):
        counts[spot.slice] += int(flat)
    n_blank = sum(counts.values())
    return Finding(
        "blank-patches",
        "Patches that show nothing",
        "note" if n_blank else "ok",
        n_blank,
        len(prints.spots),
        f"Glass or padding (cells vary by less than {FLAT:g} grey levels): such patches are alike everywhere, and "
        "nothing can be predicted from them.",
        some([f"{name}: {count}" for name, count in counts.items() if count]),
    )
