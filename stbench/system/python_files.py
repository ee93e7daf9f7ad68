"""A Python file that is named by its path, as a module of its own."""

from __future__ import annotations

import ast
import importlib.util
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from ..errors import MethodFailed, UserError, said
from .calls import Calls
from .files import value_digest


def module_name(path: Path, digest: str) -> str:
    """The name of the module that a file of this content is."""
    return f"stbench_file_{path.stem}_{value_digest([str(path), digest])[:12]}"


def import_file(path: Path, digest: str, tell: Callable[[str], object]) -> ModuleType:
    """A Python file as a module, imported now. ``tell`` hears what that had changed in the process, in words.

    Raises ``UserError``, with the line, where it cannot be imported.
    """
    name = module_name(path, digest)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise UserError(f"{path} is not a Python file - its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before its code runs: dataclasses and pydantic look their module up
    try:
        source = path.read_bytes()
        if "torch" in _top_level_names(source, path):
            import_module("torch")  # before what the file may change in it, to know how it was
        # from the source: a compiled copy could be of an earlier version that was saved within the same second
        Calls(path.name, tell)("its import", exec, compile(source, str(path), "exec"), module.__dict__)
    except Exception as error:  # a stranger's file may fail in any way
        del sys.modules[name]
        raise UserError(f"cannot load {path}: {reason_of_import(error, path)}") from error
    return module


def reason_of_import(error: Exception, path: Path | None = None) -> str:
    """An exception on one line, with the line of ``path`` where it arose."""
    raised = error.__cause__ if isinstance(error, MethodFailed) and error.__cause__ else error
    lines = [
        frame.lineno for frame in traceback.extract_tb(raised.__traceback__) if path and frame.filename == str(path)
    ]
    line = error.lineno if isinstance(error, SyntaxError) else next(reversed(lines), None)
    text = f"{type(error).__name__}: {error.msg}" if isinstance(error, SyntaxError) else said(error)
    return f"{f'line {line}: ' if line else ''}{text}"


def _top_level_names(source: bytes, path: Path) -> set[str]:
    """Packages that a file imports anywhere in it."""
    nodes = list(ast.walk(ast.parse(source, str(path))))
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    origins = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in plain | origins}
