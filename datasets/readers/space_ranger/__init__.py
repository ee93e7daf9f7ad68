"""The output folder of 10x Genomics' Space Ranger (Visium and Visium HD), of any version, with or without the
full-resolution image.

Counts: a feature-barcode matrix as HDF5 (version 2 or 3) or as a folder of matrix, barcodes and features (1, 2 or 3
columns). Positions: a table with or without header, or parquet; its pixel **row** stands before its pixel **column**.
Files that end in ``.gz`` may be plain text and the other way round. Positions come from the pixel columns only: the
array may be rotated against the image. Of Visium HD, spots are the bins of one size, or segmented cells.
"""

from __future__ import annotations

from .files import SpaceRangerFiles, find, from_parts
from .scale import VISIUM_PITCH_UM, read_scale_factors
from .section import read

__all__ = ["VISIUM_PITCH_UM", "SpaceRangerFiles", "find", "from_parts", "read", "read_scale_factors"]
