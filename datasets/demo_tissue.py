"""Draws the demo's sections: a hidden tissue layout per patient, and the H&E-like image that a section of it shows.

A patient has a *layout*: smooth random fields that say where stroma, tumour, immune aggregates, fat and normal glands
lie, and the outline around them. A *section* looks at the layout through a slight rotation, shift and smooth
deformation, as neighbouring sections of one block do, and has cells, fibres and thickness of its own. The image follows
from the absorption of light by two stains (Beer-Lambert). Units are pixels of 1 µm unless said otherwise; maps are
indexed [y, x].
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from stbench.errors import unknown

UM_PER_PX = 1.0  # about a 10x objective
SIDE = 1000  # of the square image
PITCH = 72.0  # between spot centres
PATCH = 64  # side of the window that a spot's expression follows
GRID = 13  # array positions a side
COARSE = 4  # layouts live on a grid of this many pixels
MARGIN = 80  # that a layout reaches beyond the image, for the deformation to look into

REGIONS = ("stroma", "tumour", "immune", "adipose", "gland")  # the hidden architecture; a spot's label

# What a pixel shows. Nests have stroma between them and lobules have stroma around their glands, so this is finer.
BACKGROUND, STROMA, TUMOUR, IMMUNE, FAT, EPITHELIUM, LUMEN = range(7)

# Kinds of nuclei, semi-axes long and short in µm, haematoxylin, and how much darker the rim is than the middle
FIBROBLAST, MALIGNANT, LYMPHOCYTE, GLANDULAR, ADIPOCYTE = range(5)
_LONG = np.array([6.2, 4.9, 3.0, 4.6, 4.6])
_SHORT = np.array([1.8, 4.0, 2.8, 2.9, 1.4])
_STAIN = np.array([1.25, 1.05, 1.75, 1.35, 1.2])
_RIM = np.array([0.0, 0.45, 0.1, 0.2, 0.0])

FEATURES = ("tumour", "stroma", "immune", "adipose", "gland", "grade", "cells")


@dataclass(frozen=True)
class Patient:
    """What sets a patient's tissue apart: how common each region is, the outline, and the laboratory's stain."""

    abundance: tuple[float, float, float, float, float]  # added to the affinity of each of REGIONS
    aspect: float  # width of the outline over its height
    grade: float  # mean nuclear grade of the tumour, 0 to 1
    haematoxylin: tuple[float, float, float]  # absorption of red, green and blue by a unit of stain
    eosin: tuple[float, float, float]
    strength: tuple[float, float]  # of the two stains


PATIENTS: dict[str, Patient] = {
    "P1": Patient((0.15, 0.55, -0.15, -0.45, -0.25), 1.15, 0.45, (0.60, 0.73, 0.35), (0.16, 0.80, 0.47), (1.0, 1.0)),
    "P2": Patient((0.2, 0.35, 0.0, -0.5, -0.05), 0.88, 0.75, (0.66, 0.70, 0.29), (0.12, 0.84, 0.36), (1.15, 0.85)),
    "P3": Patient((0.25, 0.05, -0.2, 0.05, 0.3), 1.0, 0.25, (0.53, 0.74, 0.42), (0.22, 0.76, 0.55), (0.88, 1.12)),
}
SLICES = tuple(f"{patient}{letter}" for patient in PATIENTS for letter in "ab")


@dataclass(frozen=True)
class Layout:
    """A patient's hidden tissue, on a grid of COARSE pixels that reaches MARGIN beyond the image."""

    affinity: np.ndarray  # (5, n, n) one field a region; the largest wins
    septum: np.ndarray  # (n, n) the tumour's nests part where it is near zero
    outside: np.ndarray  # (n, n) negative inside the outline, zero on it
    grade: np.ndarray  # (n, n) 0 to 1
    across: np.ndarray  # (n, n) pixels across the fibres
    along: np.ndarray  # (n, n) pixels along the fibres
    glands: np.ndarray  # (k, 6) x, y, radius, and three numbers for the shape
    bubbles: np.ndarray  # (k, 2) centres of the fat cells


@dataclass(frozen=True)
class Nuclei:
    """The nuclei of a section: (k,) arrays."""

    x: np.ndarray
    y: np.ndarray
    kind: np.ndarray
    long: np.ndarray  # semi-axes
    short: np.ndarray
    angle: np.ndarray  # of the long axis
    stain: np.ndarray


@dataclass(frozen=True)
class Section:
    """A section as it was drawn, with what was hidden in it."""

    image: np.ndarray  # (SIDE, SIDE, 3) uint8 RGB
    region: np.ndarray  # (SIDE, SIDE) uint8: index into REGIONS, or 255 outside the tissue
    tissue: np.ndarray  # (SIDE, SIDE) uint8: what the pixel shows
    nuclei: Nuclei
    array_xy: np.ndarray  # (n_spots, 2) int64: array column, array row
    centres: np.ndarray  # (n_spots, 2) float64: x, y
    labels: tuple[str, ...]  # the region that fills most of the window of each spot
    features: np.ndarray  # (n_spots, len(FEATURES)) float64, each about 0 to 1, measured over the window


def generator(*names: object) -> np.random.Generator:
    """A stream of random numbers that depends on ``names`` alone, on every machine."""
    digest = hashlib.blake2b("/".join(map(str, ("stbench-demo", *names))).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def patient_of(slide_id: str) -> str:
    """P1 of P1a."""
    return slide_id[:-1]


def _smooth(rng: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    """(n, n) a random field of mean 0 and variance 1, smooth over ``sigma`` grid steps."""
    field = gaussian_filter(rng.standard_normal((n, n), dtype=np.float32), sigma, mode="wrap")
    return (field - field.mean()) / field.std()


def _lattice(rng: np.random.Generator, spacing: float, low: float, high: float, jitter: float) -> np.ndarray:
    """(k, 2) the points of a hexagonal lattice over a square, each moved by up to ``jitter`` spacings: no two touch."""
    rows = np.arange(low, high, spacing * np.sqrt(3) / 2)
    columns = np.arange(low, high, spacing)
    x = columns[None, :] + np.where(np.arange(len(rows)) % 2, spacing / 2, 0.0)[:, None]
    y = np.broadcast_to(rows[:, None], x.shape)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return points + rng.uniform(-jitter, jitter, points.shape) * spacing


@functools.cache
def layout(patient_id: str) -> Layout:
    """The hidden tissue of a patient."""
    patient = PATIENTS[patient_id]
    rng = generator("layout", patient_id)
    n = (SIDE + 2 * MARGIN) // COARSE
    y, x = (np.mgrid[:n, :n].astype(np.float32) * COARSE - MARGIN) - SIDE / 2

    affinity = np.stack([_smooth(rng, n, 70 / COARSE) + 0.35 * _smooth(rng, n, 15 / COARSE) for _ in REGIONS])
    affinity += np.array(patient.abundance, dtype=np.float32)[:, None, None]

    angle = np.arctan2(y, x)
    wobble = sum(rng.uniform(0.02, 0.06) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
    radius = np.hypot(x / np.sqrt(patient.aspect), y * np.sqrt(patient.aspect))
    outside = radius - 412 * (1 + wobble) + 5 * _smooth(rng, n, 10 / COARSE)

    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) + 45 * _smooth(rng, n, 60 / COARSE)
    across = y * np.cos(turn) - x * np.sin(turn) + 45 * _smooth(rng, n, 60 / COARSE)

    centres = _lattice(rng, 74, -MARGIN, SIDE + MARGIN, 0.14)
    shapes = np.stack([rng.uniform(24, 33, len(centres)), *rng.uniform(0, 2 * np.pi, (3, len(centres)))], axis=1)
    return Layout(
        affinity=affinity,
        septum=_smooth(rng, n, 20 / COARSE),
        outside=outside.astype(np.float32),
        grade=np.clip(patient.grade + 0.25 * _smooth(rng, n, 90 / COARSE), 0, 1),
        across=across.astype(np.float32),
        along=along.astype(np.float32),
        glands=np.concatenate([centres, shapes], axis=1),
        bubbles=_lattice(rng, 42, -MARGIN, SIDE + MARGIN, 0.24),
    )


class _View:
    """How a section looks into its patient's layout: each pixel of the section shows a point of the layout."""

    def __init__(self, rng: np.random.Generator) -> None:
        n = SIDE // COARSE
        y, x = (np.mgrid[:n, :n].astype(np.float32) + 0.5) * COARSE - 0.5
        turn = rng.uniform(-0.05, 0.05)
        shift = rng.uniform(-12, 12, 2)
        dx, dy = x - SIDE / 2, y - SIDE / 2
        self.x = SIDE / 2 + dx * np.cos(turn) - dy * np.sin(turn) + shift[0] + 9 * _smooth(rng, n, 110 / COARSE)
        self.y = SIDE / 2 + dx * np.sin(turn) + dy * np.cos(turn) + shift[1] + 9 * _smooth(rng, n, 110 / COARSE)

    def map(self, field: np.ndarray) -> np.ndarray:
        """(SIDE, SIDE) float32: a field of the layout as the section shows it."""
        index = np.stack([self.y + MARGIN, self.x + MARGIN]) / COARSE
        return _enlarge(map_coordinates(field, index, order=1, mode="nearest"))

    def find(self, points: np.ndarray) -> np.ndarray:
        """(k, 2) where in the section points of the layout lie: the inverse of the view, by fixed-point iteration."""
        found = np.array(points, dtype=np.float64)
        for _ in range(4):
            index = ((found + 0.5) / COARSE - 0.5).T[::-1]
            shown = [map_coordinates(field, index, order=1, mode="nearest") for field in (self.x, self.y)]
            found += points - (np.stack(shown, axis=1) + found - np.clip(found, 0, SIDE - 1))
        return found


def _enlarge(field: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32: a coarse field of the section, interpolated."""
    size = (SIDE, SIDE)
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def _draw_glands(
    glands: np.ndarray, centres: np.ndarray, region: np.ndarray, tissue: np.ndarray, eosin: np.ndarray
) -> np.ndarray:
    """Paint the glands whose middle lies in a lobule into ``tissue`` and ``eosin``.

    Returns x, y and angle of their nuclei, (k, 3).
    """
    reach = 46
    nuclei = [np.empty((0, 3))]
    for gland, centre in zip(glands, centres, strict=True):
        left, top = centre.astype(int) - reach
        box = np.s_[top : top + 2 * reach, left : left + 2 * reach]
        if min(left, top) < 0 or max(left, top) + 2 * reach > SIDE:
            continue
        if region[box][reach, reach] != REGIONS.index("gland") or (region[box] == 255).any():
            continue
        ring = _draw_gland(gland, centre - (left, top), tissue[box], eosin[box])
        nuclei.append(np.add(ring, (left, top, 0)))
    return np.concatenate(nuclei)


def _draw_gland(gland: np.ndarray, centre: np.ndarray, tissue: np.ndarray, eosin: np.ndarray) -> np.ndarray:
    """Paint one gland into a box around it: a lumen, a ring of epithelium, and membranes on either side of the ring."""
    _, _, radius, phase2, phase3, width = gland

    def edge(angle: np.ndarray) -> np.ndarray:
        return radius * (1 + 0.14 * np.cos(2 * angle + phase2) + 0.07 * np.cos(3 * angle + phase3))

    dy, dx = np.mgrid[: tissue.shape[0], : tissue.shape[1]] - centre[::-1, None, None]
    ratio = np.hypot(dx, dy) / edge(np.arctan2(dy, dx))
    lumen = 0.32 + 0.16 * np.cos(width)  # part of the radius
    tissue[ratio < 1] = EPITHELIUM
    tissue[ratio < lumen] = LUMEN
    eosin += 0.25 * np.exp(-(((ratio - 1.03) / 0.05) ** 2)) + 0.3 * np.exp(-(((ratio - lumen) / 0.05) ** 2))
    angle = np.linspace(0, 2 * np.pi, round(2 * np.pi * radius * 0.76 / 7.0), endpoint=False)
    far = edge(angle) * (0.62 + 0.5 * lumen)  # nuclei sit in the outer half of the ring
    return np.stack([centre[0] + far * np.cos(angle), centre[1] + far * np.sin(angle), angle], axis=1)


def _place_nuclei(
    rng: np.random.Generator,
    tissue: np.ndarray,
    membrane: np.ndarray,
    grade: np.ndarray,
    fibre_angle: np.ndarray,
    infiltration: np.ndarray,
    ring: np.ndarray,
) -> Nuclei:
    """Put nuclei where their tissue is: the rings of the glands as given, all others by density."""

    def where(spacing: float, jitter: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        points = _lattice(rng, spacing, 8, SIDE - 8, jitter)
        points = points[((points > 8) & (points < SIDE - 9)).all(axis=1)]
        return points, points[:, 0].astype(int), points[:, 1].astype(int)

    placed: list[tuple[int, np.ndarray, np.ndarray]] = []

    points, x, y = where(23, 0.4)
    keep = (tissue[y, x] == STROMA) & (rng.random(len(x)) < 0.8)
    placed.append((FIBROBLAST, points[keep], fibre_angle[y, x][keep] + rng.normal(0, 0.15, keep.sum())))

    points, x, y = where(13, 0.2)
    crowding = 0.92 - 0.25 * grade[y, x]  # large nuclei lie further apart
    keep = (tissue[y, x] == TUMOUR) & (rng.random(len(x)) < crowding)
    placed.append((MALIGNANT, points[keep], rng.uniform(0, np.pi, keep.sum())))

    points, x, y = where(7.6, 0.22)
    chance = np.select(
        [tissue[y, x] == IMMUNE, tissue[y, x] == STROMA, tissue[y, x] == TUMOUR],
        [np.full(len(x), 0.86), 0.45 * infiltration[y, x], 0.15 * infiltration[y, x]],
        0.0,
    )
    keep = rng.random(len(x)) < chance
    placed.append((LYMPHOCYTE, points[keep], rng.uniform(0, np.pi, keep.sum())))

    ring = ring + rng.normal(0, [0.8, 0.8, 0.12], ring.shape)
    placed.append((GLANDULAR, ring[:, :2], ring[:, 2]))

    points, x, y = where(9, 0.4)
    keep = (tissue[y, x] == FAT) & (membrane[y, x] > 0.6) & (rng.random(len(x)) < 0.25)
    slope_y, slope_x = np.gradient(membrane)
    placed.append((ADIPOCYTE, points[keep], np.arctan2(slope_x[y, x], -slope_y[y, x])[keep]))

    kind = np.concatenate([np.full(len(points), k) for k, points, _ in placed])
    xy = np.concatenate([points for _, points, _ in placed])
    high = np.where(kind == MALIGNANT, grade[xy[:, 1].astype(int), xy[:, 0].astype(int)], 0.0)
    spread = np.where(kind == MALIGNANT, 0.08 + 0.12 * high, 0.07)  # high grade: nuclei large, uneven and dark
    size = np.exp(rng.normal(0, 1, len(kind)) * spread) * (1 + np.where(kind == MALIGNANT, 0.45 * high - 0.2, 0.0))
    stretch = np.exp(rng.normal(0, 0.08, len(kind)))
    return Nuclei(
        x=xy[:, 0],
        y=xy[:, 1],
        kind=kind,
        long=np.minimum(_LONG[kind] * size * stretch, 8.5),
        short=_SHORT[kind] * size / stretch,
        angle=np.concatenate([angle for _, _, angle in placed]),
        stain=_STAIN[kind] * np.exp(rng.normal(0, 0.12, len(kind))) * (1 + 0.25 * high),
    )


def _draw_nuclei(nuclei: Nuclei) -> np.ndarray:
    """(SIDE, SIDE) float32: the haematoxylin of soft-edged ellipses with a darker rim."""
    stain = np.zeros(SIDE * SIDE, dtype=np.float32)
    for kind in range(len(_LONG)):
        chosen = np.flatnonzero(nuclei.kind == kind)
        if not len(chosen):
            continue
        x, y, long, short, angle, depth = (
            getattr(nuclei, name)[chosen].astype(np.float32)[:, None]
            for name in ("x", "y", "long", "short", "angle", "stain")
        )
        reach = min(int(np.ceil(long.max())) + 1, 9)
        offset = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, 1, -1)
        row, column = np.floor(y).astype(np.int64) + offset[0], np.floor(x).astype(np.int64) + offset[1]
        dx, dy = column - x, row - y
        u = (dx * np.cos(angle) + dy * np.sin(angle)) / long
        v = (dy * np.cos(angle) - dx * np.sin(angle)) / short
        ratio = np.sqrt(u * u + v * v)
        cover = np.clip((1 - ratio) * short + 0.5, 0, 1)
        inner = 1 - _RIM[kind] * np.clip(1.15 - 1.3 * ratio * ratio, 0, 1)
        inside = (row >= 0) & (row < SIDE) & (column >= 0) & (column < SIDE) & (cover > 0)
        value = (depth * cover * inner).astype(np.float32)
        np.maximum.at(stain, (row * SIDE + column)[inside], value[inside])
    return stain.reshape(SIDE, SIDE)


def _nucleoli(nuclei: Nuclei, rng: np.random.Generator) -> Nuclei:
    """One dark dot in each malignant nucleus, larger in larger nuclei."""
    chosen = np.flatnonzero(nuclei.kind == MALIGNANT)
    radius = 0.24 * nuclei.short[chosen]
    return Nuclei(
        x=nuclei.x[chosen] + rng.normal(0, 1.0, len(chosen)),
        y=nuclei.y[chosen] + rng.normal(0, 1.0, len(chosen)),
        kind=nuclei.kind[chosen],
        long=radius,
        short=radius,
        angle=nuclei.angle[chosen],
        stain=1.35 * nuclei.stain[chosen],
    )


def _membranes(bubbles: np.ndarray, fat: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32, 1 on the walls between fat cells and 0 in them: the edges of the centres' Voronoi cells."""
    half = fat[::2, ::2]
    y, x = np.nonzero(half)
    wall = np.zeros(half.shape, dtype=np.float32)
    if len(x):
        # The third nearest rounds the corners, where three cells meet
        distance, _ = cKDTree(bubbles).query(np.stack([2.0 * x, 2.0 * y], axis=1), k=3)
        nearer = np.exp(-((distance[:, 1:] - distance[:, :1]) / 3.4))
        wall[y, x] = np.clip(1.5 * nearer.sum(axis=1) - 0.6, 0, 1)
        edge = half & ~binary_erosion(half, iterations=1)
        wall[edge] = 1.0
    return np.asarray(Image.fromarray(wall).resize((SIDE, SIDE), Image.Resampling.BICUBIC))


@functools.cache
def section(slide_id: str) -> Section:
    """Draw the section ``slide_id``, one of SLICES. It is kept: the second call costs nothing."""
    if slide_id not in SLICES:
        raise unknown("slice of demo", slide_id, SLICES)
    patient_id = patient_of(slide_id)
    patient, hidden = PATIENTS[patient_id], layout(patient_id)
    rng = generator("section", slide_id)
    view = _View(rng)

    # where is what
    affinity = np.stack([view.map(field) for field in hidden.affinity])
    region = affinity.argmax(axis=0).astype(np.uint8)
    outside = view.map(hidden.outside) + 2.0 * _enlarge(_smooth(rng, SIDE // COARSE, 2.0))
    region[outside > 0] = 255
    tissue = np.choose(np.minimum(region, 5), [STROMA, TUMOUR, IMMUNE, FAT, STROMA, BACKGROUND]).astype(np.uint8)
    tissue[(tissue == TUMOUR) & (np.abs(view.map(hidden.septum)) < 0.17)] = STROMA

    # eosin: fibres of the stroma, glands, walls of the fat cells
    grain = rng.standard_normal((512, 512), dtype=np.float32)
    fibre = gaussian_filter(grain, (1.0, 11), mode="wrap")
    bundle = gaussian_filter(rng.standard_normal((512, 512), dtype=np.float32), (3.2, 26), mode="wrap")
    fibre = fibre / fibre.std() + 0.9 * bundle / bundle.std()
    across, along = view.map(hidden.across), view.map(hidden.along)
    fibre = map_coordinates(fibre, np.stack([across, along]), order=1, mode="grid-wrap")
    slope_y, slope_x = np.gradient(across)
    fibre_angle = np.arctan2(slope_x, -slope_y)

    eosin = np.zeros((SIDE, SIDE), dtype=np.float32)
    ring = _draw_glands(hidden.glands, view.find(hidden.glands[:, :2]), region, tissue, eosin)
    membrane = _membranes(view.find(hidden.bubbles), tissue == FAT) * (tissue == FAT)
    base_eosin = np.array([0, 0, 0.46, 0.24, 0, 0.5, 0.02], dtype=np.float32)
    base_haematoxylin = np.array([0, 0.07, 0.25, 0.24, 0, 0.2, 0], dtype=np.float32)
    eosin += gaussian_filter(base_eosin[tissue], 0.8)
    eosin += np.where(tissue == STROMA, np.clip(0.52 + 0.17 * fibre, 0.05, 1.1), 0)
    eosin += 0.42 * membrane
    haematoxylin = gaussian_filter(base_haematoxylin[tissue], 1.2)

    # nuclei
    grade = view.map(hidden.grade)
    infiltration = np.exp(1.6 * np.minimum(affinity[REGIONS.index("immune")] - affinity.max(axis=0), 0))
    within = np.where(outside < -4, tissue, BACKGROUND)  # no nucleus sticks out of the section
    nuclei = _place_nuclei(rng, within, membrane, grade, fibre_angle, infiltration, ring)
    fine = gaussian_filter(rng.standard_normal((SIDE, SIDE), dtype=np.float32), 0.9)
    fine /= fine.std()
    stained = np.maximum(_draw_nuclei(nuclei), _draw_nuclei(_nucleoli(nuclei, rng)))
    eosin *= (1 + 0.1 * fine) * (1 - 0.35 * np.minimum(stained, 1))
    haematoxylin = np.maximum(haematoxylin * (1 + 0.15 * fine), stained * (1 + 0.11 * fine))

    image = _develop(patient, haematoxylin, eosin, rng)
    array_xy, centres = _spots(region, rng)
    labels, features = _measure(region, tissue, nuclei, centres)
    image.setflags(write=False)
    return Section(image, region, tissue, nuclei, array_xy, centres, labels, features)


def _develop(patient: Patient, haematoxylin: np.ndarray, eosin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: white light through two stains, a lens of finite resolution, and a camera with noise."""
    thickness = np.exp(rng.normal(0, 0.05)) * (1 + 0.04 * _enlarge(_smooth(rng, SIDE // COARSE, 130 / COARSE)))
    amounts = (haematoxylin * thickness * patient.strength[0], eosin * thickness * patient.strength[1])
    image = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    for channel, lamp in enumerate((246.0, 245.0, 247.0)):
        absorbed = amounts[0] * patient.haematoxylin[channel] + amounts[1] * patient.eosin[channel]
        light = lamp * gaussian_filter(np.exp(-absorbed, dtype=np.float32), 0.55, truncate=3.0)
        light += rng.standard_normal((SIDE, SIDE), dtype=np.float32) * 1.5
        image[..., channel] = np.clip(np.rint(light), 0, 255)
    return image


def window(centre: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the patch around a centre (x, y): [floor - PATCH / 2, floor + PATCH / 2) each way."""
    x, y = (int(value) for value in np.floor(centre))
    half = PATCH // 2
    return slice(y - half, y + half), slice(x - half, x + half)


def _spots(region: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Array positions and centres of the spots on tissue: those of which at least 60 % of the window is covered."""
    start = (SIDE - (GRID - 1) * PITCH) / 2 + rng.uniform(-12, 12, 2)
    row, column = (index.ravel() for index in np.mgrid[:GRID, :GRID])
    array_xy = np.stack([column, row], axis=1).astype(np.int64)
    centres = start + array_xy * PITCH
    covered = np.array([(region[window(centre)] != 255).mean() for centre in centres])
    return array_xy[covered >= 0.6], centres[covered >= 0.6]


def _measure(
    region: np.ndarray, tissue: np.ndarray, nuclei: Nuclei, centres: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """The label and the FEATURES of each spot: areas of tissue, and numbers and sizes of nuclei, in its window."""
    labels, features = [], []
    for centre in centres:
        rows, columns = window(centre)
        counted = np.bincount(region[rows, columns].ravel(), minlength=256)[: len(REGIONS)]
        labels.append(REGIONS[int(counted.argmax())])
        area = np.bincount(tissue[rows, columns].ravel(), minlength=7) / PATCH**2
        here = (
            (nuclei.x >= columns.start) & (nuclei.x < columns.stop) & (nuclei.y >= rows.start) & (nuclei.y < rows.stop)
        )
        kinds = nuclei.kind[here]
        size = np.sqrt(nuclei.long * nuclei.short)[here][kinds == MALIGNANT]
        grade = (size.mean() - 3.4) / 2.6 if len(size) else 0.0
        features.append(
            [
                area[TUMOUR],
                area[STROMA],
                (kinds == LYMPHOCYTE).sum() / 60,
                area[FAT],
                (area[EPITHELIUM] + area[LUMEN]) / 0.7,
                area[TUMOUR] * grade,
                len(kinds) / 60,
            ]
        )
    return tuple(labels), np.array(features)
