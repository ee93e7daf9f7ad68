"""Entry points of the installed packages: read once, for as long as the folders that are searched stay as they are.

To find those of a group, ``importlib.metadata`` opens the metadata of every installed package, each time anew: some
hundred files for each name that is looked up.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import lru_cache
from importlib.metadata import EntryPoints

Stamp = tuple[int, int, int] | None  # device, inode and time of a folder's last change; None: there is none


def entry_points(group: str, name: str | None = None) -> EntryPoints:
    """Those of a group, or of them those of a name, as ``importlib.metadata`` gives them.

    What is installed while this process runs is found, as an installation changes a folder of ``sys.path``.

    Examples
    --------
    >>> entry_points(group="stbench.methods", name="stnet")["stnet"].module
    'stbench.methods.stnet'
    """
    found = _read(group, tuple((folder, _stamp(folder)) for folder in sys.path))
    return found if name is None else found.select(name=name)


@lru_cache(maxsize=8)
def _read(group: str, folders: tuple[tuple[str, Stamp], ...]) -> EntryPoints:
    return importlib.metadata.entry_points(group=group)


def _stamp(folder: str) -> Stamp:
    try:
        found = os.stat(folder or ".")
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
