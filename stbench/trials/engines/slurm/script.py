"""The file that ``sbatch`` takes: a shell that looks whether all is there, and becomes a worker."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..process import THREAD_VARIABLES
from .lists import ResourceClass
from .options import SbatchOptions, defaults, lines, warning_s
from .submission import Submission

PASSED_ON = (  # places, which a worker must find where the command finds them
    "STBENCH_DATA", "STBENCH_CACHE", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TORCH_HOME", "XDG_CACHE_HOME",
)  # fmt: skip


@dataclass(frozen=True)
class WorkerCommand:
    """How workers are started, whoever starts them.

    ``limits``: options of ``stbench worker`` that limit a trial. ``requeues``: a worker that leaves with work left asks
    Slurm to be run again, as nobody else will.
    """

    setup: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    requeues: bool = False

    def words(self, results: Path, trials: str) -> list[str]:
        """The command for the list ``trials``."""
        return [sys.executable, "-u", "-m", "stbench.cli", "worker", str(results), "--trials", trials, *self.limits]


def environment() -> dict[str, str]:
    """Places that this process was told, and where it finds what it was not told."""
    from ....system.locate import cache_root

    told = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return told | {"STBENCH_CACHE": str(cache_root())}


def sbatch_options(submission: Submission, options: SbatchOptions, wanted: ResourceClass) -> dict[str, str]:
    """All options of an array, by name."""
    record = submission.record
    throttle = "" if record.throttle is None else f"%{record.throttle}"
    log = str(submission.folder / "logs").replace("\\", "\\\\").replace("%", "%%") + "/%a.log"
    merged = options.over({"output": log} | defaults(wanted.memory_bytes, wanted.on_gpu, options.seconds))
    return {"job-name": record.name, "array": f"0-{record.n_workers - 1}{throttle}"} | {
        name: value for name, value in merged.items() if name != "job-name"
    }


def script(
    results: Path,
    submission: Submission,
    options: Mapping[str, str],
    seconds: int | None,
    command: WorkerCommand,
) -> str:
    """The text of ``worker.sbatch``.

    Python takes the place of the shell, so the signal before the end of a job, which Slurm sends to the batch shell
    alone, reaches the worker and none of its children. Variables are set here and not by ``--export`` alone, so that
    the job is the same where nothing is passed on.
    """
    folder = shlex.quote(str(submission.folder))
    worker = [*command.words(results, "LIST"), "--left", "LEFT"]
    if seconds is not None:  # in case that the signal does not come
        worker += ["--time-limit", f"{max(1, seconds - warning_s(seconds) // 2)}s"]
    if command.requeues:
        worker.append("--requeue")
    quoted = " ".join(
        {"LIST": '"$list"', "LEFT": '"$left"', sys.executable: '"$python"'}.get(word, shlex.quote(word))
        for word in worker
    )
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment().items()]
    setup = [line for text in command.setup for line in (text, _checked(text))]
    return "\n".join(
        [
            "#!/bin/bash",
            *lines(options),
            "# Workers of stbench; each runs the trials of its own list and leaves. Send this file with sbatch.",
            'missing() { echo "stbench: $1 (on $(hostname), job $SLURM_JOB_ID)" >&2; exit 2; }',
            f"python={shlex.quote(sys.executable)}",
            f"results={shlex.quote(str(results))}",
            f'list={folder}/lists/"${{SLURM_ARRAY_TASK_ID:?this file is for an array: send it with sbatch}}".txt',
            f'left={folder}/left/"$SLURM_ARRAY_TASK_ID".json',
            *setup,
            "for pause in 1 2 4 8 16 30 30; do  # a network file system may show new files late",
            '  ls "${list%/*}" >/dev/null 2>&1; [ -r "$list" ] && break; sleep $pause',
            "done",
            '[ -d "$results" ] || missing "there is no results directory $results"',
            '[ -r "$list" ] || missing "there is no list of trials $list"',
            '[ -x "$python" ] || missing "there is no Python at $python"',
            '"$python" -c "import stbench" || missing "$python cannot import stbench"',
            "threads=${SLURM_CPUS_PER_TASK:-$SLURM_CPUS_ON_NODE}",
            f"export {' '.join(f'{name}=$threads' for name in THREAD_VARIABLES)}",
            *exports,
            f"exec {quoted}",
            "",
        ]
    )


def _checked(text: str) -> str:
    return f"[ $? -eq 0 ] || missing {shlex.quote(f'the setup line failed: {text}')}"
