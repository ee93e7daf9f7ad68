"""The command line starts fast: heavy libraries are imported where they are used."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("torch", "torchvision", "timm", "scanpy", "anndata", "mlflow", "matplotlib", "sklearn", "pandas", "scipy"),
    *("numpy", "pydantic"),  # when they were imported, they took half the time of a help page
)
BY_TYPER = ("pydantic",)  # by which newer versions of typer read the values of options


@pytest.mark.parametrize(
    "program",
    [
        "import stbench",
        "import stbench.cli",
        "import contextlib, stbench.cli\nwith contextlib.suppress(SystemExit): stbench.cli.main(['--help'])",
        "import contextlib, stbench.cli\nwith contextlib.suppress(SystemExit): stbench.cli.main(['run', '--help'])",
        "from stbench import registry as r\nr.method_names(), r.dataset_names(), r.known_methods('all,stnet')",
    ],
    ids=["import stbench", "import stbench.cli", "stbench --help", "stbench run --help", "names of methods"],
)
def test_heavy_libraries_are_not_imported(program: str) -> None:
    heavy = [name for name in HEAVY if not ("'run'" in program and name in BY_TYPER)]
    check = f"{program}\nimport sys\nprint('loaded:', [name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip().endswith("loaded: []")


def test_the_training_side_needs_no_table_or_figure_library() -> None:
    program = """
import sys
import stbench.training, stbench.methods.stnet
print([name for name in ("pandas", "scanpy", "anndata", "matplotlib", "mlflow", "sklearn") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"


def test_engines_need_nothing_that_computes_trials() -> None:
    program = """
import sys
from stbench.trials.engines import ray_tasks, script, serial, slots
from stbench.trials.engines.slurm import engine
print([name for name in ("torch", "scanpy", "anndata", "sklearn", "mlflow", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "[]"
