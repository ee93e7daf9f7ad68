"""stbench: from an H&E image, which method predicts spatial gene expression best, by how much, and can it be believed?

Importing this package is cheap: heavy libraries (torch, anndata, mlflow) are imported where they are used.
"""

import os
from importlib.metadata import PackageNotFoundError, version

# OpenMP's threads spin while they wait for each other; where a core is shared, that makes torch many times slower. The
# variable is read once, when torch is loaded: so it is set here, before any module of this package can load it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .moved import find_moved_modules

try:
    __version__ = version("stbench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

# Part of every trial's key: raised by a release that changes numbers, so that trials of before are run again
NUMBERS = 1

find_moved_modules()

__all__ = ["NUMBERS", "__version__"]
