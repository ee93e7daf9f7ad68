"""Who a process is: told apart from every other one, on whatever machine and in whatever container.

A process number says nothing alone: numbers come again, containers count from 1, and hosts share names. The machine's
boot, the namespace of process numbers and the time of the start, which the kernel counts, tell processes apart.
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict

PROC = Path("/proc")


class Process(BaseModel):
    """A process of some machine. ``host`` is for people; nothing is judged by it."""

    model_config = ConfigDict(frozen=True)

    host: str
    boot: str  # identifies the machine's last start
    namespace: str  # of process numbers; empty where the system has none
    pid: int
    started: str  # in the machine's own count of time

    @classmethod
    def here(cls) -> Process:
        """This process."""
        pid = os.getpid()
        return cls(host=socket.gethostname(), boot=_boot(), namespace=_namespace(), pid=pid, started=_start(pid) or "")

    def is_alive(self) -> bool | None:
        """Whether it lives; ``None`` where that cannot be known from here.

        It cannot for a process of another machine or container, nor for one that is stopped: it may never go on.
        """
        if (self.boot, self.namespace) != (_boot(), _namespace()):
            return None
        if _start(self.pid) != self.started:
            return False
        state = _state(self.pid)
        if state in ("", "Z", "X"):
            return False
        return None if state in ("T", "t") else True

    def __str__(self) -> str:
        return f"process {self.pid} of {self.host}"


def _boot() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        import psutil

        return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def _namespace() -> str:
    try:
        return os.readlink(PROC / "self/ns/pid")
    except OSError:
        return ""


def _start(pid: int) -> str | None:
    """When a process began; ``None`` where there is none."""
    if sys.platform == "linux":
        fields = _stat(pid)
        return fields[19] if fields else None  # ticks since the boot: no clock that can be set
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.NoSuchProcess:
        return None


def _state(pid: int) -> str:
    """As ``ps`` has it: R, S, T, Z ...; empty where there is none."""
    if sys.platform == "linux":
        fields = _stat(pid)
        return fields[0] if fields else ""
    import psutil

    try:
        status = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return ""
    return {psutil.STATUS_ZOMBIE: "Z", psutil.STATUS_STOPPED: "T"}.get(status, "S")


def _stat(pid: int) -> list[str]:
    """Fields of ``/proc/PID/stat`` after the name, which may hold blanks and brackets."""
    try:
        text = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()
