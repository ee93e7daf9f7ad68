"""The command line. Each command says what it did and where it put it; bad input gets one line and exit code 2."""

from __future__ import annotations

import os
import sys
import traceback

import typer

from ..errors import Interrupted, UserError
from ..system.out_of_memory import out_of_memory
from .commands import app
from .completion import ASKED_BY_SHELL
from .console import err
from .encodings import make_readable
from .paths import expand_paths

__all__ = ["app", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 success, 1 a trial failed or a check did not pass, 2 bad input, 130 interrupted."""
    arguments = sys.argv[1:] if arguments is None else arguments
    make_readable()
    debug = "--debug" in arguments
    command = typer.main.get_command(app)
    try:
        code = command.main(
            expand_paths([word for word in arguments if word != "--debug"]), prog_name="stbench", standalone_mode=False
        )
    except UserError as error:
        if debug:
            traceback.print_exc()
        err.print(f"stbench: {error}", style="red", soft_wrap=True)
        sys.exit(2)
    except (Interrupted, KeyboardInterrupt) as pause:
        err.print(
            f"stbench: interrupted ({str(pause) or 'at once'}); run the same command again to resume",
            soft_wrap=True,
        )
        sys.exit(130)
    except BrokenPipeError:  # the reader of the output has gone: head, a pager
        sys.exit(1)
    except (OSError, MemoryError) as error:  # the machine's, not the program's: an unreadable file, no memory
        if debug:
            raise
        err.print(f"stbench: {_in_words(error)}", style="red", soft_wrap=True)
        sys.exit(2)
    except Exception as error:
        # typer's own complaints (unknown option, missing argument) carry their exit code; anything else is a bug
        if not hasattr(error, "exit_code"):
            if os.environ.get(ASKED_BY_SHELL) and not debug:  # a traceback would stand in the user's command line
                sys.exit(1)
            raise
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:
            err.print(f"stbench: {message} - see 'stbench --help'", style="red", soft_wrap=True)
        sys.exit(error.exit_code)
    sys.exit(code or 0)


def _in_words(error: OSError | MemoryError) -> str:
    memory = out_of_memory(error)
    if memory is not None:
        return f"{memory} - close other programs, or take fewer slices (--slices)"
    strerror = getattr(error, "strerror", None)
    about = " and ".join(
        str(name) for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name
    )
    reason = " ".join((strerror or str(error) or type(error).__name__).split())
    return (
        f"{about}: {reason[:1].lower()}{reason[1:]} - check the path and its permissions"
        if about
        else f"the system reports: {reason} - run the same command with --debug to see where"
    )
