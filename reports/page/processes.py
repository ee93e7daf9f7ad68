"""What a report consists of, made in several processes: its parts are independent, and drawing takes most of the time.

A helper is a process of :mod:`.helper`. It gets the sections once, then one call after the other, and ends when its
pipe does, so none outlives this process. It is no process of ``multiprocessing``, which would run the script of whoever
calls :func:`stbench.reports.report` once more.
"""

from __future__ import annotations

import logging
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from stbench.errors import UserError
from stbench.system.cores import usable_cores, usable_memory

from ..parts.part import Context
from ..sections.section import Section

Make = Callable[[Section, Context], Any]

MOST = 4  # the longest part takes a quarter of the time of all
MEMORY = 2**30  # bytes for each process, libraries included
ALONE = "draw in one: 'stbench report --processes 1'"
WORTH = 24  # trials: fewer are drawn before a second process has loaded its libraries


@dataclass(frozen=True)
class Reply:
    """What a helper answers to a call: what it returned or raised, and what it warned of and logged meanwhile."""

    value: Any
    error: BaseException | None
    warnings: Sequence[tuple[Warning | str, type[Warning], str, int]]
    records: Sequence[logging.LogRecord]


def fitting_processes(sections: Sequence[Section]) -> int:
    """How many processes are worth their start, and have a core and memory."""
    if sum(len(section.rows) for section in sections) < WORTH:
        return 1
    return max(1, min(MOST, usable_cores(), usable_memory() // MEMORY))


@contextmanager
def makers(
    sections: Sequence[Section], context: Context, processes: int
) -> Iterator[Callable[[Make, int], Future[Any]]]:
    """Within it, ``submit(make, place)`` lets ``make(sections[place], context)`` be called, in its turn.

    ``make`` is a function of a module. With one process it is called at once, in this one. What is made is the same,
    and so is what is raised, warned and logged; a note is told once, whoever logs it.
    """
    if processes == 1:
        yield lambda make, place: _made_here(make, sections[place], context)
        return
    shared = pickle.dumps((list(sections), context), pickle.HIGHEST_PROTOCOL)
    idle: SimpleQueue[_Helper] = SimpleQueue()
    helpers: list[_Helper] = []
    told: set[str] = set()
    futures: list[Future[Any]] = []

    def ask(make: Make, place: int) -> Any:
        helper = idle.get()
        try:
            return _retold(helper.ask(make, place), told)
        finally:
            idle.put(helper)

    def submit(make: Make, place: int) -> Future[Any]:
        futures.append(pool.submit(ask, make, place))
        return futures[-1]

    pool = ThreadPoolExecutor(processes, thread_name_prefix="report")
    try:
        for _ in range(processes):
            helpers.append(_Helper(shared))
            idle.put(helpers[-1])
        yield submit
    finally:
        for future in futures:
            future.cancel()
        for helper in helpers:
            helper.end()
        pool.shutdown()


def _made_here(make: Make, section: Section, context: Context) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(make(section, context))
    return future


class _Helper:
    """Such a process. Its session is its own: Ctrl-C reaches this process alone, which ends it."""

    def __init__(self, shared: bytes) -> None:
        command = [sys.executable, "-m", f"{__package__}.helper"]
        pipe = subprocess.PIPE
        try:
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
        except OSError as error:
            raise UserError(f"no process that draws can be started ({error}) - {ALONE}") from error
        self._shared = shared

    def ask(self, make: Make, place: int) -> Reply:
        requests, replies = self.process.stdin, self.process.stdout
        assert requests is not None
        assert replies is not None
        try:
            requests.write(self._shared)
            self._shared = b""
            pickle.dump((make, place), requests, pickle.HIGHEST_PROTOCOL)
            requests.flush()
            reply: Reply = pickle.load(replies)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
            raise UserError(
                f"a process that drew the report ended before its time (exit code {self.process.wait()}), perhaps for "
                f"want of memory - {ALONE}"
            ) from error
        return reply

    def end(self) -> None:
        """At once: whatever it still makes is not wanted."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()


def _retold(reply: Reply, told: set[str]) -> Any:
    for message, category, file, line in reply.warnings:
        warnings.warn_explicit(message, category, file, line)
    for record in reply.records:
        if record.getMessage() not in told:
            told.add(record.getMessage())
            logging.getLogger(record.name).handle(record)
    if reply.error is not None:
        raise reply.error
    return reply.value
