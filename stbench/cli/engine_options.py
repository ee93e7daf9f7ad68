"""The options that say what runs the trials, and the engine that they name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, unknown

if TYPE_CHECKING:
    from ..trials.engines.limits import Limits
    from ..trials.engines.protocol import Engine

MEMORY_OF_A_WORKER = 3 * 2**30  # bytes, for --slots auto: the libraries, and the patches of a section or two
ENGINES = ("local",)
BELONG_TO = {"slots": "local", "trial_memory": "local"}  # option to the engine that alone knows it


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """As they were typed."""

    engine: Annotated[str, typer.Option(help=f"What runs the trials: {', '.join(ENGINES)}.")] = "local"
    slots: Annotated[
        str,
        typer.Option(
            metavar="N|auto", help="Trials at a time on this machine; with 2 or more, in processes of their own."
        ),
    ] = "1"
    trial_time: Annotated[
        str | None, typer.Option("--trial-time", metavar="2h30m", help="End a trial that runs for longer: failed.")
    ] = None
    trial_memory: Annotated[
        str | None, typer.Option("--trial-memory", metavar="16G", help="End a trial that takes more memory: failed.")
    ] = None

    def check(self) -> None:
        """Raise ``UserError`` for what is no engine, no number or no limit."""
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        self._refuse_others()
        self._limits()
        self._slots(self._limits())

    def build(self) -> Engine:
        """Who runs the trials: this process, or worker processes, where several are to run or limits to be kept.

        A limit is kept from outside the process that is limited, so even a single trial at a time then has a worker.
        """
        from ..system.cores import usable_cores
        from ..trials.engines.limits import Limits

        limits = self._limits()
        slots = self._slots(limits)
        if slots == 1 and limits == Limits():
            from ..trials.engines.serial import SerialEngine

            return SerialEngine()
        from ..trials.engines.slots import SlotsEngine

        return SlotsEngine(slots, max(1, usable_cores() // slots), limits)

    def _refuse_others(self) -> None:
        """Refuse an option that the chosen engine would not heed."""
        for name, engine in BELONG_TO.items():
            if engine != self.engine and getattr(self, name) != getattr(type(self), name):
                raise UserError(f"--{name.replace('_', '-')} is an option of --engine {engine}, not of {self.engine}")

    def _limits(self) -> Limits:
        from ..trials.engines.limits import Limits, bytes_of, seconds_of

        return Limits(
            None if self.trial_time is None else seconds_of(self.trial_time),
            None if self.trial_memory is None else bytes_of(self.trial_memory),
        )

    def _slots(self, limits: Limits) -> int:
        """How many trials run at a time."""
        from ..system.cores import usable_cores, usable_memory

        if self.slots == "auto":
            workers = usable_memory() // (limits.resident_bytes or MEMORY_OF_A_WORKER)
            return max(1, min(usable_cores(), workers))
        if self.slots.isdigit() and int(self.slots) > 0:
            return int(self.slots)
        raise UserError(f"--slots {self.slots} is no number of trials at a time - give 1 or more, or auto")


ONE_AT_A_TIME = EngineOptions()
