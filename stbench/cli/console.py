"""Where commands print: results to ``out``, progress and remarks to ``err``.

Neither interprets markup or emoji codes: a title, path, gene or reason is printed as it is. What is to be bold or
coloured is a ``rich.text.Text``, or is printed with a ``style``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from ..dataset import SlideSource

Result = TypeVar("Result")


class Remarks(Console):
    """A console that falls silent when its reader has gone: a closed terminal must not cost a trial."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


out = Console(highlight=False, markup=False, emoji=False)
err = Remarks(stderr=True, highlight=False, markup=False, emoji=False)


def with_bar(text: str, work: Callable[[Callable[[int, int, str], None]], Result]) -> Result:
    """Call ``work`` with a function of (done, total, name) that moves a bar on a terminal; return what it returns."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task(text, total=None)
        return work(
            lambda done, total, name: progress.update(task, completed=done, total=total, description=f"{text} {name}")
        )


def of_each(text: str, sources: Sequence[SlideSource], work: Callable[[SlideSource], Result]) -> dict[str, Result]:
    """What ``work`` returns for each slide, one after the other, while a bar moves."""

    def all_of(bar: Callable[[int, int, str], None]) -> dict[str, Result]:
        found = {}
        for number, source in enumerate(sources):
            bar(number, len(sources), source.id)
            found[source.id] = work(source)
        return found

    return with_bar(text, all_of)


def say_once(notes: Iterable[str]) -> None:
    """Print each distinct note once, on a line of its own."""
    for note in dict.fromkeys(notes):
        err.print(f"note: {note}", style="yellow", soft_wrap=True)
