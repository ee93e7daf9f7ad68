"""Data that lie beside a method in its package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path


def beside(module: str, name: str) -> Path | None:
    """The file ``name`` nearest to the top of a module's package; only packages above the module are imported."""
    parts = module.split(".")
    for depth in range(1, len(parts)):
        package = find_spec(".".join(parts[:depth]))
        for folder in [] if package is None else package.submodule_search_locations or []:
            path = Path(folder) / name
            if path.is_file():
                return path
    return None
