"""What a method's TOML file says: its names, its environment, its two commands, its settings and what it costs."""

from __future__ import annotations

import shlex
import string
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ..errors import UserError, first_problem, reason_of
from ..system.precision import Precision

EXCHANGE = 1  # version of the exchange folder
# what stands in braces in a command, beside the settings' names
PLACES = ("here", "task", "model", "checkpoint", "seed", "device", "threads", "precision")
ONLY_IN_TRAIN = ("checkpoint",)
KINDS = ("python", "conda", "apptainer", "docker")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Environment(_Part):
    """Where the commands run: one of a Python interpreter, a conda environment, an Apptainer or a Docker image."""

    python: str | None = None  # path of an interpreter, or its name on PATH
    conda: str | None = None  # name or folder of an environment
    apptainer: str | None = None  # path of an image, or docker://NAME
    docker: str | None = None  # name of an image
    variables: Mapping[str, str] = {}  # set for the commands
    options: tuple[str, ...] = ()  # further options of conda run, apptainer exec or docker run
    binds: tuple[str, ...] = ()  # folders that a container sees beside this file's, read-only

    @model_validator(mode="after")
    def _is_one(self) -> Environment:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"give one of {', '.join(KINDS)}, not {' and '.join(given) or 'none'}")
        if self.python is not None and self.options:
            raise ValueError("options are for conda, apptainer and docker - write them into the commands")
        if self.binds and not self.in_container:
            raise ValueError("binds are for apptainer and docker")
        return self

    @property
    def kind(self) -> str:
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def in_container(self) -> bool:
        return self.kind in ("apptainer", "docker")


class Expense(_Part):
    """What a trial takes until a first one was measured. What is not said is taken as for any unknown method."""

    minutes: float | None = Field(default=None, gt=0)  # of training one fold
    memory_gib: float | None = Field(default=None, gt=0)
    gpu_memory_gib: float | None = Field(default=None, gt=0)
    model_mib: float | None = Field(default=None, ge=0)  # a trained model, where it is kept


class Definition(_Part):
    """A method's TOML file."""

    exchange: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    title: str = Field(min_length=1)
    kind: Literal["method", "control"] = "method"
    description: str = ""
    train: tuple[str, ...]  # words
    predict: tuple[str, ...]
    files: tuple[str, ...] = ()  # code that the numbers depend on, beside files that the commands name
    weights: str = Field(default="none", min_length=1)
    whole_slide: bool = False
    same_patient: bool = False
    resumes: bool = False  # the train command goes on from what it left in {checkpoint}
    precisions: tuple[Precision, ...] = ("fp32",)  # values of --precision that it is safe in
    environment: Environment
    settings: Mapping[str, Any] = {}
    presets: Mapping[str, Mapping[str, Any]] = {}
    cost: Expense = Expense()

    @field_validator("train", "predict", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        return tuple(shlex.split(value)) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _can_be_filled_in(self) -> Definition:
        for name in self.settings:
            if name in PLACES:
                raise ValueError(f"the setting '{name}' has the name of a place that every command knows - rename it")
        for what, words, barred in (
            ("train", self.train, ()),
            ("predict", self.predict, ONLY_IN_TRAIN),
            ("weights", (self.weights,), PLACES),
        ):
            if not words:
                raise ValueError(f"{what} is empty - give a command")
            known = [name for name in (*PLACES, *self.settings) if name not in barred]
            for name in placeholders(words):
                if name not in known:
                    raise ValueError(
                        f"{what} has {{{name}}}, which is none of {', '.join(known)} - write {{{{ for a plain brace"
                    )
        return self


def placeholders(words: Sequence[str]) -> list[str]:
    """Names that stand in braces."""
    return [name for word in words for _, name, _, _ in string.Formatter().parse(word) if name is not None]


def filled(words: Sequence[str], values: Mapping[str, Any]) -> list[str]:
    """A command's words with what stands in braces replaced; numbers and lists as JSON has them."""
    texts = {name: _as_word(value) for name, value in values.items()}
    return [word.format_map(texts) for word in words]


def _as_word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(_as_word, value)) if isinstance(value, list | tuple) else str(value)


def read_definition(path: Path) -> Definition:
    """The definition in a TOML file; ``UserError``, with the place, where it is none."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({reason_of(error)})") from error
    except ValueError as error:
        raise UserError(f"{path} is not valid TOML ({error})") from error
    version = content.get("exchange", EXCHANGE)
    if version != EXCHANGE:
        raise UserError(f"{path} is written for version {version!r} of the exchange folder, this is {EXCHANGE}")
    try:
        return Definition.model_validate(content)
    except ValidationError as error:
        problem = first_problem(error).replace("Value error, ", "")
        raise UserError(f"{path}: {problem} - docs/adding.md says what the file holds") from error
