"""Memory-mapped arrays whose file was cut: an error in words where the operating system would end the process.

What lies beyond the end of a mapped file cannot be read, and no exception says so. So the file's length is looked at
before its pages are: by every trial when it is given its slides, and before every piece that is read from them.
"""

from __future__ import annotations

from mmap import mmap

import numpy as np

from ..errors import DamagedFileError


def require_whole(array: np.ndarray) -> None:
    """Raise a ``DamagedFileError`` if the file that ``array`` is a view into ends before its last value.

    An array without a file passes, and so does one whose file was deleted or replaced while it was whole: what is
    mapped stays readable.
    """
    for part in getattr(array, "mapped", (array,)):  # what is cut from files says which
        _require_whole(part)


def _require_whole(array: np.ndarray) -> None:
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not isinstance(root.base, mmap):
        return
    length = root.base.size()  # of the file that is mapped, whatever its name leads to by now
    needed = root.offset + root.nbytes
    if length < needed:
        raise DamagedFileError(
            f"{root.filename} was cut while it was in use: {length:,} of {needed:,} bytes are left - "
            "run the same command again: prepared data are checked when they are opened, and made again"
        )
