"""Array indices for spots that lie on no array: cells, and spots of whose array only the positions are known."""

from __future__ import annotations

import numpy as np

from .pitch import nearest_neighbour_pitch

STEPS_PER_PITCH = 4  # so that neighbours seldom share a place, and indices stay small enough to be embedded


def indices_of_positions(centres: np.ndarray) -> np.ndarray:
    """Places (n, 2) int64, column and row, on a square grid of a quarter of the median distance between neighbours.

    ``centres`` (n, 2) are x, y, all of them finite. No two spots share a place: of those that would, all but the first
    move to the nearest free one. The array is never turned or mirrored against the image.
    """
    if len(centres) == 0:
        return np.empty((0, 2), dtype=np.int64)
    step = (nearest_neighbour_pitch(np.unique(centres, axis=0)) or STEPS_PER_PITCH) / STEPS_PER_PITCH
    places = np.floor((centres - centres.min(axis=0)) / step).astype(np.int64)
    _, first = np.unique(places, axis=0, return_index=True)
    crowded = np.setdiff1d(np.arange(len(places)), first)
    taken = set(map(tuple, places[first].tolist()))
    for spot in crowded:
        column, row = places[spot].tolist()
        places[spot] = _free_place(column, row, taken)
        taken.add(tuple(places[spot].tolist()))
    return places


def _free_place(column: int, row: int, taken: set[tuple[int, ...]]) -> tuple[int, int]:
    """The nearest place to ``column``, ``row`` that is not taken, square ring by square ring; none is negative."""
    reach = 1
    while True:
        ring = [
            (column + across, row + down)
            for across in range(-reach, reach + 1)
            for down in range(-reach, reach + 1)
            if max(abs(across), abs(down)) == reach and column + across >= 0 and row + down >= 0
        ]
        free = [place for place in ring if place not in taken]
        if free:
            return min(free, key=lambda place: (place[0] - column) ** 2 + (place[1] - row) ** 2)
        reach += 1
