"""The spot graph: who receives from whom, on grids with ties, at borders, and on slides of any size."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stbench.datasets.her2st import HER2ST
from stbench.methods.layers import spot_graph
from stbench.methods.layers.spot_graph import isolated_spots, nearest_spots, with_self


def neighbours(edges: np.ndarray, n_spots: int) -> list[list[int]]:
    return [edges[0, edges[1] == spot].tolist() for spot in range(n_spots)]


def by_definition(xy: np.ndarray, k: int, prune: str, max_distance: float) -> list[list[int]]:
    """Sort all other spots by (distance, index), keep k, drop the far ones."""
    found = []
    for i, centre in enumerate(xy):
        others = sorted((((centre - xy[j]) ** 2).sum(), j) for j in range(len(xy)) if j != i)[:k]
        found.append([j for d, j in others if prune == "none" or d <= max_distance**2])
    return found


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40),
    st.integers(1, 6),
    st.sampled_from(["grid", "none"]),
)
def test_neighbours_are_the_nearest_by_distance_then_index(xy: list[tuple[int, int]], k: int, prune: str) -> None:
    array_xy = np.array(xy)  # duplicated positions too: a spot is itself by index, not by place
    edges = nearest_spots(array_xy, k, prune, 2.0)
    assert neighbours(edges, len(xy)) == by_definition(array_xy, k, prune, 2.0)


def test_blocks_of_spots_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    xy = np.random.default_rng(0).integers(0, 30, (200, 2))
    whole = nearest_spots(xy)
    monkeypatch.setattr(spot_graph, "_ROWS", 7)
    np.testing.assert_array_equal(nearest_spots(xy), whole)


def test_grid_pruning_isolates_a_distant_spot() -> None:
    xy = np.array([[0, 0], [0, 1], [1, 0], [9, 9]])
    assert isolated_spots(nearest_spots(xy, 4, "grid"), 4).tolist() == [3]
    assert isolated_spots(nearest_spots(xy, 4, "none"), 4).tolist() == []
    mended = with_self(nearest_spots(xy, 4, "grid"), np.array([3]))
    assert neighbours(mended, 4)[3] == [3]


@pytest.mark.parametrize("n_spots", [1, 2, 3])
def test_a_slide_of_few_spots_has_all_others_as_neighbours(n_spots: int) -> None:
    edges = nearest_spots(np.stack([np.arange(n_spots), np.zeros(n_spots)], axis=1).astype(int))
    assert sorted(zip(*edges.tolist(), strict=True)) == sorted(itertools.permutations(range(n_spots), 2))


def test_visium_neighbours_are_the_four_diagonal_ones() -> None:
    xy = np.array([(2 * column + row % 2, row) for row in range(70) for column in range(64)])  # 4,480 spots
    edges = nearest_spots(xy)
    inside = ((xy > 2) & (xy < (125, 67))).all(axis=1)
    steps = np.abs(xy[edges[0]] - xy[edges[1]])[inside[edges[1]]]
    assert (steps == 1).all()
    assert edges.shape == (2, 4 * len(xy))


# Spots and Grid edges of the 32 sections; both do not depend on how ties are broken (specified values).
SECTIONS = {
    "A2": (325, 1300), "A3": (359, 1432), "A4": (343, 1370), "A5": (332, 1322), "A6": (360, 1440), "B1": (295, 1173),
    "B2": (270, 1071), "B3": (298, 1188), "B4": (283, 1129), "B5": (289, 1151), "B6": (277, 1105), "C1": (176, 704),
    "C2": (187, 747), "C3": (180, 718), "C4": (184, 735), "C5": (181, 723), "C6": (178, 711), "D1": (306, 1223),
    "D2": (303, 1211), "D3": (301, 1204), "D4": (302, 1208), "D5": (306, 1224), "D6": (315, 1260), "E1": (587, 2348),
    "E2": (572, 2288), "E3": (570, 2280), "F1": (691, 2761), "F2": (695, 2778), "F3": (712, 2848), "G1": (441, 1762),
    "G2": (467, 1866), "G3": (463, 1844),
}  # fmt: skip


@pytest.mark.data
def test_real_sections_have_the_published_number_of_edges(data_root: Path) -> None:
    present, _ = HER2ST(data_root).find()
    assert present
    for source in present:
        xy = source.read().array_xy
        n_spots, n_edges = SECTIONS[source.id]
        assert len(xy) == n_spots
        assert nearest_spots(xy, 4, "grid").shape == (2, n_edges), source.id
        assert nearest_spots(xy, 4, "none").shape == (2, 4 * n_spots)
        assert len(isolated_spots(nearest_spots(xy, 4, "grid"), n_spots)) == 0
