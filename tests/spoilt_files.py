"""Files with a part of another kind, and what may come of reading them: a ``UserError`` of one line, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st

from stbench.errors import UserError

REPLACEMENTS: dict[str, Any] = {
    "nothing": None,
    "no values": np.empty(0),
    "NaN": np.full(7, np.nan),
    "words": np.array([b"a", b"b"]),
    "a number": 3.5,
    "a text": "x",
    "numbers out of range": np.array([-5, 2**62]),
    "a matrix": np.zeros((3, 2)),
    "a logical value": True,
}
replacements = st.sampled_from(sorted(REPLACEMENTS))


@contextmanager
def accepted_or_refused() -> Iterator[None]:
    """Nothing is raised inside but a ``UserError`` of one line."""
    told: list[str] = []
    try:
        yield
    except UserError as refusal:
        told.append(str(refusal))
    assert not any("\n" in line for line in told)


@contextmanager
def part_replaced(path: Path, number: int, how: str) -> Iterator[None]:
    """The ``number``-th group or dataset of an HDF5 file replaced, with its attributes; restored afterwards.

    Bytes are not damaged at random: what libhdf5 makes of them is not for Python to catch.
    """
    content = path.read_bytes()
    names: list[str] = []
    with h5py.File(path, "r+") as file:
        file.visit(names.append)
        name = names[number % len(names)]
        attributes = dict(file[name].attrs)
        del file[name]
        if REPLACEMENTS[how] is not None:
            file[name] = REPLACEMENTS[how]
            for key, value in attributes.items():
                file[name].attrs[key] = value
    try:
        yield
    finally:
        path.write_bytes(content)


@contextmanager
def cut_off(path: Path, share: float) -> Iterator[None]:
    """The first ``share`` of a file; restored afterwards."""
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    try:
        yield
    finally:
        path.write_bytes(content)
