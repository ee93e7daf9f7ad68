"""HisToGene's own settings: the published layout of patches, the skin loader's fault, strips of large slides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stbench.method import Run, configure
from stbench.methods.histogene import HisToGene


def small(**changes: Any) -> HisToGene:
    fields = {"epochs": 2, "width": 32, "n_layers": 1, "heads": 2, "input_px": 8} | changes
    return HisToGene(configure(HisToGene, "quick", changes=fields))


def test_published_settings_are_those_of_the_code_and_of_each_dataset() -> None:
    config = configure(HisToGene, "published", "her2st")
    assert (config.epochs, config.lr, config.n_layers, config.dropout, config.n_pos) == (100, 1e-5, 8, 0.1, 64)
    assert (config.patch_px, config.input_px, config.pixel_scale, config.augment) == (112, None, "raw255", "none")
    assert configure(HisToGene, "published", "alex10x").n_pos == 128


def test_patches_are_flattened_column_by_column_as_published() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    x, y = 100, 80
    patch = image[y - 56 : y + 56, x - 56 : x + 56]
    pixels = small(pixel_scale="raw255").pixels(torch.from_numpy(patch).permute(2, 0, 1)[None])
    published = image.transpose(1, 0, 2)[x - 56 : x + 56, y - 56 : y + 56].astype(np.float32).reshape(1, -1)
    np.testing.assert_array_equal(pixels, published)
    assert pixels.dtype == torch.float32


def test_skin_bug_shows_only_the_first_patch(make_training_slides, hide_expression) -> None:
    *train, test = make_training_slides(n_slides=3)
    test = hide_expression(test)
    others = replace(test, patches=np.concatenate([test.patches[:1], 255 - test.patches[1:]]))
    first = replace(test, patches=np.concatenate([255 - test.patches[:1], test.patches[1:]]))
    for emulate in (True, False):
        method = small(emulate_skin_bug=emulate)
        method.fit(train, Run())
        assert np.array_equal(method.predict(others), method.predict(test)) == emulate
        assert not np.array_equal(method.predict(first), method.predict(test))


def test_strips_of_a_large_slide_do_not_see_each_other(make_training_slides, hide_expression) -> None:
    *train, test = make_training_slides(n_slides=2, n_spots=20)
    test = hide_expression(test)
    rows = test.array_xy[:, 1]
    last_row_changed = np.where((rows == rows.max())[:, None, None, None], 255 - test.patches, test.patches)
    changed = replace(test, patches=last_row_changed)
    strips, whole = small(max_spots=10), small()
    for method in (strips, whole):
        method.fit(train, Run())
    first_half = np.lexsort((test.array_xy[:, 0], rows))[:10]
    np.testing.assert_array_equal(strips.predict(changed)[first_half], strips.predict(test)[first_half])
    assert not np.array_equal(whole.predict(changed)[first_half], whole.predict(test)[first_half])


def test_strips_that_hold_the_whole_slide_change_nothing(make_training_slides, hide_expression) -> None:
    *train, test = make_training_slides(n_slides=2, n_spots=20)
    found = []
    for max_spots in (None, 20):
        method = small(max_spots=max_spots)
        method.fit(train, Run())
        found.append(method.predict(hide_expression(test)))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("n_layers", [4, 8])
def test_depth_is_a_setting(n_layers: int) -> None:
    method = small(n_layers=n_layers)
    network = method.network({"n_genes": 3, "n_positions": 64})
    assert len(network.blocks) == n_layers
