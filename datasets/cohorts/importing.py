"""Sections become part of a cohort: all are read and checked first, then written in one step, all of them or none."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stbench.data.inventory import CheckReport, check_dataset
from stbench.errors import UserError
from stbench.system.files import flush

from ..own_dataset import OwnDataset
from .cohort import Cohort, Entry
from .copies import copied
from .section import Section, SectionsError

COPIES = "slides"  # the folder of a cohort that copies are kept in


@dataclass(frozen=True)
class Imported:
    """What came of an import."""

    manifest: Path
    report: CheckReport  # of the sections that were imported, in their order
    n_slides: int  # that the cohort has now
    replaced: tuple[str, ...]  # slices


def import_sections(
    cohort: Cohort,
    sections: Sequence[Section],
    *,
    replace: bool = False,
    copy: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Imported:
    """Add ``sections`` to a cohort, which is made if there is none of its name.

    Every section is read once and checked; if one is unsound, nothing is written. Raises ``SectionsError`` with every
    fault, and ``UserError`` for a cohort or a place that cannot be used.
    """
    cohort.require_usable()
    before = cohort.entries()
    _require_distinct(sections, before, replace)
    if not replace:
        cohort.require_new([section.entry for section in sections])
    with contextlib.ExitStack() as stack:
        entries = stack.enter_context(_copies(cohort, sections)) if copy else [section.entry for section in sections]
        dataset = OwnDataset(cohort.name, cohort.name, cohort.chosen_patch_px(), None, entries, cohort.manifest)
        report = check_dataset(dataset, on_progress=on_progress)
        _refuse_unsound(report, sections)
        if copy:
            entries = stack.enter_context(_placed(cohort, entries))
        n_slides = cohort.add(entries, replace)
    new = {entry["id"] for entry in entries}
    replaced = [entry for entry in before if entry["id"] in new]
    _remove_copies(cohort, replaced)
    return Imported(cohort.manifest, report, n_slides, tuple(entry["id"] for entry in replaced))


def _require_distinct(sections: Sequence[Section], before: Sequence[Entry], replace: bool) -> None:
    """Refuse two sections of one name, and one section under two names: it would be trained on and tested on."""
    named: dict[str, str] = {}
    contents = {_content(entry): f"{entry['id']} of the cohort" for entry in before}
    lines = []
    for section in sections:
        name = section.entry["id"]
        where = f"{section.place}: " if section.place else ""
        if name in named:
            lines.append(f"{where}the slice {name} stands in {named[name]} too - give each section a name of its own")
        same = contents.get(_content(section.entry))
        if same is not None and same != f"{name} of the cohort":
            lines.append(f"{where}{name} is read from the same files as {same} - import each section once")
        named.setdefault(name, section.place)
        contents.setdefault(_content(section.entry), section.place)
    _refuse(lines, sections)


def _content(entry: Entry) -> tuple[tuple[str, Any], ...]:
    """What a slide is read from, whatever it is called."""
    return tuple(
        sorted(
            (key, str(value.resolve()) if isinstance(value, Path) else value)
            for key, value in entry.items()
            if key not in ("id", "patient")
        )
    )


def _refuse_unsound(report: CheckReport, sections: Sequence[Section]) -> None:
    lines = []
    for check, section in zip(report.slices, sections, strict=True):
        where = f"{section.place} ({check.id})" if section.place else f"slice {check.id}"
        lines += [f"{where}: {text.removeprefix(f'slice {check.id}: ')}" for text in check.errors]
    lines += [problem.text for problem in report.problems if problem.severity == "error"]
    _refuse(lines, sections)


def _refuse(lines: list[str], sections: Sequence[Section]) -> None:
    if lines:
        raise bad_sections(lines, len(sections))


def bad_sections(lines: list[str], n_sections: int) -> UserError:
    """One error for all faults of an import, which has written nothing: of one section that has one, the fault."""
    if len(lines) == 1 and n_sections == 1:
        return UserError(lines[0])
    faults = "a fault" if len(lines) == 1 else f"{len(lines)} faults"
    which = "the section" if n_sections == 1 else f"the {n_sections} sections"
    return SectionsError(f"{faults} in {which}, see above: nothing was imported - correct and import again", lines)


@contextlib.contextmanager
def _copies(cohort: Cohort, sections: Sequence[Section]) -> Iterator[list[dict[str, Any]]]:
    """The entries of copies, which lie in a folder of their own until they are placed."""
    made = not cohort.home.exists()
    stage = cohort.home / f".{COPIES}-{secrets.token_hex(4)}"
    try:
        yield [copied(section.entry, stage / section.entry["id"]) for section in sections]
    finally:
        shutil.rmtree(stage, ignore_errors=True)
        if made:
            with contextlib.suppress(OSError):  # not empty: the import succeeded
                cohort.home.rmdir()


@contextlib.contextmanager
def _placed(cohort: Cohort, entries: Sequence[Entry]) -> Iterator[list[dict[str, Any]]]:
    """``entries`` with their copies where they stay, under names of their own: those they replace are still in use.

    They are removed again where what comes next fails.
    """
    placed: list[dict[str, Any]] = []
    (cohort.home / COPIES).mkdir(exist_ok=True)
    try:
        for entry in entries:
            paths = {key: value for key, value in entry.items() if isinstance(value, Path)}
            staged = next(iter(paths.values())).parents[1]  # staged/KEY/NAME
            home = cohort.home / COPIES / f"{entry['id']}-{secrets.token_hex(4)}"
            flush(staged)
            staged.rename(home)
            placed.append({**entry, **{key: home / value.relative_to(staged) for key, value in paths.items()}})
        yield placed
    except BaseException:
        _remove_copies(cohort, placed)
        with contextlib.suppress(OSError):  # not empty: there are other slides
            (cohort.home / COPIES).rmdir()
        raise


def _remove_copies(cohort: Cohort, entries: Sequence[Entry]) -> None:
    """Remove the copies of slides that the manifest does not have, or not any more."""
    copies = cohort.home / COPIES
    for entry in entries:
        for value in entry.values():
            if isinstance(value, Path) and value.is_relative_to(copies):
                shutil.rmtree(copies / value.relative_to(copies).parts[0], ignore_errors=True)
