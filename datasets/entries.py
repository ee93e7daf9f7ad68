"""The entry of a slide, as a manifest, a table of sections or an import's options have it, checked key by key.

An entry that has been checked holds ``id``, ``patient``, ``reader`` and the reader's keys; paths are ``Path``, absolute
or relative to the present folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stbench.errors import UserError, unknown
from stbench.system.locate import NAME
from stbench.system.user_paths import expanded

from .readers.reader import ALWAYS
from .readers.table import reader_named


def checked_entry(path: Path, number: int, slide: Mapping[str, Any]) -> dict[str, Any]:
    """The entry ``slide``, the ``number``-th of the manifest ``path``. Raises ``UserError``."""
    place = f"{path}, slide {number}"
    name = word(place, slide, "id", NAME)
    place = f"{place} ({name})"
    kind = word(place, slide, "reader")
    reader = reader_named(kind, place)
    check_keys(place, f"key for the reader {kind}", slide, ("id", "patient", "reader", *reader.keys))
    entry: dict[str, Any] = {"id": name, "patient": word(place, slide, "patient", NAME), "reader": kind}
    missing = [key for key in reader.required_paths if key not in slide]
    if missing:
        raise UserError(
            f"{place} lacks {', '.join(missing)} - the reader {kind} needs {', '.join(reader.required_paths)}"
        )
    for key in slide:
        if key in reader.paths:
            entry[key] = path_in(path.parent, word(place, slide, key))
        elif key in (*reader.numbers, *ALWAYS):
            entry[key] = _positive(place, slide, key)
        elif key in reader.words:
            entry[key] = word(place, slide, key)
        elif key in reader.switches:
            entry[key] = _switch(place, slide, key)
    return entry


def path_in(folder: Path, written: str) -> Path:
    """A path as a manifest or table in ``folder`` has it: below it, or absolute; ``~`` and variables are replaced."""
    beside = folder / written
    return beside if beside.exists() else folder / expanded(written)


def check_keys(place: Path | str, kind: str, given: Mapping[str, Any], known: Sequence[str]) -> None:
    for key in given:
        if key not in known:
            raise unknown(f"{kind} in {place}:", key, known)


def word(place: Path | str, values: Mapping[str, Any], key: str, form: re.Pattern[str] | None = None) -> str:
    value = values.get(key)
    if value is None:
        raise UserError(f'{place} lacks {key} - add {key} = "..."')
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{place}: {key} = {value!r} is not a text - write {key} = "..."')
    if form is not None and not form.fullmatch(value):
        raise UserError(
            f"{place}: {key} = '{value}' may hold only letters, digits and . _ + - (it becomes a file's name)"
        )
    return value


def _positive(place: str, values: Mapping[str, Any], key: str) -> float:
    value = values[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise UserError(f"{place}: {key} = {value!r} is not a positive number - correct it")
    return float(value)


def _switch(place: str, values: Mapping[str, Any], key: str) -> bool:
    value = values[key]
    if not isinstance(value, bool):
        raise UserError(f"{place}: {key} = {value!r} is neither true nor false - write {key} = true")
    return value
