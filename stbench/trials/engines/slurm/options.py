"""Options of ``sbatch``: the defaults, and what was typed to change, add or take out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ....errors import UserError
from .times import seconds_of_limit

LONG = {  # what sbatch's letters stand for
    "A": "account", "b": "begin", "c": "cpus-per-task", "C": "constraint", "d": "dependency", "D": "chdir",
    "e": "error", "G": "gpus", "H": "hold", "J": "job-name", "k": "no-kill", "L": "licenses", "m": "distribution",
    "M": "clusters", "n": "ntasks", "N": "nodes", "o": "output", "p": "partition", "q": "qos", "s": "oversubscribe",
    "S": "core-spec", "t": "time", "w": "nodelist", "x": "exclude", "a": "array", "W": "wait", "Q": "quiet",
}  # fmt: skip
OURS = {  # what a person cannot give, and why
    "array": "the array follows from the trials; --max-parallel says how many workers run at a time",
    "wrap": "what a job runs is written by stbench",
    "parsable": "stbench reads what sbatch answers",
    "quiet": "stbench reads what sbatch answers",
    "test-only": "nothing would run; --engine script writes the files without sending them",
    "wait": "without --detach the command waits by itself",
}
RIVALS = (  # options that say the same in several ways: the one that was typed replaces the default
    ("mem", "mem-per-cpu", "mem-per-gpu"),
    ("gres", "gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"),
    ("cpus-per-task", "cpus-per-gpu"),
    ("requeue", "no-requeue"),
)
NEGATIVE = ("no-kill", "no-requeue")  # options of sbatch that begin with "no-"
CPUS = "4"
WARNING_S = 120  # between the signal and the end of a job


@dataclass(frozen=True)
class SbatchOptions:
    """What was typed: an option to its value, to nothing (a flag), or to ``None`` (taken out)."""

    typed: Mapping[str, str | None] = field(default_factory=dict)

    @classmethod
    def parse(cls, words: Iterable[str]) -> SbatchOptions:
        """Read ``partition=gpu``, ``exclusive``, ``mem=`` and ``no-mem``. Raises ``UserError``.

        Examples
        --------
        >>> SbatchOptions.parse(["p=gpu", "exclusive", "mem=", "no-signal"]).typed
        {'partition': 'gpu', 'exclusive': '', 'mem': None, 'signal': None}
        """
        typed: dict[str, str | None] = {}
        for word in words:
            given, equals, text = word.partition("=")
            name = given.strip().lstrip("-")
            name = LONG.get(name, name.lower().replace("_", "-"))
            value = text.strip()
            _require_possible(word, name, value)
            if name.startswith("no-") and name not in NEGATIVE and not equals:
                typed[name.removeprefix("no-")] = None
            elif equals and not value:
                typed[name] = None
            else:
                typed[name] = value
        if "job-name" in typed and not re.fullmatch(r"[\w.+-]+", typed["job-name"] or ""):
            raise UserError("job-name is how jobs are found again: give letters and digits, to stand in front of it")
        return cls(typed)

    @property
    def seconds(self) -> int | None:
        """How long a job may run; ``None`` where nothing was typed that says so."""
        limit = self.typed.get("time-min") or self.typed.get("time")
        return seconds_of_limit(limit) if limit else None

    @property
    def asks_for_gpus(self) -> bool:
        """Whether a job will have a GPU, as far as its options say."""
        return any(
            name.startswith("gpus") or (name in ("gres", "tres-per-task", "tres-per-node") and "gpu" in value)
            for name, value in self.typed.items()
            if value
        )

    @property
    def chooses_memory(self) -> bool:
        """Whether the memory of jobs was typed, or taken out."""
        return bool({"mem", "mem-per-cpu", "mem-per-gpu", "exclusive"} & self.typed.keys())

    def over(self, defaults: Mapping[str, str]) -> dict[str, str]:
        """``defaults`` changed by what was typed."""
        merged = dict(defaults)
        for name, value in self.typed.items():
            for rivals in RIVALS:
                if name in rivals:
                    for rival in rivals:
                        merged.pop(rival, None)
            merged.pop(name, None)
            if value is not None:
                merged[name] = value
        return merged


def defaults(memory_bytes: int, on_gpu: bool, seconds: int | None) -> dict[str, str]:
    """What every job asks for, each of which may be changed or taken out.

    The signal goes to the batch shell alone, which the worker has taken the place of: data loaders and other children
    never see it.
    """
    wanted = {
        "nodes": "1",
        "ntasks": "1",
        "cpus-per-task": CPUS,
        "mem": f"{-(-memory_bytes // 2**20)}M",
        "signal": f"B:USR2@{warning_s(seconds)}",
        "requeue": "",
        "open-mode": "append",
        "export": "ALL",
    }
    return wanted | ({"gres": "gpu:1"} if on_gpu else {})


def warning_s(seconds: int | None) -> int:
    """How long before its end a job is warned: less where it is short."""
    return WARNING_S if seconds is None else max(1, min(WARNING_S, seconds // 4))


def lines(options: Mapping[str, str]) -> list[str]:
    """``#SBATCH`` lines.

    Examples
    --------
    >>> lines({"time": "4:00:00", "exclusive": "", "comment": "a b"})
    ['#SBATCH --time=4:00:00', '#SBATCH --exclusive', '#SBATCH --comment="a b"']
    """
    return [f"#SBATCH --{name}{f'={_quoted(value)}' if value else ''}" for name, value in options.items()]


def _quoted(value: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./*()&|\[\]-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _require_possible(word: str, name: str, value: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        raise UserError(f"--slurm '{word}' names no option of sbatch - write for example --slurm partition=gpu")
    if name in OURS:
        raise UserError(f"--slurm {name} cannot be given: {OURS[name]}")
    if not value.isprintable():
        raise UserError(f"--slurm {name}: its value holds characters that no line of a file can hold")
    if name in ("time", "time-min") and value:
        seconds_of_limit(value)
    if name == "signal" and value and not re.search(r"\b(SIG)?(USR2|TERM|INT|HUP)\b", value.upper()):
        raise UserError(f"--slurm signal={value}: workers heed USR2, TERM, INT and HUP, and die of others")
