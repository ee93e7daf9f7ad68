"""Arrays written to a file row by row, in any order and by several threads, without being held in memory; and read."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import TracebackType

import numpy as np


def read_array(path: Path, mapped: bool) -> np.ndarray:
    """The array in a ``.npy`` file, not to be written to; ``mapped``: it stays in the file."""
    array = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    array.flags.writeable = False
    return array


class ArrayFile:
    """A ``.npy`` file of a known shape that is written like an array; its bytes are those of ``numpy.save``.

    A context manager. Every row (along the first axis) is to be written; what is not is zero.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: np.dtype | type) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": np.lib.format.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape}
        )
        self._start = header.tell()
        self._row_bytes = int(np.prod(shape[1:])) * self.dtype.itemsize
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        os.pwrite(self._descriptor, header.getvalue(), 0)
        os.truncate(self._descriptor, self._start + shape[0] * self._row_bytes)

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def __setitem__(self, index: int, row: np.ndarray) -> None:
        if row.shape != self.shape[1:] or not 0 <= index < self.shape[0]:
            raise ValueError(f"row {index} of the shape {row.shape} does not fit an array of {self.shape}")
        content = memoryview(np.asarray(row, self.dtype).tobytes())
        place = self._start + index * self._row_bytes
        while content:  # a write may stop early, for example at the edge of a quota: the next one says why
            written = os.pwrite(self._descriptor, content, place)
            content, place = content[written:], place + written
