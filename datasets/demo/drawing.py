"""Drawing the demo's tissue: glands, nuclei and membranes as an H&E-like image.

The image follows from the absorption of light by two stains (Beer-Lambert).
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy.ndimage import binary_erosion, gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from .tissue import COARSE, EPITHELIUM, LONG, LUMEN, MALIGNANT, MARGIN, REGIONS, SIDE, Nuclei, Patient, smooth

_RIM = np.array([0.0, 0.45, 0.1, 0.2, 0.0])


class View:
    """How a section looks into its patient's layout: each pixel of the section shows a point of the layout."""

    def __init__(self, rng: np.random.Generator) -> None:
        n = SIDE // COARSE
        y, x = (np.mgrid[:n, :n].astype(np.float32) + 0.5) * COARSE - 0.5
        turn = rng.uniform(-0.05, 0.05)
        shift = rng.uniform(-12, 12, 2)
        dx, dy = x - SIDE / 2, y - SIDE / 2
        self.x = SIDE / 2 + dx * np.cos(turn) - dy * np.sin(turn) + shift[0] + 9 * smooth(rng, n, 110 / COARSE)
        self.y = SIDE / 2 + dx * np.sin(turn) + dy * np.cos(turn) + shift[1] + 9 * smooth(rng, n, 110 / COARSE)

    def map(self, field: np.ndarray) -> np.ndarray:
        """(SIDE, SIDE) float32: a field of the layout as the section shows it."""
        index = np.stack([self.y + MARGIN, self.x + MARGIN]) / COARSE
        return enlarge(map_coordinates(field, index, order=1, mode="nearest"))

    def find(self, points: np.ndarray) -> np.ndarray:
        """(k, 2) where in the section points of the layout lie: the inverse of the view, by fixed-point iteration."""
        found = np.array(points, dtype=np.float64)
        for _ in range(4):
            index = ((found + 0.5) / COARSE - 0.5).T[::-1]
            shown = [map_coordinates(field, index, order=1, mode="nearest") for field in (self.x, self.y)]
            found += points - (np.stack(shown, axis=1) + found - np.clip(found, 0, SIDE - 1))
        return found


def enlarge(field: np.ndarray) -> np.ndarray:
    """(SIDE, SIDE) float32: a coarse field of the section, interpolated."""
    size = (SIDE, SIDE)
    return np.asarray(Image.fromarray(field.astype(np.float32)).resize(size, Image.Resampling.BICUBIC))


def draw_glands(
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


def draw_nuclei(nuclei: Nuclei) -> np.ndarray:
    """(SIDE, SIDE) float32: the haematoxylin of soft-edged ellipses with a darker rim."""
    stain = np.zeros(SIDE * SIDE, dtype=np.float32)
    for kind in range(len(LONG)):
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


def nucleoli(nuclei: Nuclei, rng: np.random.Generator) -> Nuclei:
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


def membranes(bubbles: np.ndarray, fat: np.ndarray) -> np.ndarray:
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


def develop(patient: Patient, haematoxylin: np.ndarray, eosin: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8: white light through two stains, a lens of finite resolution, and a camera with noise."""
    thickness = np.exp(rng.normal(0, 0.05)) * (1 + 0.04 * enlarge(smooth(rng, SIDE // COARSE, 130 / COARSE)))
    amounts = (haematoxylin * thickness * patient.strength[0], eosin * thickness * patient.strength[1])
    image = np.empty((SIDE, SIDE, 3), dtype=np.uint8)
    for channel, lamp in enumerate((246.0, 245.0, 247.0)):
        absorbed = amounts[0] * patient.haematoxylin[channel] + amounts[1] * patient.eosin[channel]
        light = lamp * gaussian_filter(np.exp(-absorbed, dtype=np.float32), 0.55, truncate=3.0)
        light += rng.standard_normal((SIDE, SIDE), dtype=np.float32) * 1.5
        image[..., channel] = np.clip(np.rint(light), 0, 255)
    return image
