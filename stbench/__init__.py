"""stbench: from an H&E image, which method predicts spatial gene expression best, by how much, and can it be believed?

Importing this package is cheap: heavy libraries (torch, anndata, mlflow) are imported where they are used.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("stbench")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
