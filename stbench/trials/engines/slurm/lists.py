"""Which trials a worker gets: lists that fit into its time, together with what they need of memory."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HOUR_S = 3600.0  # of expected work in a list, where trials are shorter than that and nothing shorter is asked for
LEAST_S = 120.0  # of expected work for which a further worker is started, as it has to load its libraries
FITS = 0.8  # share of a job's time that is planned for: estimates err
HEADROOM = 1.3  # of memory, over the expected peak
SMALLEST_CLASS = 4 * 2**30  # bytes


@dataclass(frozen=True)
class Job:
    """A trial as its worker sees it. ``memory_bytes``: at its peak; ``teacher``: the trial that must end before."""

    key: str
    seconds: float
    memory_bytes: int
    on_gpu: bool = False
    teacher: str = ""


@dataclass(frozen=True)
class ResourceClass:
    """What workers of one array ask for alike."""

    memory_bytes: int
    on_gpu: bool


def memory_class(peak_bytes: int) -> int:
    """The memory that is asked for: some headroom over the peak, then the next power of two.

    Examples
    --------
    >>> [memory_class(gib * 2**30) // 2**30 for gib in (1, 3, 7, 20)]
    [4, 4, 16, 32]
    """
    wanted = SMALLEST_CLASS
    while wanted < HEADROOM * peak_bytes:
        wanted *= 2
    return wanted


def plan_lists(
    jobs: Sequence[Job],
    seconds: float | None,
    at_a_time: int | None,
    alone: Iterable[str] = (),
    one_class: bool = False,
) -> dict[ResourceClass, list[list[str]]]:
    """Give out trials to workers: a list of keys for each, by what they ask for.

    Parameters
    ----------
    jobs : sequence of Job
        What is to run. A trial and those that reuse its model stand in one list, in that order.
    seconds : float, optional
        Time limit of a worker.
    at_a_time : int, optional
        Workers that may run at a time.
    alone : iterable of str
        Trials of which each gets a worker of its own: they may take others with them.
    one_class : bool
        Whether all ask for the same memory, whatever they need.

    Returns
    -------
    dict
        Classes from the most memory to the least, in each the longest lists first.
    """
    apart = set(alone)
    by_class: dict[ResourceClass, list[list[Job]]] = defaultdict(list)
    for unit in _units(jobs):
        peak = 0 if one_class else max(job.memory_bytes for job in unit)
        by_class[ResourceClass(memory_class(peak), any(job.on_gpu for job in unit))].append(unit)
    planned = {}
    for wanted in sorted(by_class, key=lambda each: (-each.memory_bytes, each.on_gpu)):
        units = by_class[wanted]
        single: list[list[Job]] = []
        shared: list[list[Job]] = []
        for unit in units:
            (shared if apart.isdisjoint(job.key for job in unit) else single).append(unit)
        planned[wanted] = [[job.key for job in unit] for unit in single] + _pack(shared, seconds, at_a_time)
    return planned


def _units(jobs: Sequence[Job]) -> list[list[Job]]:
    """What must stay together: a teacher in front of those that reuse its model."""
    here = {job.key: job for job in jobs}
    units: dict[str, list[Job]] = {}
    for job in jobs:
        if job.teacher not in here:
            units.setdefault(job.key, []).insert(0, job)
        else:
            units.setdefault(job.teacher, []).append(job)
    return list(units.values())


def _pack(units: Sequence[list[Job]], seconds: float | None, at_a_time: int | None) -> list[list[str]]:
    """Longest first, each to the worker that has the least to do."""
    if not units:
        return []
    lasting = {id(unit): sum(job.seconds for job in unit) for unit in units}
    total = sum(lasting.values())
    target = HOUR_S if seconds is None else min(HOUR_S, FITS * seconds)
    n_lists = max(1, -(-total // target))
    if at_a_time is not None:
        n_lists = max(n_lists, min(at_a_time, total // LEAST_S))
    n_lists = int(min(len(units), n_lists))
    loads: list[tuple[float, int]] = [(0.0, number) for number in range(n_lists)]
    lists: list[list[str]] = [[] for _ in range(n_lists)]
    for unit in sorted(units, key=lambda each: -lasting[id(each)]):
        load, number = heapq.heappop(loads)
        lists[number] += [job.key for job in unit]
        heapq.heappush(loads, (load + lasting[id(unit)], number))
    return lists


def shares(room: int, wanted: Mapping[ResourceClass, int]) -> dict[ResourceClass, int]:
    """How many of ``room`` workers at a time each class gets: one each as far as they go, the rest by their lists."""
    given = {each: 1 for each in list(wanted)[:room]}
    left = room - len(given)
    while left > 0:
        hungry = [each for each in given if given[each] < wanted[each]]
        if not hungry:
            break
        most = max(hungry, key=lambda each: wanted[each] / given[each])
        given[most] += 1
        left -= 1
    return given
