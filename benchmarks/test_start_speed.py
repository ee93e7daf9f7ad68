"""The start of the command line against the start of the libraries that no command can do without."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

AT_MOST = 2.5  # times as long


def python(*words: str) -> None:
    subprocess.run([sys.executable, *words], check=True, capture_output=True, timeout=60)


def test_a_help_page_over_importing_numpy_typer_and_rich(times_as_fast: Callable[..., float]) -> None:
    def help_page() -> None:
        python("-m", "stbench.cli", "--help")

    def libraries() -> None:
        python("-c", "import numpy, typer, rich")

    assert times_as_fast(help_page, libraries, rounds=9) > 1 / AT_MOST
