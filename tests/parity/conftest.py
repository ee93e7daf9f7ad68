"""The fixture that parity tests share: the folder of golden files."""

from __future__ import annotations

from pathlib import Path

import golden
import pytest


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """``STBENCH_PARITY`` where it is set, else the fixtures of this repository."""
    return golden.folder()
