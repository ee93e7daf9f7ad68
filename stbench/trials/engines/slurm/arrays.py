"""Planned trials as arrays of workers, written and not sent: what the engines ``slurm`` and ``script`` share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ....system.files import read_object, write_text, writing_to
from ...cards import card_named
from ...cost import Costs
from ...spec import TrialSpec
from .lists import Job, ResourceClass, plan_lists
from .options import CPUS, SbatchOptions
from .script import WorkerCommand, sbatch_options, script
from .submission import Submission, Tried, write_submission


@dataclass(frozen=True)
class Layout:
    """What was typed of jobs: options of sbatch, how workers start, and how many may run at a time."""

    options: SbatchOptions
    command: WorkerCommand
    at_a_time: int | None = None
    card: str | None = None  # the GPU of a job, by its key in the table of cards; None: the first of it

    @property
    def threads(self) -> int:
        cores = self.options.typed.get("cpus-per-task") or CPUS
        return int(cores) if cores.isdigit() else 1


class Arrays:
    """Makes arrays of the trials of one results directory.

    Parameters
    ----------
    results : Path
        The results directory, absolute.
    layout : Layout
        What was typed.
    """

    def __init__(self, results: Path, layout: Layout) -> None:
        self.results, self.layout = results, layout
        self.run_id = str(read_object(results / "run.json")["id"])
        self.jobs: dict[str, Job] = {}

    def describe(self, keys: Iterable[str]) -> None:
        """Look up what trials will take."""
        # where a job has a GPU counts, not whether the machine that submits it has one
        card = None if self.layout.card is None else card_named(self.layout.card)
        costs = Costs(self.results, on_gpu=self.layout.options.asks_for_gpus, threads=self.layout.threads, card=card)
        for key in keys:
            spec = TrialSpec.read(self.results / "specs" / f"{key}.json")
            cost = costs.of(spec)
            on_gpu = spec.device.startswith("cuda")  # ``auto`` takes a GPU where its job has one
            self.jobs[key] = Job(key, cost.seconds, cost.memory_bytes, on_gpu, spec.trained_by)

    def plan(
        self, keys: Sequence[str], alone: Iterable[str] = (), at_a_time: int | None = None
    ) -> dict[ResourceClass, list[list[str]]]:
        """Lists of trials for workers, by what the workers ask for."""
        options = self.layout.options
        jobs = [self.jobs[key] for key in keys]
        return plan_lists(jobs, options.seconds, at_a_time, alone, one_class=options.chooses_memory)

    def write(
        self,
        wanted: ResourceClass,
        lists: Sequence[Sequence[str]],
        throttle: int | None,
        tried: Mapping[str, Tried] | None = None,
    ) -> Submission:
        """Write the files of one array."""
        options, command = self.layout.options, self.layout.command
        known = {key: each for keys in lists for key in keys if (each := (tried or {}).get(key)) is not None}
        facts = {
            "throttle": throttle,
            "seconds": options.seconds,
            "requeues": command.requeues,
            "clusters": options.typed.get("clusters") or "",
            "tried": known,
        }
        with writing_to(self.results):
            prefix = options.typed.get("job-name") or "stbench"
            submission = write_submission(self.results, self.run_id, prefix, lists, facts)
            chosen = sbatch_options(submission, options, wanted)
            write_text(submission.script, script(self.results, submission, chosen, options.seconds, command))
        return submission
