"""All methods share one process: whatever one of them changes in it is put back after the call, and named.

What is watched is listed in :mod:`stbench.system.process_state`. What cannot be put back: functions of libraries that a
method replaces, threads and child processes that it leaves running, and a crash of the process itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from .process_state import GENERATORS, WATCHED, seed_generators
from .watched import Watched


@contextmanager
def process_kept(
    tell: Callable[[list[str]], object] | None = None,
    seed: int | None = None,
    watched_state: Sequence[Watched] = WATCHED,
) -> Iterator[None]:
    """Put the watched state back when the block is left in whatever way, and ``tell`` what had been changed, in words.

    With a ``seed`` the global random generators start from it inside: who draws from them, which a method should not,
    still gives the same numbers whatever ran before.
    """
    outside = _read(watched_state)
    inside = outside
    if seed is not None:
        seed_generators(seed)
        inside = outside | _read(GENERATORS)
    try:
        yield
    finally:
        changed = []
        for watched, before in outside.items():  # in order, each read after those before it were put back
            now = watched.state()
            found = watched.change(inside[watched], now)
            left = now == before or watched.put_back(before)
            if found or not left:
                changed.append(f"{found or watched.words}{'' if left else ', which could not be put back'}")
        if changed and tell is not None:
            tell(changed)


def _read(some: Iterable[Watched]) -> dict[Watched, Any]:
    return {watched: watched.state() for watched in some if not watched.library or watched.library in sys.modules}
