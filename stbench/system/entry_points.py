"""Entry points of the installed packages: read once, for as long as the folders that are searched stay as they are.

To find those of one group, ``importlib.metadata`` opens the metadata of every installed package, each time anew: some
hundred files for each name that is looked up.
"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from functools import lru_cache
from importlib.metadata import EntryPoints

Stamp = tuple[int, int, int] | None  # device, inode and time of a folder's last change; None: there is none


def entry_points(**chosen: str) -> EntryPoints:
    """Those that have the ``group`` and the ``name`` that are asked for, as ``importlib.metadata`` gives them.

    What is installed while this process runs is found, as an installation changes a folder of ``sys.path``.

    Examples
    --------
    >>> entry_points(group="stbench.methods", name="stnet")["stnet"].module
    'stbench.methods.stnet'
    """
    return _all(tuple((folder, _stamp(folder)) for folder in sys.path)).select(**chosen)


@lru_cache(maxsize=4)
def _all(folders: tuple[tuple[str, Stamp], ...]) -> EntryPoints:
    return importlib.metadata.entry_points()


def _stamp(folder: str) -> Stamp:
    try:
        found = os.stat(folder or ".")
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns
