"""Sections in ``.h5ad`` files, in the layout of Scanpy and Squidpy."""

from __future__ import annotations

from .picture import named_image
from .read import read

__all__ = ["named_image", "read"]
