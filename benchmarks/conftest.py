"""Speed as a ratio: what a benchmark times is compared, in the same run, with the usual way of doing it."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

import stbench  # noqa: F401 - before torch, which reads then how its threads are to wait

# isort: split

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """``tell(line)``: have a line of the measured printed at the end of the run."""
    return request.config.stash.setdefault(MEASURED, []).append


@pytest.fixture
def times_as_fast(
    benchmark: BenchmarkFixture, tell: Callable[[str], None]
) -> Callable[[Callable[[], object], Callable[[], object]], float]:
    """``times_as_fast(ours, usual)``: how many times as fast ours is; kept in ``extra_info`` and told at the end.

    The two take turns, and fastest is compared with fastest: what else a machine does makes a time longer, never
    shorter. The ratio of processor seconds, which other processes hardly touch, is told beside it; those of child
    processes count.
    """

    def compare(ours: Callable[[], object], usual: Callable[[], object], rounds: int = 5) -> float:
        our_seconds: list[tuple[float, float]] = []
        usual_seconds: list[tuple[float, float]] = []
        ours()  # the first call of either pays for what is set up once
        usual()
        benchmark.pedantic(
            lambda: _time(ours, our_seconds), setup=lambda: _time(usual, usual_seconds), rounds=rounds, iterations=1
        )
        wall, processor = (
            min(theirs) / min(own)
            for theirs, own in zip(zip(*usual_seconds, strict=True), zip(*our_seconds, strict=True), strict=True)
        )
        benchmark.extra_info.update(times_as_fast=round(wall, 2), in_processor_seconds=round(processor, 2))
        tell(f"{wall:8.2f} times as fast as the usual way, {processor:.2f} in processor seconds: {benchmark.name}")
        return wall

    return compare


def _time(work: Callable[[], object], seconds: list[tuple[float, float]]) -> None:
    """Append the wall-clock and processor seconds of one call."""
    wall, processor = time.perf_counter(), _processor_seconds()
    work()
    seconds.append((time.perf_counter() - wall, _processor_seconds() - processor))


def _processor_seconds() -> float:
    """Of this process and of the child processes that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    lines = config.stash.get(MEASURED, [])
    if lines:
        terminalreporter.section("measured")
        for line in lines:
            terminalreporter.write_line(line)
