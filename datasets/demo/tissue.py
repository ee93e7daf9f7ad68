"""The hidden tissue of a demo patient, and the nuclei that a section of it holds.

A patient has a *layout*: smooth random fields that say where stroma, tumour, immune aggregates, fat and normal glands
lie, and the outline around them. Units are pixels of 1 µm unless said otherwise; maps are indexed [y, x].
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

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
STAIN = np.array([1.25, 1.05, 1.75, 1.35, 1.2])
LONG = np.array([6.2, 4.9, 3.0, 4.6, 4.6])
_SHORT = np.array([1.8, 4.0, 2.8, 2.9, 1.4])


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

    affinity: np.ndarray  # (5, n, n) one field per region; the largest wins
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


def generator(*names: object) -> np.random.Generator:
    """A stream of random numbers that depends on ``names`` alone, on every machine."""
    digest = hashlib.blake2b("/".join(map(str, ("stbench-demo", *names))).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


def patient_of(slide_id: str) -> str:
    """P1 of P1a."""
    return slide_id[:-1]


def smooth(rng: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    """(n, n) a random field of mean 0 and variance 1, smooth over ``sigma`` grid steps."""
    field = gaussian_filter(rng.standard_normal((n, n), dtype=np.float32), sigma, mode="wrap")
    return (field - field.mean()) / field.std()


def lattice(rng: np.random.Generator, spacing: float, low: float, high: float, jitter: float) -> np.ndarray:
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

    affinity = np.stack([smooth(rng, n, 70 / COARSE) + 0.35 * smooth(rng, n, 15 / COARSE) for _ in REGIONS])
    affinity += np.array(patient.abundance, dtype=np.float32)[:, None, None]

    angle = np.arctan2(y, x)
    wobble = sum(rng.uniform(0.02, 0.06) * np.cos(k * angle + rng.uniform(0, 2 * np.pi)) for k in (2, 3, 4, 5))
    radius = np.hypot(x / np.sqrt(patient.aspect), y * np.sqrt(patient.aspect))
    outside = radius - 412 * (1 + wobble) + 5 * smooth(rng, n, 10 / COARSE)

    turn = rng.uniform(0, np.pi)
    along = x * np.cos(turn) + y * np.sin(turn) + 45 * smooth(rng, n, 60 / COARSE)
    across = y * np.cos(turn) - x * np.sin(turn) + 45 * smooth(rng, n, 60 / COARSE)

    centres = lattice(rng, 74, -MARGIN, SIDE + MARGIN, 0.14)
    shapes = np.stack([rng.uniform(24, 33, len(centres)), *rng.uniform(0, 2 * np.pi, (3, len(centres)))], axis=1)
    return Layout(
        affinity=affinity,
        septum=smooth(rng, n, 20 / COARSE),
        outside=outside.astype(np.float32),
        grade=np.clip(patient.grade + 0.25 * smooth(rng, n, 90 / COARSE), 0, 1),
        across=across.astype(np.float32),
        along=along.astype(np.float32),
        glands=np.concatenate([centres, shapes], axis=1),
        bubbles=lattice(rng, 42, -MARGIN, SIDE + MARGIN, 0.24),
    )


def place_nuclei(
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
        points = lattice(rng, spacing, 8, SIDE - 8, jitter)
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
        long=np.minimum(LONG[kind] * size * stretch, 8.5),
        short=_SHORT[kind] * size / stretch,
        angle=np.concatenate([angle for _, _, angle in placed]),
        stain=STAIN[kind] * np.exp(rng.normal(0, 0.12, len(kind))) * (1 + 0.25 * high),
    )
