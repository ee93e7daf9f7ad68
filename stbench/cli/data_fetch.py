"""``stbench data fetch``: bring a published dataset here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from .. import registry
from ..errors import Interrupted, UserError, unknown
from ..system.locate import new_data_root
from ..system.wording import counted, shortened
from .console import err, out
from .lists import slice_list
from .options import DataOption, SlicesOption

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ..dataset import Dataset
    from ..fetching.catalogue import Catalogue
    from ..fetching.fetch import Outcome

PASSWORD = "STBENCH_ARCHIVE_PASSWORD"
SHOWN = 40  # characters of a file's name beside the bar
EVERY_S = 30.0  # a line of progress where there is no terminal


def data_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="her2st, cscc or alex10x.")],
    origin: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL|DIR", help="A mirror, or a folder that has the files under the same paths."
        ),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Which publisher, where there are several; see --list.")] = None,
    data: DataOption = None,
    slices: SlicesOption = None,
    link: Annotated[bool, typer.Option("--link", help="Point at the files of --from DIR instead of copying.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Read again what is here, and compare checksums.")] = False,
    password: Annotated[
        list[str] | None,
        typer.Option(help=f"Of encrypted archives; several may be given ({PASSWORD}, with commas; else asked for)."),
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="Print files, sizes and addresses; fetch nothing.")] = False,
) -> None:
    """Fetch a published dataset: resumed where it broke off, verified, unpacked."""
    from ..fetching.encrypted import Passwords
    from ..fetching.fetch import Fetching, fetch

    known = _fetchable()
    if name not in known:
        raise unknown("published dataset", name, known, "your own slides need no fetching: see stbench data --help")
    wanted = slice_list(slices)
    if only_list:
        _print_list(known[name], _catalogue(known[name]), source, wanted)
        return
    if link and (origin is None or origin.startswith(("http://", "https://"))):
        raise UserError("--link points at files of a folder - give one with --from DIR")
    root = new_data_root(data)
    dataset = registry.dataset(name, root)
    given = [*(password or []), *filter(None, os.environ.get(PASSWORD, "").split(","))]
    try:
        with _Watching() as watch:
            passwords = Passwords(given, ask=watch.ask if sys.stdin.isatty() and err.is_terminal else None)
            asked = Fetching(dataset, _catalogue(dataset), root, watch, source, origin, wanted, link, verify, passwords)
            outcome = fetch(asked)
    except KeyboardInterrupt as stop:
        raise Interrupted("what has come is kept") from stop
    _print_outcome(dataset, outcome, root, wanted)


def _fetchable() -> dict[str, Dataset]:
    """Registered datasets that say where they are published."""
    opened = {name: registry.dataset(name) for name in registry.dataset_names()}
    return {name: dataset for name, dataset in opened.items() if getattr(dataset, "catalogue", None) is not None}


def _catalogue(dataset: Any) -> Catalogue:
    from ..fetching.catalogue import load

    return load(dataset.catalogue)


def _print_list(dataset: Dataset, catalogue: Catalogue, source: str | None, slices: list[str] | None) -> None:
    from ..fetching.catalogue import wanted_files
    from ..fetching.room import in_words

    chosen = catalogue.named(source)
    parts: dict[str, bool] = {}
    for file in wanted_files(chosen, dataset.slices, slices or dataset.slices):
        if not parts.setdefault(file.part.title, False):
            parts[file.part.title] = True
            out.print(Text(file.part.title, "bold"), soft_wrap=True)
            out.print(f"  {file.part.page}; licence: {file.part.licence}", soft_wrap=True)
        record = f"stated by {file.part.record} when fetched" if file.part.record else None
        size = in_words(file.bytes) if file.bytes is not None else record or "size not published"
        checksum = str(file.checksum) if file.checksum else record or "checksum not published"
        out.print(f"  {file.path}  {size if size == checksum else f'{size}, {checksum}'}  {file.url}", soft_wrap=True)
    others = [other.name for other in catalogue.source if other is not chosen]
    if others:
        out.print(f"other sources (--source): {', '.join(others)}", soft_wrap=True)
    _print_by_hand(catalogue.by_hand)


def _print_outcome(dataset: Dataset, outcome: Outcome, root: Path, slices: list[str] | None) -> None:
    words = []
    if outcome.n_fetched:
        words.append(f"{counted(outcome.n_fetched, 'file')} fetched and verified")
    if outcome.n_verified:
        words.append(f"{counted(outcome.n_verified, 'file')} here already, verified")
    if outcome.elsewhere:
        words.append(f"{counted(len(outcome.elsewhere), 'slice')} here already, in another layout")
    present, missing = dataset.find()
    n_expected = len(dataset.slices)
    out.print(
        f"{dataset.title}: {', '.join(words) or 'nothing fetched'}; {len(present)}/{n_expected} slices in {root}",
        soft_wrap=True,
    )
    for gap in [gap for gap in missing if slices is None or gap.id in slices][:3]:
        out.print(f"missing {gap.id}: {gap.reason}", soft_wrap=True)
    _print_by_hand(outcome.by_hand)
    if outcome.lacking:
        shown = shortened(outcome.lacking, 3)
        raise UserError(
            f"the folder lacks {counted(len(outcome.lacking), 'file')} ({shown}) - complete it, or fetch the rest "
            "without --from"
        )
    place = "" if os.environ.get("STBENCH_DATA") or root == new_data_root(None, make=False) else f" --data {root}"
    out.print(f"next: stbench data check {dataset.name}{place}", soft_wrap=True)


def _print_by_hand(hints: Any) -> None:
    for hint in hints:
        out.print(f"by hand: {hint.what}: {hint.page} - {hint.why}; put them at {hint.put}", soft_wrap=True)


class _Watching:
    """A bar on a terminal; elsewhere a line now and then."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._told = time.monotonic()

    def __enter__(self) -> _Watching:
        if err.is_terminal:
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            text = TextColumn("{task.description}", markup=False)
            self._bar = Progress(
                text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=err, transient=True
            )
            self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        err.print(text, soft_wrap=True)

    def at(self, path: str, done: int, total: int | None) -> None:
        if self._bar is not None:
            if path not in self._tasks:
                for task in self._tasks.values():
                    self._bar.remove_task(task)
                self._tasks = {path: self._bar.add_task(Path(path).name[-SHOWN:], total=total)}
            self._bar.update(self._tasks[path], completed=done, total=total)
        elif time.monotonic() - self._told > EVERY_S:
            self._told = time.monotonic()
            share = "" if not total else f" of {total:,} ({100 * done / total:.0f} %)"
            self.say(f"{path}: {done:,}{share} bytes")

    def ask(self, archive: str) -> str | None:
        if self._bar is not None:
            self._bar.stop()
        try:
            word: str = typer.prompt(
                f"password of {archive}", hide_input=True, default="", show_default=False, err=True
            )
        finally:
            if self._bar is not None:
                self._bar.start()
        return word or None
