"""The two commands of a configured method: what they are told, and how one of them is run on a task."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..errors import MethodFailed
from ..system.cores import usable_cores
from ..system.files import value_digest
from . import reader
from .command import Ending, run_command
from .definition import PLACES, Definition, filled
from .environment import THREADS, Wanted, inventory, launch
from .output import Output
from .sources import code_of

log = logging.getLogger("stbench")

# as every language words them: no method is to blame
OF_THE_PLACE = {os.strerror(number): number for number in (errno.ENOSPC, errno.EDQUOT)}
READER = "stbench_exchange.py"  # as commands import it


@dataclass(frozen=True)
class Commands:
    """The commands of ``definition``, whose file lies in ``here``, with the values of its settings."""

    definition: Definition
    here: Path
    settings: Mapping[str, Any]

    def about(
        self, seed: int, device: str, precision: str, genes: Sequence[str], model: Path, checkpoint: Path | None
    ) -> dict[str, Any]:
        """What ``exchange.json`` says beside the slides. ``checkpoint``: of training alone."""
        return {
            "method": self.definition.name,
            "settings": dict(self.settings),
            "seed": seed,
            "device": device,
            "precision": precision,
            "threads": _threads(),
            "model": str(model),
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "genes": list(genes),
        }

    def run(
        self,
        what: Literal["train", "predict"],
        task: Path,
        folder: Path,
        about: Mapping[str, Any],
        output: Output,
        should_stop: Callable[[], bool],
    ) -> Ending:
        """Run a command in ``folder`` on what was written into ``task``. A model may be written by training alone.

        Raises ``MethodFailed``, with the last lines that it printed, where it does not end well, unless it was stopped,
        and ``OSError`` where they say that the disk is full.
        """
        shutil.copyfile(reader.__file__, task / READER)
        places = {name: about[name] for name in PLACES if name in about} | {"here": self.here, "task": task}
        gpu = str(about["device"]).startswith("cuda")
        model = (Path(about["model"]),)
        wanted = Wanted(
            words=filled(getattr(self.definition, what), {**self.settings, **places}),
            folder=folder,
            writable=(task, folder, *(model if what == "train" else ())),
            readable=(*(model if what == "predict" else ()), *code_of(self.definition, self.here)),
            variables=self._variables(task, about),
            gpu=gpu,
            token=f"stbench-{secrets.token_hex(6)}",
        )
        log.info("%s: %s", what, shlex.join(wanted.words))
        ending = run_command(launch(self.definition.environment, self.here, wanted), folder, output, should_stop)
        output.close()
        if ending.status != 0 and not ending.was_stopped and not output.skipped:
            told = output.tail()
            for text, number in OF_THE_PLACE.items():
                if text in told:
                    raise OSError(number, f"{text}, the {what} command says")
            how = f"the {what} command {_how(ending.status)}"
            raise MethodFailed(f"{how}{f'; its last lines: {told}' if told else ' and printed nothing'}")
        return ending

    def versions(self, folder: Path) -> dict[str, str]:
        """What the environment is: of a Python its version and what is installed, of a container its image's name."""
        environment = self.definition.environment
        if environment.in_container:
            return {f"own {environment.kind}": str(getattr(environment, environment.kind))}
        started = launch(environment, self.here, Wanted(["python"], folder, (), (), {}))
        python, packages = inventory(started.words, tuple(sorted(started.variables.items())))
        log.info("its environment: Python %s, %s", python, " ".join(packages))
        return {"own python": python, "own packages": f"{len(packages)}, digest {value_digest(packages)[:16]}"}

    @staticmethod
    def _variables(task: Path, about: Mapping[str, Any]) -> dict[str, str]:
        return dict.fromkeys(THREADS, str(about["threads"])) | {
            "PYTHONPATH": str(task),
            "PYTHONUNBUFFERED": "1",  # what it prints is heard when it prints it
            "PYTHONHASHSEED": str(int(about["seed"]) % 2**32),
            "STBENCH_TASK": str(task),
        }


def _how(status: int) -> str:
    """How a command ended, in words."""
    if status > 0:
        return f"ended with status {status}"
    names = {number.value: number.name for number in signal.Signals}
    memory = " (memory may have run out)" if -status == signal.SIGKILL else ""
    return f"was ended by {names.get(-status, f'signal {-status}')}{memory}"


def _threads() -> int:
    """As many as the harness itself computes with."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdigit() and int(given) else usable_cores()
