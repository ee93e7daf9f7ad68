"""The options that say what runs the trials, and the engine that they name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UserError, unknown
from ..system.wording import amount
from .console import out

if TYPE_CHECKING:
    from ..system.gpus import Gpu
    from ..trials.engines.limits import Limits
    from ..trials.engines.process import Slot
    from ..trials.engines.protocol import Engine
    from ..trials.engines.slurm.arrays import Layout

MEMORY_OF_A_WORKER = 3 * 2**30  # bytes, for --slots auto: the libraries, and the patches of a section or two
LITTLE = 0.5  # free memory of a GPU, as a share of all, below which a warning is due
ENGINES = ("local", "slurm", "ray", "script")
BELONG_TO = {  # option to the engines that know it
    "slots": ("local",),
    "slots_per_gpu": ("local", "ray"),
    "slurm": ("slurm", "script"),
    "slurm_setup": ("slurm", "script"),
    "max_parallel": ("slurm", "ray", "script"),
    "ray_address": ("ray",),
    "detach": ("slurm",),
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
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION=VALUE",
            help="An option of sbatch, as partition=gpu or time=4:00:00; OPTION= takes a default out. Repeatable.",
        ),
    ] = None
    slurm_setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="A line of shell before a job's worker starts: module load X. Repeatable."),
    ] = None
    max_parallel: Annotated[
        int | None, typer.Option(metavar="N", help="Workers of Slurm, or tasks of Ray, at a time, at most.")
    ] = None
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT|auto", help="Of a Ray cluster (RAY_ADDRESS, else one is started on this machine)."
        ),
    ] = None
    card: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The GPU that --dry-run and lists of jobs count with: h200, a100, l40s, ... (this one).",
        ),
    ] = None
    detach: Annotated[
        bool, typer.Option("--detach", help="Submit, and leave; the same command again waits and collects.")
    ] = False

    def check(self, device: str) -> None:
        """Raise ``UserError`` for what is no engine, no number or no limit."""
        if self.engine not in ENGINES:
            raise unknown("engine", self.engine, ENGINES)
        self._refuse_others()
        if self.card is not None:
            from ..trials.cards import card_named

            card_named(self.card)
        if self.slots_per_gpu is not None and self.slots != type(self).slots:
            raise UserError("--slots and --slots-per-gpu are two ways to say how many trials run at a time - give one")
        if self.slots_per_gpu is not None and device not in ("auto", "cuda"):
            raise UserError(f"--slots-per-gpu chooses the device of each trial - leave out --device {device}")
        self._n_slots(self._limits())
        self._layout()
        if self.engine == "ray":
            from ..trials.engines.ray_tasks import require_ray

            require_ray()
        if self.engine == "slurm":
            from ..trials.engines.slurm.commands import require_slurm

            require_slurm()

    @property
    def runs_here(self) -> bool:
        """Whether trials run on this machine, so that what it lacks is what they lack."""
        return self.engine == "local"

    def build(self, device: str) -> Engine:
        """Who runs the trials: this process, or worker processes, where several are to run or limits to be kept.

        A limit is kept from outside the process that is limited, so even a single trial at a time then has a worker.
        """
        from ..trials.engines.limits import Limits

        limits = self._limits()
        if self.engine == "script":
            from ..trials.engines.script import ScriptEngine

            return ScriptEngine(self._layout())
        if self.engine == "ray":
            from ..trials.engines.ray_tasks import RayEngine

            return RayEngine(self.ray_address, limits, self.max_parallel, self.slots_per_gpu or 1)
        if self.engine == "slurm":
            from ..trials.engines.slurm.engine import SlurmEngine

            return SlurmEngine(self._layout(), self.detach)
        if self.slots_per_gpu is None and self._n_slots(limits) == 1 and limits == Limits():
            from ..trials.engines.serial import SerialEngine

            return SerialEngine()
        from ..trials.engines.slots import SlotsEngine

        return SlotsEngine(self._slots(device, limits), limits)

    def within_memory(self, engine: Engine, peak_bytes: int) -> Engine:
        """``engine`` with fewer slots, where memory would not hold a trial of ``peak_bytes`` in each of them.

        So ``--slots auto`` is meant; a number that was given is kept, with a warning.
        """
        from ..system.cores import usable_cores, usable_memory
        from ..trials.engines.process import slots_on
        from ..trials.engines.slots import SlotsEngine

        if not isinstance(engine, SlotsEngine) or self.trial_memory is not None:
            return engine
        free, n_slots = usable_memory(), len(engine.slots)
        fitting = max(1, free // max(peak_bytes, 1))
        if fitting >= n_slots:
            return engine
        sizes = f"the largest takes about {amount(peak_bytes)} of memory, and {amount(free)} are free"
        if self.slots != "auto":
            warning = f"warning: {n_slots} trials at a time may take too much: {sizes} - give fewer, or --trial-memory"
            out.print(warning, style="yellow", soft_wrap=True)
            return engine
        out.print(f"--slots auto: {fitting} at a time, not {n_slots}: {sizes}", soft_wrap=True)
        threads = max(1, usable_cores() // fitting)
        return SlotsEngine(slots_on([slot.gpu for slot in engine.slots[:fitting]], threads), engine.limits)

    def _slots(self, device: str, limits: Limits) -> list[Slot]:
        """With threads and, where trials go to GPUs that are not named, a GPU each, in turn."""
        from ..system.cores import usable_cores
        from ..system.gpus import visible_gpus
        from ..trials.engines.process import slots_on

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
        return slots_on([gpus[place % len(gpus)] if gpus else None for place in range(n_slots)], threads)

    def _refuse_others(self) -> None:
        """Refuse an option that the chosen engine would not heed."""
        for name, engines in BELONG_TO.items():
            if self.engine not in engines and getattr(self, name) != getattr(type(self), name):
                theirs = " and ".join(engines)
                raise UserError(f"--{name.replace('_', '-')} is an option of --engine {theirs}, not of {self.engine}")

    def _layout(self) -> Layout:
        """What was typed of Slurm's jobs."""
        from ..trials.engines.slurm.arrays import Layout
        from ..trials.engines.slurm.options import SbatchOptions
        from ..trials.engines.slurm.script import WorkerCommand

        if self.max_parallel is not None and self.max_parallel < 1:
            raise UserError(f"--max-parallel {self.max_parallel} is no number of workers - give 1 or more")
        for line in self.slurm_setup or ():
            if not line.strip() or "\n" in line:
                raise UserError("--slurm-setup takes one line of shell - repeat it for more")
        limits: list[str] = []
        for option, given in (("--trial-time", self.trial_time), ("--trial-memory", self.trial_memory)):
            limits += [option, given] if given is not None else []
        command = WorkerCommand(tuple(self.slurm_setup or ()), tuple(limits))
        return Layout(SbatchOptions.parse(self.slurm or ()), command, self.max_parallel, self.card)

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


def local_engine(trial_time: str | None, trial_memory: str | None) -> Engine:
    """What runs the list of a worker: one trial after the other, within these limits."""
    return EngineOptions(trial_time=trial_time, trial_memory=trial_memory).build("auto")
