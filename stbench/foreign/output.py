"""What a command prints: every line into the trial's log, the last ones kept, and lines that speak to the harness.

A line that begins with one of these words is understood::

    stbench-progress 3/10 a text      3 of 10 steps are done
    stbench-log 3 loss=0.25 pcc=0.1   values of epoch 3, for the training history
    stbench-note a text               what whoever reads the numbers must know
    stbench-skip a text               why the fold gives it nothing to work with: the trial is skipped
"""

from __future__ import annotations

import logging
import re
from collections import deque

from ..method import Run

log = logging.getLogger("stbench")

KEPT = 12  # last lines
LONGEST = 2000  # characters of a line
MOST = 100_000  # lines of a command in the log
PROGRESS = re.compile(r"stbench-progress (\d+)/(\d+)(?: (.*))?")
LOGGED = re.compile(r"stbench-log (\d+)((?: [^\s=]+=\S+)+)")
TOLD = re.compile(r"stbench-(note|skip) (.+)")


class Output:
    """Takes a command's output in pieces. ``run``: who is told; ``None`` outside of training."""

    def __init__(self, what: str, run: Run | None) -> None:
        self.what = what
        self.run = run
        self.last: deque[str] = deque(maxlen=KEPT)
        self.skipped = ""  # why the fold gives it nothing to work with
        self._rest = b""
        self._count = 0

    def __call__(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            self._take(line)
        if len(self._rest) > 4 * LONGEST:  # a bar that is drawn over itself, or no text at all
            self._rest = self._rest.rpartition(b"\r")[2][-4 * LONGEST :]

    def close(self) -> None:
        """Take what came after the last end of a line."""
        if self._rest:
            self._take(self._rest)
        self._rest = b""

    def tail(self, lines: int = 4) -> str:
        """The last lines that are not empty, on one line; the end of it where they are long."""
        text = " | ".join([" ".join(line.split()) for line in self.last if line.strip()][-lines:])
        return text if len(text) <= 300 else f"... {text[-300:]}"

    def _take(self, raw: bytes) -> None:
        line = raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")[:LONGEST]
        if line.startswith("stbench-") and self._understood(line):
            return
        self.last.append(line)
        self._count += 1
        if self._count <= MOST:
            log.info("%s | %s", self.what, line)
        elif self._count == MOST + 1:
            log.info("%s | (further lines are not kept)", self.what)

    def _understood(self, line: str) -> bool:
        if found := PROGRESS.fullmatch(line):
            if self.run is not None:
                self.run.progress(int(found[1]), int(found[2]), found[3] or "")
            return True
        if found := TOLD.fullmatch(line):
            if found[1] == "skip":
                self.skipped = found[2]
            elif self.run is not None:
                self.run.note(found[2])
            else:
                log.warning("%s", found[2])
            return True
        if found := LOGGED.fullmatch(line):
            pairs = [pair.partition("=") for pair in found[2].split()]
            try:
                values = {name: float(value) for name, _, value in pairs}
            except ValueError:
                return self._not_understood(line)
            if self.run is not None:
                self.run.log(int(found[1]), **values)
            return True
        return self._not_understood(line)

    def _not_understood(self, line: str) -> bool:
        if self.run is not None:
            self.run.note(f"it printed a line for the harness that is none of docs/adding.md: {line[:100]}")
        return False
