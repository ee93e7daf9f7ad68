"""Processor cores and memory that this process may use, which are less than the machine has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
UNLIMITED = 2**60  # bytes; version 1 of control groups says "no limit" with a number near 2**63


def usable_cores() -> int:
    """Cores by affinity, by the quota of the control group, and by Slurm's allocation: the least of them."""
    limits = [len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1]
    limits += [quota for folder in _groups("cpu") if (quota := _quota(folder)) is not None]
    if os.environ.get("SLURM_CPUS_PER_TASK", "").isdigit():
        limits.append(int(os.environ["SLURM_CPUS_PER_TASK"]))
    return max(1, min(limits))


def usable_memory() -> int:
    """Bytes that are free now, within the limits of the control groups."""
    import psutil

    free = [int(psutil.virtual_memory().available)]
    for folder in _groups("memory"):
        limit = _memory_limit(folder)
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes")
        if limit is not None and used is not None:
            free.append(max(0, limit - used + _given_back(folder)))
    return min(free)


def memory_in_all() -> int:
    """Bytes that all processes here may have together: the machine's, within the limits of the control groups."""
    import psutil

    limits = [_memory_limit(folder) for folder in _groups("memory")]
    return min([int(psutil.virtual_memory().total), *(limit for limit in limits if limit is not None)])


def killed_for_memory() -> int | None:
    """How many processes of this control group the kernel killed since memory ran out; ``None`` where none counts."""
    for folder in _groups("memory"):
        for name in ("memory.events", "memory.oom_control"):  # of version 2 and 1
            try:
                lines = (folder / name).read_text(encoding="ascii").splitlines()
            except OSError:
                continue
            counts = dict(line.split() for line in lines if len(line.split()) == 2)
            if counts.get("oom_kill", "").isdigit():
                return int(counts["oom_kill"])
    return None


def _groups(controller: str) -> Iterator[Path]:
    """Folders of the control group of this process and of those around it, from the inside out.

    Within a container the group's own folder is the mount itself, whatever path the kernel names.
    """
    try:
        lines = OWN_GROUPS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        mount = CGROUP if controllers == "" else CGROUP / controller
        if controllers != "" and controller not in controllers.split(","):
            continue
        inside = mount / path.lstrip("/")
        if inside.is_dir():
            yield inside
            while inside not in (mount, CGROUP):
                inside = inside.parent
                yield inside
        else:
            yield mount
    if not lines:
        yield CGROUP


def _memory_limit(group: Path) -> int | None:
    limit = _number(group / "memory.max") or _number(group / "memory.limit_in_bytes")
    return None if limit is None or limit >= UNLIMITED else limit


def _given_back(group: Path) -> int:
    """Bytes of files that the kernel keeps in memory, counts as used, and drops as soon as anybody asks for more."""
    try:
        lines = (group / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counts = dict(line.split() for line in lines if len(line.split()) == 2)
    told = counts.get("total_inactive_file", counts.get("inactive_file", "0"))  # of version 1 and 2
    return int(told) if told.isdigit() else 0


def _quota(group: Path) -> int | None:
    """Whole cores of ``cpu.max`` (version 2), or of ``cpu.cfs_quota_us`` (1); None where there is no limit."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        granted, slice_of = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        return None if granted is None or not slice_of or granted < 0 else max(1, granted // slice_of)
    return None if quota == "max" else max(1, int(quota) // int(period))


def _number(path: Path) -> int | None:
    """``None`` where there is no such file, or it says ``max``."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
