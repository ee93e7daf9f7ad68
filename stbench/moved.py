"""Modules that plug-ins imported up to 0.1, found in their new places for one release, with a warning.

To be deleted, with the two lines of ``stbench/__init__.py`` and ``stbench/training/__init__.py`` that call it, in 0.3.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "stbench.augment": ("stbench.training.augment",),
    "stbench.batches": ("stbench.training.batches",),
    "stbench.compressed": ("stbench.system.compressed",),
    "stbench.encoders": ("stbench.training.encoders", "stbench.training.pretrained"),
    "stbench.image": ("stbench.slides.image", "stbench.slides.picture_formats"),
    "stbench.locate": ("stbench.system.locate",),
    "stbench.metrics": ("stbench.scores.metrics", "stbench.scores.correlation"),
    "stbench.patch_bank": ("stbench.training.patch_bank", "stbench.training.patch_store"),
    "stbench.precision": ("stbench.system.precision", "stbench.training.precision"),
    "stbench.prepare": ("stbench.data.prepare", "stbench.data.prepared", "stbench.data.cache"),
    "stbench.slide": ("stbench.slides.slide", "stbench.slides.checks"),
    "stbench.targets": ("stbench.data.targets", "stbench.data.target_names"),
}
# was one module, and is a package now
OF_TRAINING = ("stbench.training.loop", "stbench.training.device", "stbench.training.checkpoint")
PLACES = MOVED | {"stbench.training": OF_TRAINING}


def find_moved_modules() -> None:
    """Let the import system find the modules of :data:`MOVED`; whatever is really there comes first."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


def attributes_of(old: str, places: Sequence[str]) -> Callable[[str], Any]:
    """A module's ``__getattr__`` that looks names up in ``places``, and warns of each."""

    def __getattr__(name: str) -> Any:  # noqa: N807 - a module's own
        if not name.startswith("__"):
            for place in places:
                module = import_module(place)
                if hasattr(module, name):
                    warnings.warn(
                        f"{old}.{name} is {place}.{name} since stbench 0.2; the old name goes in 0.3",
                        DeprecationWarning,
                        stacklevel=2,
                    )
                    return getattr(module, name)
        raise AttributeError(f"module {old!r} has no attribute {name!r}")

    return __getattr__


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def exec_module(self, module: ModuleType) -> None:
        vars(module)["__getattr__"] = attributes_of(module.__name__, MOVED[module.__name__])
