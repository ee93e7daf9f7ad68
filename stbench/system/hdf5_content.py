"""An HDF5 file as the content of a file, which is then written in one step.

It is made in memory: on a disk that is full HDF5 goes on complaining long after its error was caught.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import h5py


def hdf5_content(fill: Callable[[h5py.File], object]) -> bytes:
    """What a file holds that ``fill`` has written."""
    import h5py

    with h5py.File("content.h5", "w", driver="core", backing_store=False) as file:
        fill(file)
        file.flush()
        content: bytes = file.id.get_file_image()
    return content
