"""Expanding ``~`` and environment variables at the beginning of a path on the command line, where no shell has.

A shell does not expand ``--out=~/results``, nor anything in quotes, and a folder called ``~`` would be created.
"""

from __future__ import annotations

import re

from ..system.user_paths import expanded

# ~, ~/x, $NAME/x, ${NAME}/x, alone or as the value in --option=value
STARTS_LIKE_A_PATH = re.compile(r"(?P<option>--[\w-]+=)?(?P<path>(?:~[\w.-]*|\$\w+|\$\{\w+\})(?:/.*)?)", re.DOTALL)


def expand_paths(words: list[str]) -> list[str]:
    """The words of a command line with paths expanded; a title such as ``$5`` is left as it is."""
    return [_expand(word) for word in words]


def _expand(word: str) -> str:
    match = STARTS_LIKE_A_PATH.fullmatch(word)
    if match is None:
        return word
    path = str(expanded(match["path"]))
    return f"{match['option'] or ''}{path}" if "/" in path else word
