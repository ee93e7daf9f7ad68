"""Keeping MLflow up to date while trials run, by a process of its own: no trial waits for it, or fails with it."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .recording import Announcements, mark

START_S = 20.0  # a run that is over by then is recorded at its end alone
AGAIN_S = 30.0  # between the death of a feeder and the next
END_S = 15.0  # that a feeder has to leave


@contextlib.contextmanager
def feeding(results: Path, wanted: bool) -> Iterator[Callable[[], bool]]:
    """While trials run, feed MLflow with those that ended and with the curves of those at work.

    Yields a function that says, afterwards, whether all of them were recorded.
    """
    if not wanted:
        yield lambda: False
        return
    feeder = _Feeder(results)
    feeder.start()
    try:
        yield lambda: feeder.has_all
    finally:
        feeder.stop()


class _Feeder(threading.Thread):
    """Starts ``stbench track --follow``, says what it has to say, and starts another where it dies."""

    def __init__(self, results: Path) -> None:
        super().__init__(name="mlflow", daemon=True)
        self.results = results
        self.announcements = Announcements(f"'stbench track {shlex.quote(str(results))}'")
        self.process: subprocess.Popen[bytes] | None = None
        self.has_all = False
        self._stopping = threading.Event()
        self._starting = threading.Lock()

    def run(self) -> None:
        pause = START_S
        while not self._stopping.wait(pause):
            pause = AGAIN_S
            try:
                death = self._feed()
            except OSError as error:  # of this machine: no room for a process, for a file
                death = f"the process that feeds MLflow cannot be started ({error})"
            if not self._stopping.is_set():
                self.announcements.hear(death, passes=True)

    def _feed(self) -> str:
        """Start the process, pass on what it reports, and return how it died."""
        mark(self.results)
        with tempfile.TemporaryFile() as words:
            replies, write_replies = os.pipe()
            with os.fdopen(replies, encoding="utf-8") as lines:
                try:
                    self._start(write_replies, words.fileno())
                finally:
                    os.close(write_replies)
                for line in lines:
                    report = json.loads(line)
                    self.has_all = report.pop("is_last") and not report["error"]
                    self.announcements.hear(**report)
            code = 0 if self.process is None else self.process.wait()
            words.seek(0)
            return _death(code, words.read().decode(errors="replace").strip().rpartition("\n")[2])

    def _start(self, replies: int, words: int) -> None:
        command = [sys.executable, "-m", "stbench.cli", "track", str(self.results), "--follow"]
        command += ["--replies", str(replies)]
        with self._starting:
            if self._stopping.is_set():
                return
            self.process = subprocess.Popen(
                command,
                pass_fds=(replies,),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=words,
                start_new_session=True,  # Ctrl-C reaches whoever runs the trials alone
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def stop(self) -> None:
        """Let the process feed what is there, and leave; end it where that takes too long."""
        with self._starting:
            self._stopping.set()
        process = self.process
        try:
            if process is not None and process.stdin is not None:
                with contextlib.suppress(OSError):
                    process.stdin.close()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(END_S)
        finally:
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self.join(END_S)


def _death(code: int, last_words: str) -> str:
    if code == -signal.SIGALRM:
        return "MLflow does not answer"
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return f"the process that feeds MLflow ended {how}{f': {last_words}' if last_words else ''}"
