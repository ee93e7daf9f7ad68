"""The code that a method's TOML file names, and its digest: changed code is never taken for what ran before."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import UserError
from ..system.files import file_digest, value_digest
from ..system.user_paths import expanded, unset_variables
from .definition import EXCHANGE, Definition

# of a folder, what is taken for code: data, weights and results in a clone change no number by being there
CODE = {
    ".py", ".pyx", ".ipynb", ".r", ".jl", ".m", ".sh", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp",
    ".toml", ".yaml", ".yml", ".json", ".cfg", ".ini",
}  # fmt: skip
HERE = "{here}"


def code_of(definition: Definition, here: Path) -> tuple[Path, ...]:
    """Files and folders that the commands name by ``{here}``, the folder of the TOML file, and those of ``files``.

    Raises ``UserError`` where one of them is missing.
    """
    words = (*definition.train, *definition.predict)
    named = [Path(os.path.abspath(word.replace(HERE, str(here)))) for word in words if word.startswith(HERE + "/")]
    listed = []
    for name in definition.files:
        path = Path(os.path.abspath(here / expanded(name)))
        if not path.exists():
            raise UserError(f"files: there is no file or folder {path}{unset_variables(name)}")
        listed.append(path)
    for word in words:
        if Path(word).suffix in CODE and not os.path.isabs(word) and "{" not in word and (here / word).is_file():
            raise UserError(f"a command names {word}, and runs in a folder of its trial's own - write {HERE}/{word}")
    for path in named:
        if path.suffix in CODE and not path.is_file():
            raise UserError(f"a command names {path}, which is not there")
    return tuple(dict.fromkeys(path for path in (*named, *listed) if path.exists()))


def digest_of_code(definition: Definition, here: Path) -> str:
    """Digest of all in a TOML file that may move a number, and of the code that it names.

    Titles, descriptions and costs may not. Where the file lies, and its clone, is not part of it.
    """
    said = definition.model_dump(mode="json", exclude={"title", "description", "cost", "settings", "presets", "kind"})
    contents = []
    for path in code_of(definition, here):
        for file in _files(path):
            contents.append([file.relative_to(path.parent).as_posix(), file_digest(file)])
    return value_digest([EXCHANGE, said, sorted(contents)])


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    found = []
    for folder, inside, names in os.walk(path):
        inside[:] = [name for name in inside if not name.startswith(".") and name != "__pycache__"]
        found += [Path(folder, name) for name in names if Path(name).suffix.lower() in CODE]
    return found
