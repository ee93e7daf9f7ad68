"""Speed as a ratio: what a benchmark times is compared, in the same run, with the usual way of doing it."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture


@pytest.fixture
def times_as_fast(benchmark: BenchmarkFixture) -> Callable[[Callable[[], object], Callable[[], object]], float]:
    """``times_as_fast(ours, usual)``: how many times as fast ours is, median against median; kept in ``extra_info``."""

    def compare(ours: Callable[[], object], usual: Callable[[], object], rounds: int = 3) -> float:
        ours()  # the first call of either pays for what is set up once
        usual_seconds = []
        for _ in range(rounds):
            start = time.perf_counter()
            usual()
            usual_seconds.append(time.perf_counter() - start)
        benchmark.pedantic(ours, rounds=max(5, rounds), iterations=1)
        ratio = sorted(usual_seconds)[rounds // 2] / benchmark.stats.stats.median
        benchmark.extra_info["times_as_fast"] = round(ratio, 2)
        print(f"\n{benchmark.name}: {ratio:.1f} times as fast as the usual way")
        return ratio

    return compare
