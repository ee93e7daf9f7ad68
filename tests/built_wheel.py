"""The wheel of this repository, built as an installation builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "stbench": "stbench",
    "methods": "stbench.methods",
    "datasets": "stbench.datasets",
    "reports": "stbench.reports",
}


def build_wheel(folder: Path) -> Path:
    """Build the wheel into ``folder``, from a copy of the files that belong to it: nothing is written beside them."""
    build = "import sys, setuptools.build_meta as meta; meta.build_wheel(sys.argv[1])"
    tree = folder / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run([sys.executable, "-c", build, str(folder)], cwd=tree, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built
