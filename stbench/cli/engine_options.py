"""The options that say what runs the trials, and the engine that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, unknown
from .console import out

if TYPE_CHECKING:
    from ..system.gpus import Gpu
    from ..trials.engines.limits import Limits
    from ..trials.engines.process import Slot
    from ..trials.engines.protocol import Engine

MEMORY_OF_A_WORKER = 3 * 2**30  # bytes, for --slots auto: the libraries, and the patches of a section or two
LITTLE = 0.5  # free memory of a GPU, as a share of all, below which a warning is due
ENGINES = ("local",)
# option to the engine that alone knows it
BELONG_TO = {
    "slots": "local",
    "slots_per_gpu": "local",
    "trial_memory": "local",
}


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
    slots_per_gpu: Annotated[
        int | None,
        typer.Option("--slots-per-gpu", metavar="N", min=1, help="Trials at a time on each GPU that may be used."),
    ] = None
    trial_time: Annotated[
        str | None, typer.Option("--trial-time", metavar="2h30m", help="End a trial that runs for longer: failed.")
    ] = None
    trial_memory: Annotated[
        str | None, typer.Option("--trial-memory", metavar="16G", help="End a trial that takes more memory: failed.")
    ] = None
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait for another command that works in the results directory.")
    ] = False
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Take the directory from a command of which nobody knows if it lives.")
    ] = False

    def check(self, device: str) -> None:
        """Raise ``UserError`` for what is no engine, no number or no limit."""
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        self._refuse_others()
        if self.slots_per_gpu is not None and self.slots != type(self).slots:
            raise UserError("--slots and --slots-per-gpu are two ways to say how many trials run at a time - give one")
        if self.slots_per_gpu is not None and device not in ("auto", "cuda"):
            raise UserError(f"--slots-per-gpu chooses the device of each trial - leave out --device {device}")
        self._n_slots(self._limits())

    def build(self, device: str) -> Engine:
        """Who runs the trials: this process, or worker processes, where several are to run or limits to be kept.

        A limit is kept from outside the process that is limited, so even a single trial at a time then has a worker.
        """
        from ..trials.engines.limits import Limits

        limits = self._limits()
        if self.slots_per_gpu is None and self._n_slots(limits) == 1 and limits == Limits():
            from ..trials.engines.serial import SerialEngine

            return SerialEngine()
        from ..trials.engines.slots import SlotsEngine

        return SlotsEngine(self._slots(device, limits), limits)

    def _slots(self, device: str, limits: Limits) -> list[Slot]:
        """With threads and, where trials go to GPUs that are not named, a GPU each, in turn."""
        from ..system.cores import usable_cores
        from ..system.gpus import visible_gpus
        from ..trials.engines.process import Slot

        if self.slots_per_gpu is None:
            n_slots = self._n_slots(limits)
            gpus = _gpus_to_share(device)
        else:
            found = visible_gpus()
            if not found:
                raise UserError("--slots-per-gpu: there is no GPU here that may be used - give --slots instead")
            say_shared(found, self.slots_per_gpu)
            gpus = [gpu.token for gpu in found]
            n_slots = self.slots_per_gpu * len(gpus)
        threads = max(1, usable_cores() // n_slots)
        return [Slot(threads, gpus[place % len(gpus)] if gpus else None) for place in range(n_slots)]

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

    def _n_slots(self, limits: Limits) -> int:
        """How many trials run at a time, by ``--slots``."""
        from ..system.cores import usable_cores, usable_memory

        if self.slots == "auto":
            workers = usable_memory() // (limits.resident_bytes or MEMORY_OF_A_WORKER)
            return max(1, min(usable_cores(), workers))
        if self.slots.isdigit() and int(self.slots) > 0:
            return int(self.slots)
        raise UserError(f"--slots {self.slots} is no number of trials at a time - give 1 or more, or auto")


def _gpus_to_share(device: str) -> list[str]:
    """What several slots share where nothing is said of GPUs: those that are seen, one slot on one in turn."""
    from ..system.gpus import visible_gpus

    if device not in ("auto", "cuda"):
        return []
    try:
        return [gpu.token for gpu in visible_gpus()]
    except UserError:  # none, or none that can be listed: torch knows in the worker, and all workers see the same
        return []


def say_shared(gpus: Sequence[Gpu], per_gpu: int) -> None:
    """Print which slots there are, and warn of cards that others have filled."""
    out.print(f"{per_gpu} slots on each of {len(gpus)} GPUs: {', '.join(gpu.token for gpu in gpus)}", soft_wrap=True)
    for gpu in gpus:
        if gpu.free_bytes is not None and gpu.total_bytes and gpu.free_bytes < LITTLE * gpu.total_bytes:
            out.print(
                f"warning: {gpu.token} has {gpu.free_bytes / 2**30:.1f} of its {gpu.total_bytes / 2**30:.0f} GiB free: "
                "others use it",
                style="yellow",
                soft_wrap=True,
            )


ONE_AT_A_TIME = EngineOptions()
