"""``--engine script``: files for Slurm, for GNU parallel and for Snakemake; and options that are refused."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conformance import Heard, trouble
from test_engines import planned

from stbench.errors import LeftToOthers
from stbench.trials.engines.script import ScriptEngine
from stbench.trials.engines.slurm.arrays import Layout
from stbench.trials.engines.slurm.options import SbatchOptions
from stbench.trials.engines.slurm.script import WorkerCommand
from stbench.trials.outcome import state_of

__all__ = ["planned"]  # a fixture
DEMO = ("--dataset", "demo", "--preset", "quick", "--slices", "P1a,P2a", "--no-mlflow")


def written(results: Path, keys: list[str], *words: str, **command: object) -> Path:
    """The folder of the files that the engine writes."""
    layout = Layout(SbatchOptions.parse(words), WorkerCommand(**command))  # type: ignore[arg-type]
    with pytest.raises(LeftToOthers):
        ScriptEngine(layout).run(results, keys, Heard(), lambda: False)
    return results / "batch"


def test_files_are_written_and_nothing_is_run(tmp_path: Path, stbench_command: Callable) -> None:
    results = tmp_path / "it's {here} 100%"
    words = ("run", "--methods", "training_mean", *DEMO, "--engine", "script", "--slurm", "time=4:00:00")
    done = stbench_command(*words, "--slurm-setup", "module load x", "--trial-time", "2h", "--out", results)
    assert done.code == 0
    assert "2 trials in 1 lists" in done.out
    assert "nothing was run" in done.out
    for way in ("sbatch", "parallel --jobs 2 <", "snakemake --snakefile"):
        assert f"{way} {shlex.quote(str(results))[:-1]}" in done.out
    assert list((results / "trials").iterdir()) == []
    (script,) = results.glob("batch/*/worker.sbatch")
    text = script.read_text()
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert "#SBATCH --time=4:00:00\n" in text
    assert f'#SBATCH --output="{str(script.parent).replace("%", "%%")}/logs/%a.log"\n' in text
    assert "\nmodule load x\n[ $? -eq 0 ] || missing 'the setup line failed: module load x'\n" in text
    assert "--trial-time 2h" in text.splitlines()[-1]
    (command,) = (results / "batch" / "jobs.txt").read_text().splitlines()
    assert shlex.split(command)[-4:-2] == ["--trials", str(script.parent / "lists" / "0.txt")]


def test_the_file_says_what_is_missing_on_a_node(planned: Callable, tmp_path: Path) -> None:
    results, keys = planned(1)
    (script,) = written(results, keys).glob("*/worker.sbatch")
    text = script.read_text()
    here = {"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "0", "SLURM_JOB_ID": "7", "SLURM_CPUS_ON_NODE": "1"}

    def run(changed: str, **more: str) -> tuple[int, str]:
        done = subprocess.run(["bash", "-c", changed], env=here | more, capture_output=True, text=True)
        return done.returncode, done.stderr

    gone = text.replace("python=/", "python=/gone/", 1)
    code, words = run(gone)
    assert (code, words.count("\n")) == (2, 1)
    assert "stbench: there is no Python at /gone/" in words
    assert "job 7" in words
    code, words = run(
        text.replace("\nfor pause", "\nfalse\n[ $? -eq 0 ] || missing 'the setup line failed: false'\nfor pause")
    )
    assert (code, "the setup line failed: false" in words) == (2, True)
    empty = tmp_path / "python"
    empty.write_text("#!/bin/sh\nexit 1\n")
    empty.chmod(0o755)
    code, words = run(
        "\n".join(f"python={empty}" if line.startswith("python=") else line for line in text.splitlines())
    )
    assert (code, "cannot import stbench" in words) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--slurm", "mem=4G"), "--slurm is an option of --engine slurm and script, not of local"),
        (("--detach",), "--detach is an option of --engine slurm, not of local"),
        (("--engine", "script", "--detach"), "--detach is an option of --engine slurm, not of script"),
        (("--engine", "script", "--slots", "2"), "--slots is an option of --engine local, not of script"),
        (("--engine", "script", "--slurm", "time=4h"), "time=4h is no time of Slurm's"),
        (("--engine", "script", "--max-parallel", "0"), "--max-parallel 0 is no number of workers"),
        (("--engine", "script", "--slurm-setup", ""), "--slurm-setup takes one line of shell"),
        (("--engine", "slurm"), "there is no sbatch on PATH"),
        (("--engine", "slurn"), "unknown engine 'slurn' - did you mean 'slurm'?"),
    ],
)
def test_what_cannot_be_is_one_line(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = stbench_command("run", "--methods", "training_mean", *DEMO, *words, "--out", tmp_path / "r")
    assert done.code == 2
    assert message in done.err
    assert not (tmp_path / "r").exists()


SNAKEMAKE = os.environ.get("STBENCH_SNAKEMAKE") or shutil.which("snakemake")


@pytest.mark.slow
@pytest.mark.skipif(SNAKEMAKE is None, reason="no snakemake on PATH, and STBENCH_SNAKEMAKE names none")
def test_snakemake_is_killed_and_goes_on(planned: Callable) -> None:
    """Whatever it removes of its own, nothing that ended is run again."""
    results, planned_keys = planned(2)
    folder = written(results, planned_keys, "cpus-per-task=1")
    keys = next(folder.glob("*/lists/0.txt")).read_text().split()
    trouble(results, **{keys[1]: "raise", keys[2]: "wait"})
    snakemake = [str(SNAKEMAKE), "--snakefile", str(folder / "Snakefile"), "--cores", "2", "--groups", "worker=w"]
    first = subprocess.Popen(snakemake, start_new_session=True, cwd=folder)
    begun = results / "begun.txt"
    until = time.monotonic() + 180
    while not (begun.is_file() and len(begun.read_text().splitlines()) == 3):
        assert time.monotonic() < until
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    trouble(results)
    subprocess.run([*snakemake[:5], "--unlock"], check=True, cwd=folder)
    assert subprocess.run([*snakemake, "--rerun-incomplete"], check=False, cwd=folder).returncode == 0
    assert [state_of(results, key).state for key in keys] == ["finished", "failed", "finished", "finished"]
    counts = [line.split()[0] for line in begun.read_text().splitlines()]
    assert [counts.count(key) for key in keys] == [1, 1, 2, 1]
    done = subprocess.run(snakemake, check=True, cwd=folder, capture_output=True, text=True)
    assert "Nothing to be done" in done.stdout + done.stderr
