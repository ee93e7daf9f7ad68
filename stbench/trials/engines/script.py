"""Files for those who submit by hand: arrays for ``sbatch``, a list of commands, and a Snakefile. Nothing is run."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

from ...errors import LeftToOthers
from ...system.files import write_text, writing_to
from .process import THREAD_VARIABLES
from .protocol import Listener
from .slurm.arrays import Arrays, Layout
from .slurm.lists import ResourceClass
from .slurm.script import environment
from .slurm.submission import FOLDER, Submission

LARGEST_ARRAY = 1000  # workers of one array; Slurm's own default for MaxArraySize is 1001

SNAKEFILE = Template("""\
# Trials of stbench. Run it, and run it again after whatever happened, with
#     snakemake --snakefile $path --cores all --keep-going
# Marks below done/, and .snakemake/ beside it, are all that snakemake writes or deletes; what is done of a list is
# asked of the results directory.
workdir: $folder


# the list of a worker: its command, its memory in MiB, its minutes (0: nobody said)
WORKERS = $workers


rule all:
    input:
        [f"done/{worker}" for worker in WORKERS],


rule worker:
    output:
        touch("done/{worker}"),
    params:
        command=lambda wildcards: WORKERS[wildcards.worker][0],
    threads: $threads
    resources:
        mem_mb=lambda wildcards: WORKERS[wildcards.worker][1],
        runtime=lambda wildcards: WORKERS[wildcards.worker][2] or 24 * 60,
    shell:
        # 1 says that trials failed: they have ended, and the results directory says why
        "{params.command} || test $$? -eq 1"
""")


class ScriptEngine:
    """Writes what is to be run, and says how."""

    def __init__(self, layout: Layout) -> None:
        self.layout = replace(layout, command=replace(layout.command, requeues=True))

    def run(self, results: Path, keys: Sequence[str], listener: Listener, should_stop: Callable[[], bool]) -> None:
        if not keys:
            return
        results = Path(results).absolute()
        arrays = Arrays(results, self.layout)
        arrays.describe(keys)
        written = [
            (wanted, submission)
            for wanted, lists in arrays.plan(keys, at_a_time=self.layout.at_a_time).items()
            for first in range(0, len(lists), LARGEST_ARRAY)
            for submission in [arrays.write(wanted, lists[first : first + LARGEST_ARRAY], self.layout.at_a_time)]
        ]
        workers = {
            f"{submission.record.token}-{number}": (self._command(results, submission, number), wanted)
            for wanted, submission in written
            for number in range(submission.record.n_workers)
        }
        folder = results / FOLDER
        with writing_to(results):
            write_text(folder / "jobs.txt", "".join(f"{command}\n" for command, _ in workers.values()))
            write_text(folder / "Snakefile", self._snakefile(folder, workers))
        raise LeftToOthers("\n".join(self._how_to_go_on(results, folder, [each for _, each in written], len(keys))))

    def _command(self, results: Path, submission: Submission, number: int) -> str:
        """One line that runs the list of a worker, from any folder and in any environment."""
        threads = dict.fromkeys(THREAD_VARIABLES, str(self.layout.threads))
        variables = [f"{name}={value}" for name, value in (environment() | threads).items()]
        words = self.layout.command.words(results, str(submission.folder / "lists" / f"{number}.txt"))
        return shlex.join(["env", *variables, *words])

    def _snakefile(self, folder: Path, workers: dict[str, tuple[str, ResourceClass]]) -> str:
        minutes = (self.layout.options.seconds or 0) // 60
        rows = [
            f"    {name!r}: ({command!r}, {wanted.memory_bytes // 2**20}, {minutes}),\n"
            for name, (command, wanted) in workers.items()
        ]
        return SNAKEFILE.substitute(
            path=shlex.quote(str(folder / "Snakefile")),
            folder=repr(str(folder)),
            workers="{\n" + "".join(rows) + "}",
            threads=self.layout.threads,
        )

    def _how_to_go_on(self, results: Path, folder: Path, written: Sequence[Submission], n_trials: int) -> Iterator[str]:
        n_workers = sum(each.record.n_workers for each in written)
        yield (
            f"{n_trials} trials in {n_workers} lists (--max-parallel N makes at least as many, where that pays); "
            "nothing was run. Choose one way, and take it again for what is left:"
        )
        for submission in written:
            yield f"  Slurm:         sbatch {shlex.quote(str(submission.script))}"
        if self.layout.command.setup:
            yield "  (the setup lines stand in these files alone; the next two want an environment that is set up)"
        yield f"  GNU parallel:  parallel --jobs 2 < {shlex.quote(str(folder / 'jobs.txt'))}"
        snakefile = shlex.quote(str(folder / "Snakefile"))
        yield f"  Snakemake:     snakemake --snakefile {snakefile} --cores all --keep-going"
        yield f"look: stbench status {shlex.quote(str(results))}; collect: the same stbench run without --engine script"
