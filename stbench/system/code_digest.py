"""A digest of what code computes: it stays where a comment, a docstring, a message or a module's place changes."""

from __future__ import annotations

import ast
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from ..moved import PLACES
from .files import file_digest, value_digest

# Words for people: what they say changes no number
_SAYING = {"note", "progress", "debug", "info", "warning", "error", "exception", "warn"}
_WORDED = {"description", "help", "title", "doc"}  # arguments of a setting's Field


def code_digest(path: Path, package: str, packages: set[str], without: Callable[[str], bool] = lambda _: False) -> str:
    """Digest of a file and of every module below ``packages`` that it imports, at first or second hand.

    Of each, the statements at its top level count, as syntax trees without docstrings, comments, imports, and the words
    of errors and notes. They count as a set, so a definition that moves to another of these modules changes nothing.
    ``without(module)``: whether a module computes nothing and is not looked into.
    """
    statements = set(_statements(path))
    seen = {""}
    waiting = list(_imports(path, package, packages))
    while waiting:
        name = waiting.pop()
        if name in seen or without(name):
            continue
        seen.add(name)
        if name in PLACES:  # an old name
            waiting += PLACES[name]
            continue
        spec = _find_module(name)
        if spec is None or spec.origin is None:  # what is imported is not a module but something in one
            continue
        origin = Path(spec.origin)
        statements.update(_statements(origin))
        waiting += _imports(origin, name if spec.submodule_search_locations else name.rpartition(".")[0], packages)
    return value_digest(sorted(statements))


def _statements(path: Path) -> tuple[str, ...]:
    """A digest of each statement at the top level of a file."""
    return _statements_of(path, file_digest(path))


@cache
def _statements_of(path: Path, _digest: str) -> tuple[str, ...]:
    """:func:`_statements`, parsed once in a process for as long as the file's content is the same."""
    tree = _Bare().visit(ast.parse(path.read_bytes(), str(path)))
    return tuple(value_digest(ast.dump(statement)) for statement in tree.body if not _is_for_readers(statement))


def _is_for_readers(statement: ast.stmt) -> bool:
    """Whether a top-level statement is for type checkers, or lists names for ``import *``."""
    if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
        return True
    return isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "__all__"


class _Bare(ast.NodeTransformer):
    """Takes away what changes no number."""

    def _without_docstring(self, node: ast.AST) -> ast.AST:
        body = node.body  # type: ignore[attr-defined]
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            node.body = body[1:]  # type: ignore[attr-defined]
        return self.generic_visit(node)

    visit_Module = visit_ClassDef = visit_FunctionDef = visit_AsyncFunctionDef = _without_docstring  # noqa: N815

    def visit_Import(self, node: ast.Import) -> None:
        return None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        return None

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc = node.exc.func
        return self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        call = node.value
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in _SAYING:
            call.args, call.keywords = [], []
        return self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> ast.AST | None:
        if node.arg in _WORDED and isinstance(node.value, ast.Constant | ast.JoinedStr | ast.BinOp):
            return None
        return self.generic_visit(node)


def _imports(path: Path, package: str, packages: set[str]) -> Iterator[str]:
    """Names below ``packages`` that a file imports anywhere in it: of modules, or of things in modules."""
    for name in _imports_of(path, file_digest(path), package):
        # a package's own __init__ gives its version and nothing that a method computes with
        if name.partition(".")[0] in packages and name not in packages:
            yield name


@cache
def _imports_of(path: Path, _digest: str, package: str) -> tuple[str, ...]:
    """All names that a file imports, parsed once in a process for as long as the file's content is the same."""
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_bytes(), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            origin = importlib.util.resolve_name(base, package) if node.level else base
            names += [origin, *(f"{origin}.{alias.name}" for alias in node.names)]
    return tuple(names)


def _find_module(name: str) -> ModuleSpec | None:
    """Where a module is, without importing it or the packages that it is in; ``None`` where there is none."""
    spec: ModuleSpec | None = None
    place: Sequence[str] | None = None
    parts = name.split(".")
    for depth in range(1, len(parts) + 1):
        if depth > 1 and place is None:  # "stbench.method.Run": what it is looked for in is a module, not a package
            return None
        partial = ".".join(parts[:depth])
        found = (finder.find_spec(partial, place) for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((one for one in found if one is not None), None)
        if spec is None:
            return None
        place = spec.submodule_search_locations
    return spec
