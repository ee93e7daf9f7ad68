"""How OpenMP's threads wait is settled before torch is loaded, whoever loads it, and as the user has it if he has."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [
    path.relative_to(ROOT).as_posix()
    for path in sorted((ROOT / "benchmarks").glob("*.py"))
    if "\nimport torch" in (text := path.read_text(encoding="utf-8")) and "__main__" in text
]
# what loads torch: a module of training, one of a method, a worker's, and the benchmarks
ENTRIES = {
    "a module": ("-c", "import stbench.training.augment"),
    "a method": ("-c", "import stbench.methods.stnet"),
    "the command line": ("-m", "stbench.cli", "methods", "check", "stnet"),
    "a benchmark's tests": ("-m", "pytest", "-q", "benchmarks/test_steps_speed.py"),
    "the tests": ("-m", "pytest", "-q", "tests/stbench/test_augment.py"),
    **{script: (script,) for script in SCRIPTS},
}
STAND_IN = """
import os
from pathlib import Path

Path(__file__).with_name("told").write_text(str(os.environ.get("OMP_WAIT_POLICY")), encoding="utf-8")
os._exit(0)
"""


@pytest.fixture
def under(tmp_path: Path) -> Callable[..., str]:
    """``under(words, **variables)``: what a stand-in for torch finds when a fresh Python with these variables loads it,
    which ends that Python."""
    (tmp_path / "torch.py").write_text(STAND_IN, encoding="utf-8")

    def started(words: tuple[str, ...], **variables: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
        environment |= {"PYTHONPATH": str(tmp_path)} | variables
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        told = tmp_path / "told"
        assert told.exists(), f"torch was not loaded: {done.stdout}{done.stderr}"
        return told.read_text(encoding="utf-8")

    return started


def test_there_are_scripts_that_load_torch() -> None:
    assert "benchmarks/gpu.py" in SCRIPTS


@pytest.mark.parametrize("entry", ENTRIES)
def test_threads_sleep_while_they_wait(entry: str, under: Callable[..., str]) -> None:
    assert under(ENTRIES[entry]) == "PASSIVE"


def test_the_users_own_word_counts(under: Callable[..., str]) -> None:
    assert under(ENTRIES["a module"], OMP_WAIT_POLICY="active") == "active"
