"""A package from each template in an environment of its own, beside the built wheel of stbench.

Of this environment only libraries of others are seen: stbench is what was built, and found by what was installed.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest
from built_wheel import build_wheel

pytestmark = pytest.mark.slow  # 1 minute; `make test-template` runs it
UV = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("new")


@pytest.fixture(scope="module")
def run(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """``run("stbench", ...)``: a program of the new environment, in the folder of the packages; ``uv`` installs."""
    if UV is None:
        pytest.skip("uv is not installed, which `make` has beside Python")
    home = tmp_path_factory.mktemp("environment")
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    # a plain path: the editable install of stbench that lies there is not followed
    (site / "libraries_of_others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    # from an entry, too, uv's own environment variables would win
    around = {
        name: value for name, value in os.environ.items() if not name.startswith(("UV_", "VIRTUAL_ENV", "PYTHON"))
    }

    def call(program: str, *words: object) -> subprocess.CompletedProcess[str]:
        path = UV if program == "uv" else str(home / "bin" / program)
        environment = around | {"VIRTUAL_ENV": str(home), "STBENCH_CACHE": str(home / "cache"), "COLUMNS": "200"}
        command = [path, *map(str, words)]
        return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)

    install(call, build_wheel(tmp_path_factory.mktemp("wheel")))
    return call


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(run: Run, *packages: Path) -> None:
    """What they need is there already, and nothing is asked for elsewhere."""
    succeeded(run("uv", "pip", "install", "--offline", "--no-deps", "--no-build-isolation", *packages))


def test_packages_from_the_templates_install_pass_run_and_are_gone_again(run: Run, folder: Path) -> None:
    succeeded(run("stbench", "new", "method", "new_torch", "--title", "My network"))
    succeeded(run("stbench", "new", "method", "new_numpy", "--numpy"))
    succeeded(run("stbench", "new", "dataset", "new_cohort"))
    assert "unknown method 'new_numpy'" in run("stbench", "methods", "check", "new_numpy").stderr
    install(run, *(folder / name for name in ("new_torch", "new_numpy", "new_cohort")))

    listed = succeeded(run("stbench", "methods", "list"))
    assert "My network" in listed
    assert "new_numpy" in listed
    checked = succeeded(run("stbench", "methods", "check", "new_numpy"))
    assert "FAIL" not in checked

    words = ("--dataset", "demo", "--slices", "P1a,P2a,P3a", "--preset", "quick", "--no-mlflow", "--out", "results")
    succeeded(run("stbench", "run", "--methods", "new_numpy,training_mean", *words))
    with (folder / "results" / "summary.csv").open(encoding="utf-8", newline="") as table:
        rows = list(csv.DictReader(table))
    assert {(row["method"], row["state"]) for row in rows} == {("new_numpy", "finished"), ("training_mean", "finished")}

    # their own tests, slow ones included: batteries, runs, and the dataset on its miniature
    tests = [f"{name}/tests" for name in ("new_torch", "new_numpy", "new_cohort")]
    tested = succeeded(
        run("python", "-m", "pytest", "-c", "new_torch/pyproject.toml", "--import-mode=importlib", *tests)
    )
    assert "skipped" not in tested

    succeeded(run("uv", "pip", "uninstall", "new-torch", "new-numpy", "new-cohort"))
    gone = run("stbench", "methods", "check", "new_torch")
    assert gone.returncode == 2
    assert "unknown method 'new_torch'" in gone.stderr
