"""Tests of what a GPU does. Where a CPU can run the same body it does so in every run of the suite, so that what is
wrong with a test itself is found without a card. No test takes more than a few hundred MiB of one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stbench.system import precision
from stbench.system.torch_state import torch_precisions
from stbench.training.patch_store import release_resident_patches

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def everything_as_it_was() -> Iterator[None]:
    """A test that leaves flags, a watch or memory behind fails, rather than the next one."""
    release_resident_patches()
    before = torch_precisions()
    yield
    assert torch_precisions() == before
    if torch.cuda.is_available():
        assert torch.cuda.get_sync_debug_mode() == 0
    release_resident_patches()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in TF32, not even convolutions: what a CPU computes is to be found again."""
    monkeypatch.setattr(precision, "tf32_allowed", lambda asked: ())
