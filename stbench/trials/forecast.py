"""What the trials of a run will take together, and the order in which they are best begun."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

from .cost import Cost, Costs
from .spec import TrialSpec


class Forecast:
    """Is shown the trials that are planned, then asked about some of them."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._cost: dict[str, Cost] = {}
        self._teacher: dict[str, str] = {}

    def see(self, spec: TrialSpec) -> None:
        """Take note of a trial."""
        self._cost[spec.key] = self._costs.of(spec)
        if spec.trained_by:
            self._teacher[spec.key] = spec.trained_by

    def cost(self, key: str) -> Cost:
        """What a trial will take that was seen."""
        return self._cost[key]

    def peak_bytes(self, keys: Iterable[str]) -> int:
        """Memory of the largest of ``keys``, of those that were seen; 0 where there is none."""
        return max((self._cost[key].memory_bytes for key in keys if key in self._cost), default=0)

    def longest_first(self, keys: Sequence[str]) -> list[str]:
        """``keys`` by descending expected time, so that no long trial is left for the end; equal ones stay in order.

        What a trial holds up, one that reuses its model, counts as a part of it. What was not seen comes last.
        """
        seconds = {key: self._cost[key].seconds if key in self._cost else 0.0 for key in keys}
        behind: dict[str, float] = {}
        for key in keys:
            teacher = self._teacher.get(key)
            if teacher is not None:
                behind[teacher] = max(behind.get(teacher, 0.0), seconds[key])
        return sorted(keys, key=lambda key: -(seconds[key] + behind.get(key, 0.0)))

    def seconds_on(self, slots: int, keys: Iterable[str]) -> float:
        """How long ``keys`` take, in this order, on as many slots: each goes to the slot that is free first."""
        free = [0.0] * slots
        for key in keys:
            heapq.heapreplace(free, free[0] + self._cost[key].seconds)
        return max(free)
