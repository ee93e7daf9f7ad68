"""Runs of methods out of TOML files: in whatever environment, killed and gone on with, the numbers are Python's."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import anndata
import foreign_toml
import numpy as np
import own_sections
import pytest
import upstream

from stbench.data.prepare import prepare
from stbench.models.folder import read_model
from stbench.registry import dataset

IN_PROCESS = f"{foreign_toml.COLOUR_LINE}/in_process.py:ColourLine"
OLDER = ("numpy==1.26.4", "h5py==3.10.0", "anndata==0.9.2", "pandas==2.0.3", "scipy==1.11.4", "scikit-learn==1.3.2")
FAILS_ON_S2 = "if any(slide.id == 'S2' for slide in task.slides): raise RuntimeError('S2 was never seen')\n"


def trials(results: Path) -> Mapping[tuple[str, str], Path]:
    """By method and fold."""
    folders = (results / "trials").iterdir()
    specs = {folder: json.loads((folder / "spec.json").read_text(encoding="utf-8")) for folder in folders}
    return {(spec["name"], spec["fold"]): folder for folder, spec in specs.items()}


def state(folder: Path) -> dict:
    return json.loads((folder / "state.json").read_text(encoding="utf-8"))


def assert_same_predictions(results: Path, folds: list[str]) -> None:
    found = trials(results)
    for fold in folds:
        theirs, ours = (
            anndata.read_h5ad(found[name, fold] / f"predictions/{fold}.h5ad").X
            for name in ("colour_line", "colour_line_here")
        )
        np.testing.assert_array_equal(theirs, ours)


def edited(path: Path, after: str, added: str) -> None:
    """Put lines into a script, after one of its lines."""
    text = path.read_text(encoding="utf-8")
    assert after in text
    path.write_text(text.replace(after, after + added), encoding="utf-8")


def test_a_run_has_the_numbers_of_python_and_one_fold_that_fails_leaves_the_others(
    tmp_path: Path, stbench_command: Callable
) -> None:
    manifest = own_sections.write_manifest(tmp_path, {"S1": "P1", "S2": "P2", "S3": "P3"})
    toml = foreign_toml.colour_line(tmp_path)
    edited(tmp_path / "predict.py", "task = Task(sys.argv[1])\n", FAILS_ON_S2)
    results = tmp_path / "r"
    words = ("run", "--methods", f"{toml},{IN_PROCESS}", "--dataset", manifest, "--no-mlflow", "--out", results)
    settings = ("--set", "colour_line.penalty=0.25", "--set", f"{IN_PROCESS}.penalty=0.25")
    done = stbench_command(*words, *settings, "--save-models")
    assert done.code == 1, done.err
    assert_same_predictions(results, ["S1", "S3"])
    found = trials(results)
    failed = found["colour_line", "S2"]
    assert state(failed)["reason"].endswith("RuntimeError: S2 was never seen")
    log = (failed / "log.txt").read_text(encoding="utf-8")
    assert "train | numpy" in log
    assert "predict | RuntimeError: S2 was never seen" in log
    told = state(found["colour_line", "S1"])
    assert told["versions"]["own python"] == platform.python_version()

    model = read_model(found["colour_line", "S1"]).method
    data = prepare(dataset(str(manifest)), "spot-log10-cp10k", tmp_path / "cache")
    predicted = anndata.read_h5ad(found["colour_line", "S1"] / "predictions/S1.h5ad").X
    np.testing.assert_array_equal(model.predict(data.slides["S1"].for_test()), predicted)

    script = tmp_path / "predict.py"
    script.write_text(script.read_text(encoding="utf-8").replace(FAILS_ON_S2, ""), encoding="utf-8")
    mended = stbench_command(*words, *settings)
    assert mended.code == 0, mended.err
    assert len(trials(results)) == 6
    assert len(list((results / "trials").iterdir())) == 9  # mended code makes other trials; Python's stay


@pytest.fixture(scope="module")
def older_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with libraries of 2023."""
    folder = tmp_path_factory.mktemp("older") / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin/python"
    got = subprocess.run([python, "-m", "pip", "install", "-q", *OLDER], capture_output=True, text=True, check=False)
    if got.returncode:
        pytest.skip(f"older libraries cannot be installed here: {got.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow
def test_in_an_environment_of_other_versions_killed_and_gone_on_with_the_numbers_are_the_same(
    tmp_path: Path, older_python: Path, stbench_command: Callable
) -> None:
    toml = foreign_toml.colour_line(tmp_path, str(older_python))
    text = toml.read_text(encoding="utf-8")
    upstream.write_text(toml, text.replace('files = ["colour_line.py"]', 'files = ["colour_line.py"]\nresumes = true'))
    edited(tmp_path / "predict.py", "task = Task(sys.argv[1])\n", FAILS_ON_S2.replace("S2", "P2a"))
    begun = tmp_path / "begun"
    # in the third trial it waits, once, to be killed
    waits = (
        "import anndata, glob, time\n"
        "for path in glob.glob(sys.argv[1] + '/*.h5ad'): assert anndata.read_h5ad(path).obsm['spatial'].shape[1] == 2\n"
        f"with open({str(begun)!r}, 'a') as file: file.write(task.checkpoint + '\\n')\n"
        "mark = os.path.join(task.checkpoint, 'mark')\n"
        f"if len(open({str(begun)!r}).readlines()) == 3:\n    open(mark, 'w').close()\n    time.sleep(600)\n"
        "print('went on' if os.path.exists(mark) else 'began')\n"
    )
    edited(tmp_path / "train.py", "task = Task(sys.argv[1])\n", waits)
    results = tmp_path / "r"
    words = ("run", "--methods", f"{toml},{IN_PROCESS}", "--dataset", "demo", "--no-mlflow", "--out", results)
    process = subprocess.Popen([sys.executable, "-m", "stbench.cli", *map(str, words)], stdout=subprocess.DEVNULL)
    until = time.monotonic() + 600
    while not (begun.exists() and len(begun.read_text(encoding="utf-8").splitlines()) == 3):
        assert process.poll() is None
        assert time.monotonic() < until
        time.sleep(0.2)
    process.kill()
    process.wait()
    done = stbench_command(*words)
    assert done.code == 1, done.err
    assert_same_predictions(results, ["P1a", "P1b", "P2b", "P3a", "P3b"])
    found = trials(results)
    assert state(found["colour_line", "P2a"])["reason"].endswith("P2a was never seen")
    logs = [
        (found["colour_line", fold] / "log.txt").read_text(encoding="utf-8")
        for fold in ("P1a", "P1b", "P2a", "P2b", "P3a", "P3b")
    ]
    assert sum("train | went on" in log for log in logs) == 1
    assert all("numpy==1.26.4" in log and "train | numpy 1.26.4" in log for log in logs)
    assert not list(results.glob("attempts/*/*/checkpoint"))
