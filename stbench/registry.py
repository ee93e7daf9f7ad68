"""Finding methods and datasets by name (entry points) or by path, so that the harness knows none of them itself.

A name stands in the entry-point group ``stbench.methods`` or ``stbench.datasets`` of any installed package. Listing
names imports nothing; a method's or dataset's module is imported when it is asked for. So that listing names is fast,
numpy and pydantic are imported by the functions that load a module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .errors import UserError, said, unknown
from .system.code_digest import code_digest
from .system.entry_points import entry_points
from .system.files import file_digest
from .system.locate import cohort_manifest, cohort_names
from .system.user_paths import expanded, unset_variables

if TYPE_CHECKING:
    from .dataset import Dataset
    from .method import Method
    from .system.calls import Calls

METHODS = "stbench.methods"
DATASETS = "stbench.datasets"
METHOD_READERS = "stbench.method_readers"  # its entry "toml" makes a method's class of a TOML file
DATASET_READERS = "stbench.dataset_readers"  # its entry "path" opens a manifest, an .h5ad file or a folder as a dataset
COMPUTING = "stbench.system.precision"  # the only part of the system that a number depends on
PATHS = "or path/to/file.py:Class, or path/to/file.toml"
GROUPS_OF_METHODS = ("all", "published", "controls")
METHOD_MEMBERS = (
    "name", "title", "kind", "Config", "presets", "needs", "weights_label",
    "fit", "predict", "save", "load",
)  # fmt: skip
DATASET_MEMBERS = (
    "name", "title", "slices", "patch_px", "how_to_get", "citation",
    "patient", "panel", "find",
)  # fmt: skip


def method_names() -> list[str]:
    """Every registered method, controls included, in alphabetical order."""
    return sorted(entry_points(group=METHODS).names)


def dataset_names() -> list[str]:
    """Every registered dataset, in alphabetical order."""
    return sorted(entry_points(group=DATASETS).names)


def method(name: str) -> type[Method]:
    """The class of a method: a registered name, ``path/to/file.py:Class``, or the path of a TOML file.

    Raises
    ------
    UserError
        If there is none of that name, its file cannot be imported, or it lacks a member.

    Examples
    --------
    >>> method("stnet").title
    'STnet'
    """
    if is_toml(name):
        return _method_from_toml(name)
    if is_path(name):
        return _method_from_file(name)
    loaded = _require_method(_load(METHODS, "method", name, hint=PATHS), f"method '{name}'")
    if loaded.name != name:
        raise UserError(f"method '{name}' calls itself '{loaded.name}' - its entry point and its class must agree")
    return loaded


def expand_methods(names: str) -> list[str]:
    """The methods that a comma-separated list stands for, each once, in the order of its first mention.

    ``controls`` stands for every registered control, ``published`` for every other registered method, and ``all`` for
    those methods followed by the controls. Anything else is a name as :func:`method` takes it.

    Raises
    ------
    UserError
        If a word names no method.

    Examples
    --------
    >>> expand_methods("training_mean, stnet, training_mean")
    ['training_mean', 'stnet']
    """
    registered = method_names()
    expanded: list[str] = []
    for word in known_methods(names):
        if word in GROUPS_OF_METHODS:
            kinds = {"all": ("method", "control"), "published": ("method",), "controls": ("control",)}[word]
            expanded += [name for kind in kinds for name in registered if method(name).kind == kind]
        else:
            expanded.append(word)
    return list(dict.fromkeys(expanded))


def known_methods(names: str) -> list[str]:
    """The words of a list as :func:`expand_methods` takes it, without importing anything.

    Raises
    ------
    UserError
        If a word names no method.
    """
    words = [word.strip() for word in names.split(",") if word.strip()]
    if not words:
        raise UserError(
            "no method is named - give names, path/to/file.py:Class, path/to/file.toml, or all, published, controls"
        )
    registered = method_names()
    for word in words:
        if is_toml(word):
            _toml_file(word)
        elif is_path(word):
            _method_file(word)
        elif word not in registered and word not in GROUPS_OF_METHODS:
            raise unknown("method", word, [*registered, *GROUPS_OF_METHODS], hint=PATHS)
    return words


def dataset(name: str, root: Path | None = None) -> Dataset:
    """The dataset of a name, or the one that a path stands for.

    Parameters
    ----------
    name : str
        A registered name, the name of a cohort below ``root``, or the path of a ``.toml`` manifest, an ``.h5ad`` file
        or a folder. If a folder has a registered dataset's or a cohort's name, write ``./name`` for the folder.
    root : Path, optional
        Where the data of a registered dataset, and the user's cohorts, are.

    Returns
    -------
    Dataset
        Nothing of its slices has been read yet.

    Raises
    ------
    UserError
        If there is none of that name or place, or if it lacks a member.

    Examples
    --------
    >>> dataset("demo").title
    'Demo'
    """
    hint = "or the path of a .toml manifest, an .h5ad file or a folder"
    if name in dataset_names():
        loaded = _load(DATASETS, "dataset", name, hint)
        opened = loaded(root)
    elif (manifest := cohort_manifest(root, name)) is not None or expanded(name).exists():
        place = manifest or expanded(name)
        opened = _load(DATASET_READERS, "dataset reader", "path", "install the package stbench again")(place)
        if manifest is not None and opened.name != name:
            raise UserError(f"{manifest} calls itself '{opened.name}' - its folder and its name must agree")
    elif "/" in name or name.startswith("$") or Path(name).suffix.lower() in (".toml", ".h5ad"):
        raise UserError(
            f"there is no file or folder {name}{unset_variables(name)} - give a dataset's name "
            f"({', '.join([*dataset_names(), *cohort_names(root)])}), {hint}"
        )
    else:
        raise unknown("dataset", name, [*dataset_names(), *cohort_names(root)], hint)
    missing = [member for member in DATASET_MEMBERS if not hasattr(opened, member)]
    if missing:
        raise UserError(f"dataset '{name}' lacks {', '.join(missing)} - see stbench.dataset.Dataset")
    return opened


def dataset_origin(name: str, root: Path | None = None) -> str:
    """Which dataset :func:`dataset` finds by ``name``, wherever it is called from: paths are made absolute."""
    if name in dataset_names():
        return name
    return str((cohort_manifest(root, name) or expanded(name)).resolve())


def origin(name: str) -> str:
    """Which method :func:`method` finds by ``name``, wherever it is called from: a file's path is made absolute."""
    if is_toml(name):
        return str(expanded(name).resolve())
    file, _, class_name = name.rpartition(":")
    return f"{Path(file).expanduser().resolve()}:{class_name}" if is_path(name) else name


_changes_at_import: dict[str, list[str]] = {}  # module to what its import had changed in the process, in words


def changes_at_import(method_class: type[Method]) -> list[str]:
    """What importing the method's module had changed in the process, in words; it was put back."""
    return list(_changes_at_import.get(method_class.__module__, []))


@cache
def source_digest(method_class: type[Method]) -> str:
    """Digest of the code that determines what a method computes; part of every trial's key.

    Of the method's own file, whether it is registered or given by path, and of every module that this file imports, at
    first or second hand, from its own package and from stbench (the blocks that methods share, the training loop). So a
    changed method never reuses old results, while comments, docstrings, messages and the places of modules change
    nothing (:mod:`stbench.system.code_digest`). Other libraries enter a trial's record by their version, and
    :data:`stbench.NUMBERS` enters the key beside this digest. The files are read once per process. A class of which its
    file says little, as it runs commands, says the digest itself: ``code_digest``.
    """
    if hasattr(method_class, "code_digest"):
        return str(method_class.code_digest)
    module = sys.modules[method_class.__module__]
    if module.__file__ is None:
        raise UserError(f"method '{method_class.name}' is not defined in a file - put its class into one")
    packages = {module.__name__.partition(".")[0], __name__.partition(".")[0]}
    return code_digest(Path(module.__file__), module.__package__ or "", packages, _computes_nothing)


def _computes_nothing(module: str) -> bool:
    """Errors, files and processes: what a method imports of them changes no number."""
    return module.startswith(("stbench.errors", "stbench.system")) and not module.startswith(COMPUTING)


def _load(group: str, kind: str, name: str, hint: str) -> Any:
    """What the entry point ``name`` of ``group`` stands for; it is imported now."""
    found = {entry.value: entry for entry in entry_points(group=group, name=name)}
    if not found:
        raise unknown(kind, name, entry_points(group=group).names, hint)
    if len(found) > 1:
        origins = " and ".join(f"{entry.value} ({_package(entry)})" for entry in found.values())
        raise UserError(f"two installed packages register a {kind} '{name}': {origins} - uninstall or rename one")
    entry = next(iter(found.values()))
    calls = _calls(name, lambda text: _changes_at_import.setdefault(entry.module, []).append(text))
    try:
        return calls("the import of its module", entry.load)
    except Exception as error:  # a stranger's module may fail in any way
        from .system.python_files import reason_of_import

        raise UserError(
            f"cannot load {kind} '{name}' ({entry.value} of {_package(entry)}): {reason_of_import(error)}"
        ) from error


def _calls(name: str, tell: Callable[[str], object] | None = None) -> Calls:
    from .system.calls import Calls

    return Calls(name, tell)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "an unnamed package"


def is_toml(name: str) -> bool:
    """Whether a method is named by the path of a TOML file."""
    return name.lower().endswith(".toml")


def is_path(name: str) -> bool:
    """Whether a method is named by the path of a file: what it calls itself is not known before that is loaded."""
    file, colon, _ = name.rpartition(":")
    return is_toml(name) or name.endswith(".py") or (bool(colon) and (file.endswith(".py") or "/" in file))


def _method_file(name: str) -> tuple[Path, str]:
    """The file and the class that ``path/to/file.py:Class`` names."""
    file, _, class_name = name.rpartition(":")
    if not file or not class_name.isidentifier():
        raise UserError(f"'{name}' does not name a class - write path/to/file.py:Class")
    path = expanded(file)
    if not path.is_file():
        raise UserError(f"there is no file {file} - write path/to/file.py:Class")
    return path, class_name


def _toml_file(name: str) -> Path:
    path = expanded(name)
    if not path.is_file():
        raise UserError(f"there is no file {name}{unset_variables(name)} - give the path of a method's TOML file")
    return path


def _method_from_toml(name: str) -> type[Method]:
    opened = _load(METHOD_READERS, "method reader", "toml", "install the package stbench again")
    return _require_method(opened(_toml_file(name)), name)


def _method_from_file(name: str) -> type[Method]:
    file = name.rpartition(":")[0]
    path, class_name = _method_file(name)
    module = _import_file(path.resolve(), file_digest(path))
    if not hasattr(module, class_name):
        classes = [
            key
            for key, value in vars(module).items()
            if isinstance(value, type) and value.__module__ == module.__name__
        ]
        raise unknown(f"class in {file}", class_name, classes)
    loaded = _require_method(getattr(module, class_name), name)
    source_digest(loaded)  # now, of the file as it was loaded
    return loaded


@cache
def _import_file(path: Path, digest: str) -> ModuleType:
    """A Python file as a module of its own, the same one for as long as its content is the same."""
    from .system.python_files import import_file, module_name

    name = module_name(path, digest)
    return import_file(path, digest, lambda text: _changes_at_import.setdefault(name, []).append(text))


def _require_method(candidate: Any, name: str) -> type[Method]:
    """``candidate``, if it is a class with every member of a method."""
    try:
        return _calls(name)("its class", _complete, candidate, name)
    except UserError:
        raise
    except Exception as error:  # a descriptor may fail in any way
        raise UserError(f"{name} cannot be looked at: {said(error)}") from error


def _complete(candidate: Any, name: str) -> type[Method]:
    from pydantic import BaseModel

    missing = [member for member in METHOD_MEMBERS if not hasattr(candidate, member)]
    if not isinstance(candidate, type) or missing:
        what = f"lacks {', '.join(missing)}" if isinstance(candidate, type) else "is not a class"
        raise UserError(f"{name} {what} - see stbench.method.Method for what a method's class must have")
    loaded: Any = candidate
    if loaded.kind not in ("method", "control"):
        raise UserError(f"{name} has kind = {loaded.kind!r} - it must be 'method' or 'control'")
    for member in ("name", "title"):
        if not isinstance(getattr(loaded, member), str) or not getattr(loaded, member):
            raise UserError(f"{name} has {member} = {getattr(loaded, member)!r} - it must be a string")
    if not isinstance(loaded.presets, Mapping) or not all(
        isinstance(changes, Mapping) for changes in loaded.presets.values()
    ):
        raise UserError(f"{name} has presets = {loaded.presets!r} - give each preset's name its changed settings")
    if not (isinstance(loaded.Config, type) and issubclass(loaded.Config, BaseModel)):
        raise UserError(
            f"{name} has a Config that is not a pydantic model - derive it from stbench.method.MethodConfig"
        )
    return loaded
