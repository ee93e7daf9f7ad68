"""Paths as people write them: ``~`` and environment variables stand for what a shell would put there.

A shell expands neither in ``--out=~/results``, nor in a manifest, a job script's quotes or a notebook.
"""

from __future__ import annotations

import os
import re
from pathlib import Path


def expanded(path: str | Path) -> Path:
    """``path`` with ``~`` and ``$NAME`` replaced; a path that is there as it is written stays so.

    A variable that is not set stays: :func:`unset_variables` names it where the path then leads nowhere.
    """
    path = Path(path)
    if os.path.lexists(path):
        return path
    return Path(os.path.expandvars(os.path.expanduser(path)))


def unset_variables(path: str | Path) -> str:
    """A remark for the end of a message on a path that leads nowhere; empty where nothing is to be said."""
    names = [plain or braced for plain, braced in re.findall(r"\$(?:(\w+)|\{(\w+)\})", str(path))]
    unset = [name for name in dict.fromkeys(names) if name not in os.environ]
    if unset:
        return f" (the environment variable {', '.join(unset)} is not set)"
    return " (there is no such user)" if str(path).startswith("~") else ""
