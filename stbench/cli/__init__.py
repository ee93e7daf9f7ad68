"""The command line: each command says what it did and where it put it; bad input is one line and exit code 2."""

from __future__ import annotations

import os
import sys
import traceback

import typer
from rich.markup import escape

from ..errors import Interrupted, UserError
from .commands import app
from .console import err
from .paths import expand_paths

__all__ = ["app", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 1 some trial failed or a check did not pass, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # torch's threads spin while they wait for each other; where cores are shared, that makes a step many times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(
            expand_paths([word for word in arguments if word != "--debug"]), prog_name="stbench", standalone_mode=False
        )
    except UserError as error:
        if debug:
            traceback.print_exc()
        err.print(f"stbench: {escape(str(error))}", style="red", soft_wrap=True)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as pause:
        err.print(
            f"stbench: interrupted ({escape(str(pause)) or 'at once'}); run the same command again to go on",
            soft_wrap=True,
        )
        sys.exit(130)
    except Exception as error:
        # typer's own complaints (unknown option, missing argument) carry their exit code; anything else is a bug
        if not hasattr(error, "exit_code"):
            raise
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:
            err.print(f"stbench: {escape(message)} - see 'stbench --help'", style="red", soft_wrap=True)
        sys.exit(error.exit_code)
    sys.exit(code or 0)
