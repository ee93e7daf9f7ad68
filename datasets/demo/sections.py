"""The demo's sections: a look at a patient's layout, drawn as an H&E-like image, and measured spot by spot.

A *section* looks at the layout through a slight rotation, shift and smooth deformation, as neighbouring sections of one
block do, and has cells, fibres and thickness of its own.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from stbench.errors import unknown

from .drawing import View, develop, draw_glands, draw_nuclei, enlarge, membranes, nucleoli
from .tissue import (
    BACKGROUND,
    COARSE,
    EPITHELIUM,
    FAT,
    GRID,
    IMMUNE,
    LUMEN,
    LYMPHOCYTE,
    MALIGNANT,
    PATCH,
    PATIENTS,
    PITCH,
    REGIONS,
    SIDE,
    SLICES,
    STROMA,
    TUMOUR,
    Nuclei,
    generator,
    layout,
    patient_of,
    place_nuclei,
    smooth,
)

FEATURES = ("tumour", "stroma", "immune", "adipose", "gland", "grade", "cells")


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


@functools.cache
def section(slide_id: str) -> Section:
    """Draw the section ``slide_id``, one of SLICES. It is kept: the second call costs nothing."""
    if slide_id not in SLICES:
        raise unknown("slice of demo", slide_id, SLICES)
    patient_id = patient_of(slide_id)
    patient, hidden = PATIENTS[patient_id], layout(patient_id)
    rng = generator("section", slide_id)
    view = View(rng)

    # where is what
    affinity = np.stack([view.map(field) for field in hidden.affinity])
    region = affinity.argmax(axis=0).astype(np.uint8)
    outside = view.map(hidden.outside) + 2.0 * enlarge(smooth(rng, SIDE // COARSE, 2.0))
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
    ring = draw_glands(hidden.glands, view.find(hidden.glands[:, :2]), region, tissue, eosin)
    membrane = membranes(view.find(hidden.bubbles), tissue == FAT) * (tissue == FAT)
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
    nuclei = place_nuclei(rng, within, membrane, grade, fibre_angle, infiltration, ring)
    fine = gaussian_filter(rng.standard_normal((SIDE, SIDE), dtype=np.float32), 0.9)
    fine /= fine.std()
    stained = np.maximum(draw_nuclei(nuclei), draw_nuclei(nucleoli(nuclei, rng)))
    eosin *= (1 + 0.1 * fine) * (1 - 0.35 * np.minimum(stained, 1))
    haematoxylin = np.maximum(haematoxylin * (1 + 0.15 * fine), stained * (1 + 0.11 * fine))

    image = develop(patient, haematoxylin, eosin, rng)
    array_xy, centres = _spots(region, rng)
    labels, features = _measure(region, tissue, nuclei, centres)
    image.setflags(write=False)
    return Section(image, region, tissue, nuclei, array_xy, centres, labels, features)


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
