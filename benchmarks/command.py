"""How a script of this folder begins and ends: bad input is one line and exit code 2, as of ``stbench``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from stbench.errors import UserError, unknown


def end(main: Callable[[], int | None]) -> NoReturn:
    """Run ``main`` and leave the process with what it returns: nothing is 0, and 1 says that something is worse."""
    try:
        code = main() or 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


def part_options(doc: str | None, words: Sequence[str] | None, *more: tuple[str, dict[str, Any]]) -> argparse.Namespace:
    """``--out FILE --device D --tiny`` of a part of ``look.py``, and ``more`` options; the device is looked at."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write, as far as it has come")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or cpu")
    parser.add_argument("--tiny", action="store_true", help="tiny sections: does it work? Its numbers mean nothing")
    for name, keywords in more:
        parser.add_argument(name, **keywords)
    from stbench.training.device import resolve_device  # loads torch, which look.py does without

    options = parser.parse_args(words)
    options.device = resolve_device(options.device)
    return options


def methods_named(words: str, known: Iterable[str]) -> list[str]:
    """Of names with commas. ``UserError`` where one is unknown."""
    names = words.split(",")
    for name in names:
        if name not in known:
            raise unknown("method", name, known)
    return names
