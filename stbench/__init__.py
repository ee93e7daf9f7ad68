"""stbench: from an H&E image, which method predicts spatial gene expression best, by how much, and can it be believed?

Importing this package is cheap: heavy libraries (torch, anndata, mlflow) are imported where they are used.
"""

from importlib.metadata import PackageNotFoundError, version

from .moved import find_moved_modules

try:
    __version__ = version("stbench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

# Part of every trial's key: raised by a release that changes numbers, so that trials of before are run again
NUMBERS = 1

find_moved_modules()

__all__ = ["NUMBERS", "__version__"]
