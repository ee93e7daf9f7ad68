"""What a training step asks of a GPU, as it was counted: data beside the methods, by method, preset and size.

The counts are the file ``counted.json`` of the package that registers a method, or of a package above it, as
``benchmarks/roofline.py --update`` writes it (docs/adding.md). Each step is one of the optimiser, on a whole slide or
on a batch of spots, with the operations that it issues, their arithmetic and traffic, and the memory that it holds.
Operations are kept in as few kinds as lose nothing on any card of the table (:func:`stbench.trials.cards.alike`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import DamagedFileError, first_problem
from ..system.files import read_object
from .beside import beside
from .cards import Card, Operations
from .cost_table import PUBLISHED

FILE = "counted.json"
STEPS_OF_DATA = 2  # whose patches are on the device while a step is counted


class CountedStep(BaseModel):
    """A step of the optimiser under one preset. A line of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str
    preset: str
    batching: Literal["spots", "slides"]  # whether n_spots are a batch, or a slide
    n_spots: int = Field(ge=1)
    n_genes: int = Field(ge=1)
    input_px: int = Field(ge=1)  # side of the image of a spot that the network sees
    checkpointing: bool = False  # whether activations are computed again in the backward pass
    accumulate: int = Field(ge=1)  # batches, or slides, that a step of the optimiser learns from
    operations: int
    flops: int
    n_bytes: int  # moved
    peak_bytes: int  # held at a time: weights, gradients, the optimiser's state, activations, and the data of two steps
    kinds: tuple[Operations, ...]

    @property
    def own_bytes(self) -> int:
        """Held beside the data that are learnt from."""
        data = spot_bytes(self.input_px, self.n_genes)
        return self.peak_bytes - STEPS_OF_DATA * self.accumulate * self.n_spots * data


def spot_bytes(input_px: int, n_genes: int) -> int:
    """What a training spot takes of a GPU while a method learns: its patch, and its target and counts."""
    return 3 * input_px**2 + n_genes * (4 + 4)


class Counted:
    """What steps of a method under one preset take, at any size: between those that were counted, on a line.

    Above the largest size cost goes on as a quadratic function, as attention over all spots of a slide does. What more
    or fewer genes cost was counted at some sizes, and is linear between and beyond them; no method is said to take less
    than with the fewest that were counted.

    Parameters
    ----------
    steps : sequence of CountedStep
        Of one method, preset and kind: two sizes or more with the same number of genes, and any with others.
    """

    def __init__(self, steps: Sequence[CountedStep]) -> None:
        self.batching, self.accumulate, self.input_px = steps[0].batching, steps[0].accumulate, steps[0].input_px
        self.typical_spots = steps[0].n_spots
        by_genes: dict[int, dict[int, CountedStep]] = defaultdict(dict)
        for step in sorted(steps, key=lambda each: each.n_spots):
            by_genes[step.n_genes][step.n_spots] = step
        self.genes = max(by_genes, key=lambda n_genes: len(by_genes[n_genes]))
        self._steps = by_genes.pop(self.genes)
        self._others = by_genes
        self._known: dict[tuple[Card, int, int, bool], float] = {}

    def step_s(self, card: Card, n_spots: int, n_genes: int, tf32_products: bool = False) -> float:
        """Seconds of a step of the optimiser, of so many spots in each of its batches."""
        question = card, n_spots, n_genes, tf32_products
        if question not in self._known:
            self._known[question] = self._at(n_spots, n_genes, lambda step: card.step_s(step.kinds, tf32_products))
        return self._known[question]

    def peak_bytes(self, n_spots: int, n_genes: int) -> int:
        """Memory of a step, beside the data that are learnt from and what CUDA itself takes."""
        return int(self._at(n_spots, n_genes, lambda step: float(step.own_bytes)))

    def _at(self, n_spots: int, n_genes: int, value: Callable[[CountedStep], float]) -> float:
        """No less than of fewer spots, which lines through counts of other genes may cross by a little."""
        smaller = [size for size in (1, *self._steps) if size < n_spots]
        return max(self._between(size, n_genes, value) for size in (*smaller, n_spots))

    def _between(self, n_spots: int, n_genes: int, value: Callable[[CountedStep], float]) -> float:
        base = along([(size, value(step)) for size, step in self._steps.items()], n_spots)
        more = {self.genes: 0.0}  # than with as many genes as most sizes were counted with
        for genes, steps in self._others.items():
            sizes = [size for size in steps if size in self._steps]
            found = line([(size, value(steps[size]) - value(self._steps[size])) for size in sizes], n_spots)
            more[genes] = max(found, 0.0) if genes > self.genes else min(found, 0.0)
        return base + line(sorted(more.items()), max(n_genes, min(more)))


def line(points: Sequence[tuple[int, float]], x: float) -> float:
    """The value at ``x`` on the lines through ``points``, the first and the last of which go on."""
    if len(points) == 1:
        return points[0][1]
    place = next((i for i, (size, _) in enumerate(points[1:]) if x <= size), len(points) - 2)
    (left, low), (right, high) = points[place], points[place + 1]
    return low + (high - low) * (x - left) / (right - left)


def along(points: Sequence[tuple[int, float]], x: float) -> float:
    """The value at ``x`` of what is known at ``points``, which ascend in both.

    Below the first as the first line goes, but in proportion at least; above the last as a quadratic function, if the
    last lines steepen, else as the last line.
    """
    (first, low), last = points[0], points[-1][0]
    if len(points) == 1 or x < first:
        return max(line(points, x), low * x / first)
    bend = 0.0
    if x > last and len(points) > 2:
        slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in pairwise(points[-3:])]
        bend = max(0.0, (slopes[1] - slopes[0]) / (last - points[-3][0]))
    return line(points, x) + bend * (x - points[-2][0]) * (x - last)


@cache
def counted(name: str, preset: str, checkpointing: bool = False) -> Counted | None:
    """The counts of a method and preset: its own, else the method's ``published``; ``None`` where there are none.

    ``checkpointing``: of steps that compute activations again in the backward pass.
    """
    kinds = _kinds(name)
    return kinds.get((preset, checkpointing)) or kinds.get((PUBLISHED, checkpointing))


def counted_memory(name: str, preset: str, n_spots: int, n_genes: int) -> int | None:
    """Bytes of a GPU that a training step holds at its peak, of a slide, or a batch, of so many spots.

    Beside the data that are learnt from and what CUDA itself takes. ``None`` where no step of the method was counted.
    """
    found = counted(name, preset)
    return None if found is None else found.peak_bytes(n_spots, n_genes)


@cache
def _kinds(name: str) -> dict[tuple[str, bool], Counted]:
    """Counts of a method by preset and checkpointing."""
    path = beside(name, FILE)
    steps: dict[tuple[str, bool], list[CountedStep]] = defaultdict(list)
    for step in () if path is None else _steps_at(path):
        if step.method == name:
            steps[step.preset, step.checkpointing].append(step)
    return {kind: Counted(found) for kind, found in steps.items()}


def read_steps(path: Path) -> tuple[CountedStep, ...]:
    """All steps of a file of counts. Raises ``DamagedFileError`` if it is none."""
    try:
        rows: list[object] = read_object(path)["steps"]
        return tuple(map(CountedStep.model_validate, rows))
    except ValidationError as error:
        raise DamagedFileError(f"{path}: {first_problem(error)} - benchmarks/roofline.py --update writes it") from error
    except (KeyError, TypeError) as error:
        raise DamagedFileError(f"{path} holds no steps - benchmarks/roofline.py --update writes it") from error


_steps_at = cache(read_steps)  # of what is installed, and stays as it is
