"""What a training step of methods that learn whole slides holds on a GPU, beside what was counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from stbench import registry
from stbench.method import Run, configure
from stbench.training.step_memory import step_bytes

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

# of activations more than of weights, in a few hundred MiB
METHODS: dict[str, dict[str, Any]] = {
    "histogene": {"input_px": 28, "width": 256},
    "hist2st": {"input_px": 56, "copies": 1, "n_layers": 4},
    "thitogene": {"n_layers": 1, "graph_widths": (128, 64)},
}


@pytest.mark.parametrize("name", METHODS)
def test_activations_that_are_computed_again_save_what_is_counted(name: str, make_training_slides: Callable) -> None:
    slides = make_training_slides(n_slides=2, n_spots=300)
    method_class = registry.method(name)
    peaks, counted, losses = [], [], []
    for setting in ("off", "on"):
        changes = METHODS[name] | {"epochs": 1, "activation_checkpointing": setting}
        method: Any = method_class(configure(method_class, changes=changes))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        method.fit(slides, Run(device="cuda"))
        peaks.append(torch.cuda.max_memory_allocated() - before)
        counted.append(step_bytes(method_class, method.config, 300, len(slides[0].genes)))
        losses.append(method.history[-1]["loss"])
        del method
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert peaks[1] < peaks[0]
    for peak, count in zip(peaks, counted, strict=True):
        assert 0.7 < count / peak < 1.15, "USABLE of stbench/system/sharing.py is the wrong share"
