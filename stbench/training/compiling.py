"""How training steps are computed: as the method has them, compiled, or by whichever is measured to be faster.

Compiled are the forward and backward of training steps alone. Validation and prediction call a network a few times,
which would not pay for compiling it once more in evaluation mode; and a saved model needs no compiler. Random numbers
are drawn as without compiling, so the numbers of a training differ by rounding.

The measurement costs no step and repeats none: blocks of ordinary steps are timed, as they are and compiled, each after
a block that pays for what is set up once. The device is waited for at both ends of a block, and not within it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError, text_of
from ..system.isolation import process_kept
from ..system.process_state import MOVED_BY_COMPILING
from .compile_record import CompileRecord, worth_keeping, worth_trying
from .device import generator_states, restore_generators

BACKEND = "inductor"
OPTIONS: dict[str, Any] = {"fallback_random": True}  # of it: dropout draws the masks that it draws uncompiled
COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")  # whose exceptions say that they failed
BLOCK_STEPS = 50
LONGEST_PROBLEM = 240  # characters

Losses = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """Where a training stands between two of its optimiser steps."""

    step: int  # that are done in the epoch
    steps: int  # in an epoch
    left: int  # to the end of the training


class Steps:
    """Training steps as the method has them."""

    is_timing = False  # then what takes time beside the steps had better wait

    def __init__(self, record: CompileRecord | None = None) -> None:
        self._record = record

    @property
    def record(self) -> CompileRecord | None:
        """What is known so far; ``None`` where compiling was not asked for."""
        return self._record

    def between(self, place: Place) -> None:
        """Told at the beginning of an epoch and after each optimiser step."""

    def gradients(self, learn: Callable[[], Losses], n_spots: int, generator: torch.Generator) -> Losses:
        """The losses of a batch of so many spots; ``learn`` computes them and adds the gradients.

        ``generator``: that ``learn`` draws from, beside torch's global ones.
        """
        return learn()

    def to_dict(self) -> dict[str, Any] | None:
        """What a checkpoint keeps."""
        return None

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        """Go on from what a checkpoint kept."""


class CompiledSteps(Steps):
    """Training steps whose network is compiled. ``UserError`` where it cannot be.

    Parameters
    ----------
    network : torch.nn.Module
        On ``device``.
    device : torch.device
        Is waited for before the clock is read.
    name : str
        Of the method.
    backend : str or callable
        Of ``torch.compile``.
    clock : callable
        Seconds.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        name: str,
        backend: str | Callable[..., Any] = BACKEND,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(CompileRecord(choice="compiled", why="asked"))
        self.network, self.device, self.name, self.clock = network, device, name, clock
        self.sizes: set[int] = set()  # of batches, in spots, that went through the compiled network
        self.compile_s = 0.0  # of the first batch of each size
        torch.compiler.reset()  # so that what earlier trainings compiled does not count towards torch's limit
        options = OPTIONS if backend == BACKEND else None
        with (
            self._failing_in_words(Exception),
            process_kept(watched_state=MOVED_BY_COMPILING),
        ):  # torch has no compiler for every Python
            self._forward: Callable[..., Any] = torch.compile(network.forward, backend=backend, options=options)

    @property
    def record(self) -> CompileRecord | None:
        compile_s = self.compile_s if self.sizes else None
        return None if self._record is None else self._record.model_copy(update={"compile_s": compile_s})

    def gradients(self, learn: Callable[[], Losses], n_spots: int, generator: torch.Generator) -> Losses:
        with self._failing_in_words(), self._in_place():
            if n_spots in self.sizes:
                return learn()
            started = now(self.device, self.clock)
            with process_kept(watched_state=MOVED_BY_COMPILING):  # or the method would be said to have moved it
                losses = learn()
            self.compile_s += now(self.device, self.clock) - started
            self.sizes.add(n_spots)
            return losses

    @contextmanager
    def _in_place(self) -> Iterator[None]:
        """The compiled forward stands in the place of the network's own."""
        attributes = vars(self.network)
        own = {"forward": attributes["forward"]} if "forward" in attributes else {}  # its class has it, as a rule
        attributes["forward"] = self._forward
        try:
            yield
        finally:
            del attributes["forward"]
            attributes.update(own)

    @contextmanager
    def _failing_in_words(self, kind: type[Exception] | None = None) -> Iterator[None]:
        """``UserError`` for exceptions of a compiler's, or of ``kind``."""
        try:
            yield
        except Exception as error:
            if not isinstance(error, kind or ()) and not _is_of_a_compiler(error):
                raise
            raise UserError(
                f"the network of {self.name} cannot be compiled ({problem_of(error)}) - leave that out "
                f"(--set {self.name}.compile=false), or mend it, for example by installing a C++ compiler"
            ) from error


class MeasuredSteps(Steps):
    """Training steps that are compiled where a measurement, in the first of them, shows that it pays.

    Where compiling fails the training goes on without it, from the very batch at which it failed; the record and a note
    say so. A training that goes on from a checkpoint keeps what was decided, on a device of the same name, and measures
    where nothing was decided yet.

    Parameters
    ----------
    network, device, name, backend, clock
        As of :class:`CompiledSteps`.
    note : callable
        Is told, in words, that compiling failed.
    whole_slides : bool
        Whether a batch is a slide, of a size of its own: then a block is an epoch, in which each slide comes once.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        name: str,
        note: Callable[[str], object],
        whole_slides: bool,
        backend: str | Callable[..., Any] = BACKEND,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(CompileRecord(choice="eager", why="too_short"))  # until more is known
        self.network, self.device, self.name, self.note, self.clock = network, device, name, note, clock
        self.whole_slides, self.backend = whole_slides, backend
        self.device_name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
        self._compiled: CompiledSteps | None = None  # in force, where there is one
        self._is_warm = False  # from then on nothing is compiled but for another size of batch
        self._measurement: Generator[None, Place, None] | None = self._measure()
        next(self._measurement)

    @property
    def record(self) -> CompileRecord | None:
        compiled, record = self._compiled, self._record
        if compiled is None or record is None:
            return record
        spent = (record.compile_s or 0.0) + compiled.compile_s  # an earlier attempt's, too
        return record.model_copy(update={"choice": "compiled", "compile_s": spent})

    def between(self, place: Place) -> None:
        if self._measurement is not None:
            try:
                self._measurement.send(place)
            except StopIteration:
                self._measurement = None

    def gradients(self, learn: Callable[[], Losses], n_spots: int, generator: torch.Generator) -> Losses:
        compiled = self._compiled
        if compiled is None:
            return learn()
        if self._is_warm and n_spots in compiled.sizes:
            return compiled.gradients(learn, n_spots, generator)
        before = _BeforeBatch(self.network, generator)
        try:
            return compiled.gradients(learn, n_spots, generator)
        except Exception as error:  # noqa: BLE001 - if it is not compiling's, the batch raises it once more below
            problem = problem_of(error.__cause__ or error)
        before.put_back()  # here, where no exception holds any more what the batch had in memory
        losses = learn()
        self._give_up(problem)
        return losses

    def to_dict(self) -> dict[str, Any] | None:
        record = self.record
        if record is None or self._measurement is not None:
            return None
        return {"record": record.model_dump(), "device": self.device_name}

    def restore(self, saved: Mapping[str, Any] | None) -> None:
        if saved is None or saved["device"] != self.device_name:
            return
        self._measurement, self._is_warm, self._record = None, True, CompileRecord(**saved["record"])
        if self._record.choice == "compiled":
            self._compile()

    def _measure(self) -> Generator[None, Place, None]:
        """From one place between two steps to the next, until the choice is made."""
        yield from self._block()  # pays for what is set up once
        place, n_steps, eager_s = yield from self._block()
        self._know(eager_s=eager_s)
        if not worth_trying(place.left - 2 * n_steps, eager_s) or not self._compile():
            return
        yield from self._block()
        self._is_warm = True
        _, n_steps, compiled_s = yield from self._block()
        self._know(compiled_s=compiled_s, steps=n_steps, why="faster")
        if not worth_keeping(eager_s, compiled_s):
            self._leave(why="not_faster")

    def _block(self) -> Generator[None, Place, tuple[Place, int, float]]:
        """Where a block of steps ended, how many they were, and the seconds of each."""
        place = yield
        while (n_steps := self._steps_of_a_block(place)) is None:
            place = yield
        end, started = place.step + n_steps, now(self.device, self.clock)
        self.is_timing = True
        while place.step < end:
            place = yield
        self.is_timing = False
        return place, n_steps, (now(self.device, self.clock) - started) / n_steps

    def _steps_of_a_block(self, place: Place) -> int | None:
        """An epoch, or, of batches of spots, a part of it without its last step, whose batch may be smaller.

        ``None`` where none may begin at ``place``.
        """
        if self.whole_slides or place.steps <= BLOCK_STEPS:
            return place.steps if place.step == 0 else None
        return BLOCK_STEPS if place.step + BLOCK_STEPS < place.steps else None

    def _compile(self) -> bool:
        try:
            self._compiled = CompiledSteps(self.network, self.device, self.name, self.backend, self.clock)
        except UserError as error:
            self._give_up(problem_of(error.__cause__ or error))
        return self._compiled is not None

    def _give_up(self, problem: str) -> None:
        self._leave(why="failed", problem=problem)
        self._measurement, self.is_timing = None, False
        self.note(f"the network could not be compiled ({problem}): it was trained without, with the same numbers")

    def _leave(self, **known: Any) -> None:
        """Go on without compiling."""
        self._record, self._compiled = self.record, None
        self._know(choice="eager", **known)
        torch.compiler.reset()

    def _know(self, **known: Any) -> None:
        if self._record is not None:
            self._record = self._record.model_copy(update=known)


class _BeforeBatch:
    """What a batch changes up to the optimiser's step, as it was before: to compute the batch once more."""

    def __init__(self, network: nn.Module, generator: torch.Generator) -> None:
        self._generator, self._states = generator, generator_states(generator)
        self._buffers = [(buffer, buffer.clone()) for buffer in network.buffers()]
        self._gradients = [(each, None if each.grad is None else each.grad.clone()) for each in network.parameters()]

    def put_back(self) -> None:
        restore_generators(self._generator, self._states)
        with torch.no_grad():
            for buffer, value in self._buffers:
                buffer.copy_(value)
        for parameter, gradient in self._gradients:
            parameter.grad = gradient


def now(device: torch.device, clock: Callable[[], float]) -> float:
    """The clock, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock()


def problem_of(error: BaseException) -> str:
    """What a compiler said, without its advice to developers, on one line."""
    said = " ".join(text_of(error).split("\n\n")[0].split())
    return said[:LONGEST_PROBLEM] or type(error).__name__


def _is_of_a_compiler(error: BaseException) -> bool:
    return type(error).__module__.startswith(COMPILERS)
