"""How a script of this folder ends: bad input is one line and exit code 2, as of ``stbench``; Ctrl-C is 130."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn

from stbench.errors import UserError


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
