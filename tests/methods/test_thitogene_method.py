"""THItoGene's own settings: the softmax of its graph attention, depth per dataset, slides of one spot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stbench.errors import UserError
from stbench.method import Run, configure
from stbench.methods.thitogene import THItoGene


def small(**changes: Any) -> THItoGene:
    fields: dict[str, Any] = {"epochs": 2, "capsules": 2, "capsule_width": 4, "trunk": (2, 2, 2)}
    fields |= {"graph_heads": 2, "graph_widths": (4, 8)}
    return THItoGene(configure(THItoGene, "quick", changes=fields | changes))


def test_published_settings_are_those_of_the_code_and_of_each_dataset() -> None:
    config = configure(THItoGene, "published", "her2st")
    assert (config.epochs, config.lr, config.n_layers, config.gat_softmax) == (300, 1e-5, 4, "official")
    assert configure(THItoGene, "published", "cscc").n_layers == 8
    assert configure(THItoGene, "published", "alex10x").n_pos == 128


def test_only_patches_of_108_to_115_pixels_are_accepted() -> None:
    for side in (107, 116):
        with pytest.raises(UserError, match="input_px"):
            small(input_px=side)


def test_the_two_softmaxes_are_different_methods(make_training_slides, hide_expression) -> None:
    *train, test = make_training_slides(n_slides=2)
    found = []
    for gat_softmax in ("official", "neighbours"):
        method = small(gat_softmax=gat_softmax)
        method.fit(train, Run())
        found.append(method.predict(hide_expression(test)))
    assert not np.allclose(*found)


def test_neighbours_are_never_pruned(make_training_slides) -> None:
    (slide,) = make_training_slides(n_slides=1, n_spots=9)
    far = replace(slide, array_xy=slide.array_xy * 10)
    method = small()
    method.shape = {"n_genes": 6, "n_positions": 64}
    constants = method.slide_constants(far)
    np.testing.assert_array_equal(np.bincount(constants["edges"][1]), 4)
    assert not set(constants["unreferenced"].tolist()) & set(constants["edges"][0].tolist())


def test_a_spot_far_from_all_is_nobodys_neighbour(make_training_slides) -> None:
    (slide,) = make_training_slides(n_slides=1, n_spots=10)
    xy = slide.array_xy.copy()
    xy[7] = (60, 60)
    lonely = replace(slide, array_xy=xy)
    for self_loops, expected in ((False, [7]), (True, [])):
        method = small(self_loops=self_loops)
        method.shape = {"n_genes": 6, "n_positions": 64}
        assert method.slide_constants(lonely)["unreferenced"].tolist() == expected


def test_a_training_slide_of_one_spot_is_learnt_from(make_training_slides) -> None:
    first, second = make_training_slides(n_slides=2)
    names = ("patches", "array_xy", "pixel_xy", "target", "counts", "total_counts")
    single = replace(second, **{name: getattr(second, name)[:1] for name in names})
    run = Run()
    method = small()
    method.fit([first, single], run)
    assert any("slide S1 has one spot" in note for note in run.notes)
    assert method.trained.dynamic.norm.num_batches_tracked == 2  # an epoch each: the single spot moves no statistics
    assert np.isfinite(method.predict(first)).all()
