"""From the environment of a method's TOML file to a process: its words, its variables, and how it is ended."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import MethodFailed, UserError
from ..system.user_paths import expanded, unset_variables
from .definition import Environment

# of the harness's own environment; another interpreter would find the wrong libraries by them
OF_OUR_PYTHON = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONEXECUTABLE", "__PYVENV_LAUNCHER__", "VIRTUAL_ENV")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
PASSED_ON = ("CUDA_VISIBLE_DEVICES", "OMP_WAIT_POLICY")  # into containers
INTERPRETERS = ("python", "python3")
PROGRAMS = {"conda": ("conda", "mamba", "micromamba"), "apptainer": ("apptainer", "singularity"), "docker": ("docker",)}
INVENTORY_S = 120.0  # on a network file system a first start takes its time
# of any Python since 3.6; the packages are told without pip, which an environment may lack
INVENTORY = """
import json, platform
try:
    from importlib.metadata import distributions
    found = {(d.metadata["Name"] or "?") + "==" + (d.version or "?") for d in distributions()}
except ImportError:
    import pkg_resources
    found = {d.project_name + "==" + d.version for d in pkg_resources.working_set}
print(json.dumps({"python": platform.python_version(), "packages": sorted(found)}))
"""


@dataclass(frozen=True)
class Launch:
    """A process to be started. ``end``: the command that ends what is not among its processes, as a container is."""

    words: tuple[str, ...]
    variables: Mapping[str, str]  # all that it has
    end: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A command that is to run in an environment."""

    words: Sequence[str]
    folder: Path  # where it runs
    writable: tuple[Path, ...]  # what a container sees of the file system, beside the environment's own binds
    readable: tuple[Path, ...]
    variables: Mapping[str, str]  # beside those of the environment
    gpu: bool = False
    token: str = "stbench"  # a name that no other process has


def launch(environment: Environment, here: Path, wanted: Wanted) -> Launch:
    """How a command is run in an environment. ``here``: the folder from which the environment's relative paths count.

    Raises ``UserError`` where this machine lacks the interpreter, the program or the image.
    """
    return _LAUNCHERS[environment.kind](environment, here, wanted)


def _python(environment: Environment, here: Path, wanted: Wanted) -> Launch:
    assert environment.python is not None
    python = interpreter(environment.python, here)
    first = str(python) if wanted.words[0] in INTERPRETERS else wanted.words[0]
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return Launch((first, *wanted.words[1:]), _outside() | {"PATH": path} | _inside(environment, wanted))


def _conda(environment: Environment, here: Path, wanted: Wanted) -> Launch:
    assert environment.conda is not None
    name, program = environment.conda, _program("conda")
    is_folder = os.sep in name or name.startswith(("~", "$"))
    where = ("--prefix", str(_placed(name, here))) if is_folder else ("--name", name)
    streams = (
        () if Path(program).name == "micromamba" else ("--no-capture-output",)
    )  # else nothing is heard till the end
    words = (program, "run", *streams, *environment.options, *where, *wanted.words)
    return Launch(words, _outside() | _inside(environment, wanted))


def _apptainer(environment: Environment, here: Path, wanted: Wanted) -> Launch:
    assert environment.apptainer is not None
    words = [
        _program("apptainer"),
        "exec",
        "--cleanenv",
        *(["--nv"] if wanted.gpu else []),
        "--pwd",
        str(wanted.folder),
    ]
    for path, mode in _binds(environment, here, wanted):
        words += ["--bind", f"{path}:{path}:{mode}"]
    for name, value in (_passed_on() | _inside(environment, wanted)).items():
        words += ["--env", f"{name}={value}"]
    return Launch((*words, *environment.options, _image(environment.apptainer, here), *wanted.words), _outside())


def _docker(environment: Environment, here: Path, wanted: Wanted) -> Launch:
    assert environment.docker is not None
    program = _program("docker")
    # as the user, so that what it writes is the user's; with the host's shared memory, which workers of loaders fill
    user = ("--user", f"{os.getuid()}:{os.getgid()}")
    words = [program, "run", "--rm", "--init", "--name", wanted.token, *user, "--ipc", "host"]
    words += [*(["--gpus", "all"] if wanted.gpu else []), "--workdir", str(wanted.folder)]
    for path, mode in _binds(environment, here, wanted):
        words += ["--mount", f"type=bind,source={path},target={path}{',readonly' if mode == 'ro' else ''}"]
    home = {"HOME": str(wanted.folder)}  # the user has none in an image, and libraries keep caches there
    for name, value in (home | _passed_on() | _inside(environment, wanted)).items():
        words += ["--env", f"{name}={value}"]
    words += [*environment.options, environment.docker, *wanted.words]
    return Launch(tuple(words), _outside(), (program, "rm", "--force", wanted.token))


_LAUNCHERS: Mapping[str, Callable[[Environment, Path, Wanted], Launch]] = {
    "python": _python,
    "conda": _conda,
    "apptainer": _apptainer,
    "docker": _docker,
}


def require_environment(environment: Environment, here: Path) -> None:
    """``UserError`` where this machine lacks the interpreter, the program or the image."""
    if environment.python is not None:
        interpreter(environment.python, here)
        return
    _program(environment.kind)
    if environment.apptainer is not None:
        _image(environment.apptainer, here)
    for name in environment.binds:
        if not _placed(name, here).exists():
            raise UserError(f"environment.binds: there is no folder {name}{unset_variables(name)}")


def interpreter(name: str, here: Path) -> Path:
    """The path of a Python interpreter; links are kept, as a virtual environment's interpreter is one."""
    if os.sep not in name and not name.startswith(("~", "$")):
        found = shutil.which(name)
        if found is None:
            raise UserError(f"environment.python: there is no program {name} on PATH - give the interpreter's path")
        return Path(found)
    path = _placed(name, here)
    if path.is_dir():
        raise UserError(f"environment.python: {name} is a folder - give the interpreter in it, {name}/bin/python")
    if not os.access(path, os.X_OK):
        what = "cannot be run" if path.exists() else "is not there"
        raise UserError(f"environment.python: {path} {what}{unset_variables(name)} - give an interpreter's path")
    return path


@cache
def inventory(words: tuple[str, ...], variables: tuple[tuple[str, str], ...]) -> tuple[str, tuple[str, ...]]:
    """The version of the Python that ``words`` start, and what is installed there, ``name==version``."""
    try:
        told = subprocess.run(
            [*words, "-c", INVENTORY],
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=INVENTORY_S,
            check=True,
        )
        facts = json.loads(told.stdout.decode("utf-8").strip().splitlines()[-1])
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
        raise MethodFailed(
            f"its environment's Python cannot be started ({' '.join(words)}): {' '.join(last)}"
        ) from error
    except (subprocess.TimeoutExpired, OSError, ValueError, IndexError) as error:
        raise MethodFailed(
            f"its environment's Python cannot be asked what it is ({' '.join(words)}): {error}"
        ) from error
    return str(facts["python"]), tuple(facts["packages"])


def _outside() -> dict[str, str]:
    """The variables of this process that are not about its own Python."""
    return {name: value for name, value in os.environ.items() if name not in OF_OUR_PYTHON}


def _inside(environment: Environment, wanted: Wanted) -> dict[str, str]:
    return {**environment.variables, **wanted.variables}


def _passed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def _placed(name: str, here: Path) -> Path:
    """A path of the TOML file; a relative one counts from the file's folder."""
    return Path(os.path.abspath(here / expanded(name)))


def _program(kind: str) -> str:
    if kind == "conda" and os.access(os.environ.get("CONDA_EXE", ""), os.X_OK):
        return os.environ["CONDA_EXE"]
    for name in PROGRAMS[kind]:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UserError(
        f"environment.{kind}: this machine has no {' or '.join(PROGRAMS[kind])} on PATH - install or load it"
    )


def _image(name: str, here: Path) -> str:
    if "://" in name:
        return name
    path = _placed(name, here)
    if not path.exists():
        raise UserError(
            f"environment.apptainer: there is no image {path}{unset_variables(name)} - give a file or docker://NAME"
        )
    return str(path)


def _binds(environment: Environment, here: Path, wanted: Wanted) -> list[tuple[Path, str]]:
    """Folders that a container sees, each once, under their own paths; ``rw`` or ``ro``."""
    found = {path: "ro" for path in (here, *(_placed(name, here) for name in environment.binds), *wanted.readable)}
    found |= {path: "rw" for path in wanted.writable}
    return list(found.items())
