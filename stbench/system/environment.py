"""What a result was made with: versions of the libraries that shape numbers, and the machine."""

from __future__ import annotations

import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "stbench",
    "torch",
    "torchvision",
    "timm",
    "torch-geometric",
    "numpy",
    "scipy",
    "pandas",
    "anndata",
    "scikit-learn",
    "pillow",
    "tifffile",
    "mlflow",
)


@cache
def versions() -> dict[str, str]:
    """Installed versions, ``python`` first; a package that is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def machine() -> dict[str, str | int | float]:
    """Processor, cores, memory and system: what wall times depend on. Names no host and no user."""
    import psutil

    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:
            for line in handle:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except FileNotFoundError:  # not Linux
        pass
    return platform.processor() or platform.machine()
