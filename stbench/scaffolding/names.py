"""What a new package may be called: its name is typed, imported, installed and printed."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Collection
from importlib.metadata import PackageNotFoundError, distribution

from ..errors import UserError

FORM = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # as methods are named; with hyphens also a valid distribution name
LONGEST_NAME, LONGEST_TITLE = 32, 60  # so that lines of the templates stay below 120


def distribution_name(name: str) -> str:
    """As package indexes normalise it: ``my_method`` is installed as ``my-method``."""
    return name.replace("_", "-")


def class_name(name: str) -> str:
    """``my_method`` is the class ``MyMethod``."""
    return "".join(word.capitalize() for word in name.split("_"))


def default_title(name: str) -> str:
    """``my_method`` is printed as ``My method``."""
    return name.replace("_", " ").capitalize()


def check_name(kind: str, name: str, taken: Collection[str]) -> None:
    """Refuse a name that a package of a ``kind`` ("method") cannot have; ``taken`` are those that mean something.

    Raises ``UserError``.
    """
    if not FORM.fullmatch(name):
        near = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_0123456789")
        guess = f", e.g. {near}" if FORM.fullmatch(near) else ""
        raise UserError(
            f"'{name}' cannot be a {kind}'s name - use lower-case letters and digits, the first a letter, with single "
            f"underscores between words{guess}"
        )
    if len(name) > LONGEST_NAME:
        raise UserError(f"'{name}' has {len(name)} characters - give a {kind}'s name of at most {LONGEST_NAME}")
    if name in taken:
        raise UserError(f"there is a {kind} '{name}' already - choose another name")
    if keyword.iskeyword(name):
        raise UserError(f"'{name}' is a keyword of Python, no package can be imported by it - choose another name")
    if name in sys.stdlib_module_names:
        raise UserError(f"'{name}' is a module of Python's standard library - choose another name")
    if _installed(name):
        raise UserError(f"a package '{name}' is installed already - choose another name, or uninstall it")


def _installed(name: str) -> bool:
    """Whether a package is imported, or was installed, by this name. A mere folder that lies here is neither."""
    try:
        distribution(distribution_name(name))
    except PackageNotFoundError:
        found = importlib.util.find_spec(name)
        return found is not None and found.origin is not None
    return True


def check_title(title: str) -> None:
    """Refuse a title that does not fit into a line of code. Raises ``UserError``."""
    if not title.strip() or not title.isprintable() or title != title.strip():
        raise UserError(f"--title {title!r} is not a title - give a printable name without blanks around it")
    if any(char in title for char in "\"'\\`"):
        raise UserError(
            f"--title {title} has quotes or backslashes, which code cannot show as they are - leave them out"
        )
    if len(title) > LONGEST_TITLE:
        raise UserError(f"--title has {len(title)} characters - give at most {LONGEST_TITLE}")
