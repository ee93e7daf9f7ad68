"""A package of a method or a dataset, rendered from the templates and written as a whole or not at all."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from .. import __version__, registry
from ..errors import UserError
from ..system.files import replacing_directory
from ..system.locate import cohort_names
from .names import check_name, check_title, class_name, default_title, distribution_name

TEMPLATES = Path(__file__).with_name("templates")
Library = Literal["torch", "numpy"]

SHARED = {".gitignore": "shared/gitignore"}
# file of the package to its template; {name} is the package's
METHOD: Mapping[str, str] = SHARED | {
    "README.md": "method/README.md",
    "pyproject.toml": "method/pyproject.toml",
    "src/{name}/__init__.py": "shared/init.py",
    "src/{name}/py.typed": "shared/py.typed",
    "src/{name}/method.py": "method/{library}_method.py",
    "tests/test_method.py": "method/test_method.py",
}
DATASET: Mapping[str, str] = SHARED | {
    "README.md": "dataset/README.md",
    "pyproject.toml": "dataset/pyproject.toml",
    "src/{name}/__init__.py": "shared/init.py",
    "src/{name}/py.typed": "shared/py.typed",
    "src/{name}/dataset.py": "dataset/dataset.py",
    "src/{name}/panel.txt": "dataset/panel.txt",
    "tests/test_dataset.py": "dataset/test_dataset.py",
}


def method_package(name: str, title: str | None = None, library: Library = "torch") -> dict[str, str]:
    """The files of a package with a method that works, path to text.

    Raises ``UserError`` for a name or title that it cannot have.
    """
    if name in registry.GROUPS_OF_METHODS:
        raise UserError(f"'{name}' stands for several methods (--methods {name}) - choose another name")
    check_name("method", name, registry.method_names())
    return _rendered("method", METHOD, name, title, library)


def dataset_package(name: str, title: str | None = None, data: Path | None = None) -> dict[str, str]:
    """As :func:`method_package`, with a dataset; ``data`` is the folder whose cohorts it may not be named like."""
    check_name("dataset", name, [*registry.dataset_names(), *cohort_names(data)])
    return _rendered("dataset", DATASET, name, title)


def write_package(files: Mapping[str, str], folder: Path) -> None:
    """Write a package's files into the new folder ``folder``.

    Raises ``UserError`` if there is something of that name; nothing is left where writing fails.
    """
    if folder.exists() or folder.is_symlink():
        raise UserError(f"{folder} exists already - choose another name, or another folder (--out)")
    with replacing_directory(folder) as temporary:
        for path, text in files.items():
            (temporary / path).parent.mkdir(parents=True, exist_ok=True)
            (temporary / path).write_text(text, encoding="utf-8")


def _rendered(
    kind: str, templates: Mapping[str, str], name: str, title: str | None, library: str = ""
) -> dict[str, str]:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    title = default_title(name) if title is None else title
    check_title(title)
    environment = Environment(  # what is rendered is code, not HTML
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values = {
        "kind": kind,
        "name": name,
        "title": title,
        "class_name": class_name(name),
        "distribution": distribution_name(name),
        "library": library,
        "version": __version__,
    }
    files = {
        path.format(name=name): environment.get_template(f"{template.format(library=library)}.jinja").render(values)
        for path, template in templates.items()
    }
    _check_class(kind, name, files[f"src/{name}/{kind}.py"])
    return files


def _check_class(kind: str, name: str, source: str) -> None:
    """Refuse a name whose class would be called like something that its own module imports (``run``: ``Run``)."""
    imported = {
        alias.asname or alias.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    if class_name(name) in imported:
        raise UserError(
            f"the class of a {kind} '{name}' would be called {class_name(name)}, which its code needs for something "
            "else - choose another name"
        )
