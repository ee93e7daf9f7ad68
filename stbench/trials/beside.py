"""Data that lie beside a method in its package."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from ..registry import METHODS
from ..system.entry_points import entry_points


def beside(method: str, name: str) -> Path | None:
    """The file ``name`` of the package that registers a method, or of one above it; ``None`` where there is none."""
    files = (_nearest_to_the_top(entry.module, name) for entry in entry_points(group=METHODS, name=method))
    return next((path for path in files if path is not None), None)


def _nearest_to_the_top(module: str, name: str) -> Path | None:
    """Only packages above the module are imported, never itself."""
    parts = module.split(".")
    for depth in range(1, len(parts)):
        package = find_spec(".".join(parts[:depth]))
        for folder in [] if package is None else package.submodule_search_locations or []:
            path = Path(folder) / name
            if path.is_file():
                return path
    return None
