"""The GPU benchmark runs with one command where nothing but the training side's libraries is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
# as on a machine where these are not installed: no finder finds them
WITHOUT = """
import runpy, sys

absent = {"pandas", "anndata", "typer", "mlflow", "scanpy", "sklearn", "matplotlib", "seaborn", "h5py", "scipy"}

class Finder:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.split(".")[0] in absent else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Finder, sys.meta_path)
script, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, script.rpartition("/")[0])
runpy.run_path(script, run_name="__main__")
assert not absent & {name.split(".")[0] for name in sys.modules}
"""


def _run(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT, str(SCRIPT), *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )


def test_all_methods_are_measured_without_the_libraries_of_tables_and_figures(tmp_path: Path) -> None:
    out = tmp_path / "performance.json"
    done = _run("--device", "cpu", "--tiny", "--steps", "1", "--out", out)
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["meaningless"]
    assert "these numbers mean nothing" in done.stdout
    assert set(report["methods"]) == {"stnet", "histogene", "hist2st", "thitogene", "bleep", "mclstexp"}
    for name, cost in report["methods"].items():
        assert cost["precision"] == "fp32"
        assert cost["peak_memory_bytes"] is None  # not known on a CPU, and said so
        assert cost["utilisation"] is None
        assert cost["flops_per_batch"] > 0, name
        assert cost["share"] == pytest.approx(cost["spots_per_s"] / cost["bare_spots_per_s"])
        # a HER2+ fold: all spots but a mean slice's, once an epoch
        assert cost["fold_s"]["her2st"] == pytest.approx(EPOCHS[name] * 11_548 * 31 / 32 / cost["spots_per_s"])
        hours = sum(folds * cost["fold_s"][dataset] for dataset, folds in FOLDS.items()) / 3600
        assert report["table1_hours"][name] == pytest.approx(hours)
        assert f"| {name} | " in done.stdout


EPOCHS = {"stnet": 50, "histogene": 100, "hist2st": 350, "thitogene": 300, "bleep": 50, "mclstexp": 90}
FOLDS = {"her2st": 32, "cscc": 12, "alex10x": 9}


def test_an_unknown_method_is_refused_in_one_line(tmp_path: Path) -> None:
    done = _run("--device", "cpu", "--tiny", "--methods", "stnett", "--out", tmp_path / "performance.json")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "stnett" in done.stderr
    assert not (tmp_path / "performance.json").exists()
