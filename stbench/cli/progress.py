"""What is shown while trials run: a bar for all trials and one for each at work, or plain lines in a log."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from ..trials.state import TrialState


class ConsoleListener:
    """An engine's listener: counts states, prints each distinct note once, and a line for each trial that failed, was
    skipped or was interrupted; where there is no terminal for bars, also for each that finished.

    ``after_trial(key)`` is called at the end of each trial, so that results can be collected meanwhile.
    """

    def __init__(self, labels: Mapping[str, str], console: Console, after_trial: Callable[[str], None]) -> None:
        self.labels = labels
        self.console = console
        self.after_trial = after_trial
        self.states: Counter[str] = Counter()
        self._notes: set[str] = set()
        self._started: dict[str, float] = {}
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._trials = self._bars.add_task("trials", total=len(labels))
        self._at_work: dict[str, TaskID] = {}

    def __enter__(self) -> ConsoleListener:
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bars.stop()

    def started(self, key: str) -> None:
        self._started[key] = time.monotonic()
        self._at_work[key] = self._bars.add_task(self.labels[key], total=None)

    def progress(self, key: str, done: int, total: int, text: str) -> None:
        description = f"{self.labels[key]} {text}".rstrip()
        self._bars.update(self._at_work[key], description=description, completed=done, total=total)

    def again(self, key: str, reason: str) -> None:
        self._take_away(key)
        self.console.print(
            f"{self.labels[key]}: {reason}; it is tried once more", style="yellow", markup=False, highlight=False
        )

    def note(self, text: str) -> None:
        self.console.print(text, style="yellow", markup=False, highlight=False, soft_wrap=True)

    def _take_away(self, key: str) -> None:
        bar = self._at_work.pop(key, None)
        if bar is not None:
            self._bars.remove_task(bar)

    def ended(self, key: str, state: TrialState) -> None:
        self.states[state.state] += 1
        self._take_away(key)
        self._bars.advance(self._trials)
        alarms = [f"alarm, {self.labels[key]}: {alarm.text}" for alarm in state.alarms or []]
        for note in [*(state.notes or []), *alarms]:
            if note not in self._notes:
                self._notes.add(note)
                self.console.print(f"note: {note}", style="yellow", markup=False, highlight=False)
        began = self._started.get(key, time.monotonic())  # unseen where another process ran it, between two looks
        seconds = time.monotonic() - began if state.started is None else (state.ended or 0.0) - state.started
        if state.state != "finished":
            line = f"{self.labels[key]}: {state.state} - {state.reason}"
            self.console.print(
                line, style="red" if state.state == "failed" else "yellow", markup=False, highlight=False
            )
        elif not self.console.is_terminal:
            self.console.print(f"{self.labels[key]}: finished in {seconds:.1f} s", markup=False, highlight=False)
        self.after_trial(key)
