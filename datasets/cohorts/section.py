"""A section as a user names it, on the command line or in a row of a table: its format found, its texts made values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stbench.errors import UserError, unknown
from stbench.system.locate import NAME
from stbench.system.user_paths import unset_variables
from stbench.system.wording import shortened

from ..entries import path_in
from ..readers.reader import ALWAYS, Reader
from ..readers.table import READERS, recognised

UNTELLING = ("outs", "out", "output", "spatial", "data")  # folders whose name is that of every section's
LOOKED_INTO = 100  # folders below one that is no section itself
SWITCH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class Section:
    """One section to be imported.

    ``entry`` is as a manifest's that has been checked: ``id``, ``patient``, ``reader`` and the reader's keys, with
    absolute paths. ``why`` says in words how its format was found.
    """

    place: str  # "cohort.csv, row 3"; empty on the command line
    entry: Mapping[str, Any]
    why: str


@dataclass(frozen=True)
class Fault:
    """What is wrong with what was written for ``key``, and what to do."""

    key: str
    text: str


class SectionsError(UserError):
    """Sections that cannot be imported; ``lines`` has one for each fault."""

    def __init__(self, message: str, lines: list[str]) -> None:
        super().__init__(message)
        self.lines = lines


def section(place: str, base: Path, given: Mapping[str, str]) -> tuple[Section | None, list[Fault]]:
    """The section that ``given`` describes, or every fault of it.

    ``given`` holds texts: ``path``, ``patient``, perhaps ``slice`` and ``reader``, and keys of the reader. Relative
    paths are below ``base``. Files are looked for, and a few bytes of them read.
    """
    faults: list[Fault] = []
    source = _existing(base, "path", given.get("path", ""), faults)
    reader, why = (None, "") if source is None else _reader(source, given.get("reader", ""), faults)
    several = reader.several(source) if reader is not None and source is not None else ()
    if several and given.get("slice") not in several:
        which = f"one of its slices ({shortened(several, 6)})"
        named = f"{given['slice']!r} is not {which}" if given.get("slice") else f"is missing: name {which}"
        return None, [*faults, Fault("slice", named)]
    if given.get("slice"):
        slice_id = _name("slice", given["slice"], faults)
    else:
        slice_id = None if source is None else _usual_name(source, given)
        if slice_id == "":
            faults.append(Fault("slice", f"no name can be made of {source.name if source else ''} - name the slice"))
    known = given.get("patient", "")
    if not known and reader is not None and source is not None and slice_id:
        known = reader.patient_of(source, slice_id) or ""
    patient = _name("patient", known, faults)
    if reader is None or source is None:
        return None, faults
    entry: dict[str, Any] = {"id": slice_id, "patient": patient, "reader": reader.name, reader.source: source}
    for key, text in given.items():
        if key not in ("path", "slice", "patient", "reader") and text != "":
            entry[key] = _value(reader, key, text, base, faults)
    for key in reader.other_paths:
        if not given.get(key):
            faults.append(Fault(key, f"is missing: {reader.what} needs {', '.join(reader.other_paths)} beside it"))
    if not faults:
        faults += _objections(reader, {key: entry[key] for key in entry if key not in ("id", "patient", "reader")})
    return (None if faults else Section(place, entry, why)), faults


def _objections(reader: Reader, values: dict[str, Any]) -> list[Fault]:
    try:
        objection = reader.refuses(values)
    except UserError as error:
        objection = str(error)
    return [] if objection is None else [Fault("path", objection)]


def _reader(source: Path, name: str, faults: list[Fault]) -> tuple[Reader | None, str]:
    try:
        if name:
            if name not in READERS:
                raise unknown("reader", name, READERS)
            return READERS[name], "as it was named"
        found = recognised(source)
    except UserError as error:
        faults.append(Fault("reader" if name else "path", str(error)))
        return None, ""
    if found is not None:
        return found
    near = _recognised_inside(source)
    if near:
        meant = f"did you mean {near[0]}?" if len(near) == 1 else f"name one of {shortened(near, 3)}"
        faults.append(Fault("path", f"{source} is of no format that is read, but holds sections of one - {meant}"))
        return None, ""
    if source.is_dir():  # it knows what such folders lack, and where near by the right one is
        return READERS["space-ranger"], "as no other format is a folder like this"
    known = "; ".join(reader.what for reader in READERS.values())
    known += "; or a table of sections, whose first line names a column 'path'"
    faults.append(Fault("path", f"{source} is of no format that is read ({known})"))
    return None, ""


def _recognised_inside(source: Path) -> list[str]:
    """Folders just below that are sections of formats whose readers are not asked for a folder that none recognises."""
    try:
        inside = sorted(path for path in source.iterdir() if path.is_dir()) if source.is_dir() else []
    except OSError:
        return []
    found = {path: recognised(path) for path in inside[:LOOKED_INTO]}
    return [str(path) for path, known in found.items() if known is not None and known[0].name != "space-ranger"]


def _existing(base: Path, key: str, text: str, faults: list[Fault]) -> Path | None:
    """A path as it was written, absolute, if something is there."""
    if not text:
        faults.append(Fault(key, "is missing - give the path of the section"))
        return None
    try:
        path = _absolute(base, text)
        if path.exists():
            return path
        faults.append(Fault(key, f"{path} does not exist{unset_variables(path)} - correct it"))
    except (OSError, ValueError) as error:  # too long a name, a zero byte
        faults.append(Fault(key, f"{text[:80]!r} is not a path ({error}) - correct it"))
    return None


def _absolute(base: Path, text: str) -> Path:
    if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):
        raise ValueError("its name is not UTF-8")
    return path_in(base, text).absolute()


def _value(reader: Reader, key: str, text: str, base: Path, faults: list[Fault]) -> Any:
    if key in reader.paths:
        return _existing(base, key, text, faults)
    if key in (*reader.numbers, *ALWAYS):
        return _number(key, text, faults)
    if key in reader.words:
        return text
    if key in reader.switches:
        if text.lower() not in SWITCH:
            faults.append(Fault(key, f"{text[:40]!r} is neither true nor false"))
        return SWITCH.get(text.lower())
    faults.append(Fault(key, str(unknown(f"key for the reader {reader.name}:", key, reader.keys))))
    return None


def _number(key: str, text: str, faults: list[Fault]) -> float | None:
    try:
        number = float(text)
    except ValueError:
        comma = ": write a point for the decimal comma" if re.fullmatch(r"\d+,\d+", text) else ""
        faults.append(Fault(key, f"{text[:40]!r} is not a number{comma}"))
        return None
    if not 0 < number < float("inf"):
        faults.append(Fault(key, f"{text[:40]} is not a positive number"))
    return number


def _name(key: str, text: str, faults: list[Fault]) -> str | None:
    if not text:
        faults.append(Fault(key, f"is missing - name the {key}"))
    elif not NAME.fullmatch(text):
        faults.append(Fault(key, f"{text[:60]!r} may hold only letters, digits and . _ + - (it becomes a file's name)"))
    else:
        return text
    return None


def _usual_name(source: Path, given: Mapping[str, str]) -> str:
    """A slice's name out of its path: that of the file or folder, or of the next folder whose name says something."""
    resolved = source.resolve()
    place = next((path for path in (resolved, *resolved.parents) if path.name.lower() not in UNTELLING), resolved)
    stem = place.name.removesuffix(".zarr") if place.is_dir() else place.name.split(".")[0]
    library = given.get("library", "")
    name = given.get("prefix") or (f"{stem}-{library}" if library else stem)
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-").lstrip("._+-")
