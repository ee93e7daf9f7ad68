"""A worker process as its engine sees it: started, given trials, heard, looked at, ended with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...system.gpus import VISIBLE
from ...system.process_family import family, resident_bytes
from ...system.sharing import SHARED_BY, workers_on_device

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Slot:
    """Where a worker runs: with how many threads, and on which GPU alone (``None``: on what its engine sees).

    ``sharing``: how many workers at a time have that GPU, this one among them; without one, the machine.
    """

    threads: int
    gpu: str | None = None
    sharing: int = 1


def slots_on(gpus: Sequence[str | None], threads: int) -> list[Slot]:
    """A slot on each of these; one that is named several times is shared."""
    return [Slot(threads, gpu, gpus.count(gpu)) for gpu in gpus]


class WorkerProcess:
    """Runs ``stbench worker`` in a session of its own, so that what the terminal sends reaches the engine alone.

    ``key``: the trial that it works on; ``since``: when it began to, on the engine's monotonic clock. What
    it prints goes to ``RESULTS/workers/TOKEN.log``; what it reports comes through a pipe that nothing else writes to.
    """

    def __init__(self, results: Path, slot: Slot) -> None:
        self.slot = slot
        self.token = secrets.token_hex(4)
        self.log = results / "workers" / f"{self.token}.log"
        self.log.parent.mkdir(exist_ok=True)
        self.key: str | None = None
        self.since = 0.0
        self.resident = 0  # bytes, at the last look
        self.ready = False
        self.stopping = False
        self.full = ""  # what it said of a GPU whose memory others have: its slot is not used again
        self._heard = b""
        read_requests, self._requests = os.pipe()
        self.replies, write_replies = os.pipe()
        os.set_blocking(self.replies, False)
        read_life, self._life = os.pipe()  # nothing is written to it: it ends with this process
        pipes = (read_requests, write_replies, read_life)
        command = [sys.executable, "-m", "stbench.cli", "worker", str(results)]
        command += ["--requests", str(read_requests), "--replies", str(write_replies), "--life", str(read_life)]
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, str(slot.threads))
        if slot.gpu is not None:
            environment[VISIBLE] = slot.gpu
        # the engine itself may have been started as one of several on a device
        environment[SHARED_BY] = str(slot.sharing * workers_on_device())
        try:
            with open(self.log, "wb") as log:
                self.process = subprocess.Popen(
                    command,
                    pass_fds=pipes,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env=environment,
                )
        finally:
            for pipe in pipes:
                os.close(pipe)

    @property
    def is_free(self) -> bool:
        return self.ready and self.key is None and not self.stopping

    def give(self, key: str) -> None:
        """Let it run a trial."""
        self.key, self.since = key, time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # it has died: seen, and the trial given to another, in a moment
            os.write(self._requests, json.dumps({"run": key}).encode() + b"\n")

    def leave(self) -> None:
        """Let it end as soon as it has nothing to do."""
        if self._requests >= 0:
            os.close(self._requests)
            self._requests = -1

    def ask_to_stop(self) -> None:
        """Let it save what it has, and end."""
        self.stopping = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)

    def hear(self) -> list[dict[str, Any]]:
        """What it reported since it was heard last."""
        while True:
            try:
                part = os.read(self.replies, 65536)
            except BlockingIOError:
                break
            if not part:
                break
            self._heard += part
        *lines, self._heard = self._heard.split(b"\n")
        return [json.loads(line) for line in lines]

    def has_ended(self) -> bool:
        """Whether the process is gone; it is not reaped yet, so its number stands for it alone."""
        if self.process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def end(self) -> int:
        """Kill whatever is left of it and its children; its exit code, negative for a signal."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.leave()
        if self.replies >= 0:
            os.close(self.replies)
            os.close(self._life)
            self.replies = -1
        with contextlib.suppress(OSError):
            if self.log.stat().st_size == 0:
                self.log.unlink()
        return int(self.process.returncode)

    def resident_bytes(self) -> int:
        """Of the process and its children together; it is kept as ``resident``."""
        self.resident = resident_bytes(family(self.process.pid))
        return self.resident

    def last_words(self) -> str:
        """The last line that it printed; empty where there is none."""
        with contextlib.suppress(OSError):
            lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            return lines[-1] if lines else ""
        return ""
