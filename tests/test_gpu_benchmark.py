"""The GPU benchmark runs with one command where nothing but the training side's libraries is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import comparison
import gpu

from stbench.errors import UserError

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
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "stnett" in done.stderr
    assert not (tmp_path / "performance.json").exists()


# Compared with an earlier measurement --------------------------------------------------------------------------------

EARLIER = {
    "device": "NVIDIA H200",
    "memory_bytes": 150_000_000_000,
    "driver": "580.1",
    "torch": "2.15.0",
    "cuda": "13.2",
    "cores": 16,
    "date": "2026-11-30T10:00:00+00:00",
    "precision": "fp32",
    "size": {"preset": "published", "n_spots": 361, "n_genes": 785, "side": 224, "changes": {}},
    "steps": 32,
    "meaningless": False,
    "failed": {},
}


def _cost(ms: float, share: float = 0.97, gib: float = 4.0, jitter: float = 0.0) -> dict[str, Any]:
    rounds = [1e-3 * ms * (1 + jitter * i) for i in (-1, 0, 0, 0, 1)]
    return {
        "batch_s": 1e-3 * ms,
        "rounds_s": rounds,
        "bare_batch_s": 1e-3 * ms * share,
        "bare_rounds_s": rounds,
        "share": share,
        "peak_memory_bytes": int(gib * 2**30),
    }


@pytest.fixture
def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """``compared(old, new)``: exit code and print of the comparison of two files with these costs by method."""

    def compare(old: dict[str, Any], new: dict[str, Any], **other: Any) -> tuple[int, str]:
        files = tmp_path / "old.json", tmp_path / "new.json"
        files[0].write_text(json.dumps(EARLIER | {"methods": old}))
        files[1].write_text(json.dumps(EARLIER | {"date": "later", "driver": "590.2"} | other | {"methods": new}))
        code = gpu.main(["--compare", str(files[0]), "--measured", str(files[1])])
        return code, capsys.readouterr().out

    return compare


def test_nothing_is_worse_within_the_noise_that_both_measured(compared: Callable) -> None:
    code, told = compared({"stnet": _cost(10.0), "bleep": _cost(30.0)}, {"stnet": _cost(10.1), "bleep": _cost(29.0)})
    assert code == 0
    assert "nothing has become worse" in told
    assert "| stnet | 10.10 | 1.010 | 0.970 | 1.000 | 4.00 | 1.000 | 2.0% |" in told
    # rounds that lie 5 % around their median: 3 times their mean distance of 2 %, of each of the two, and the 2 %
    code, told = compared({"stnet": _cost(10.0, jitter=0.05)}, {"stnet": _cost(11.3, jitter=0.05)})
    assert code == 0
    assert "| stnet | 11.30 | 1.130 | 0.970 | 1.000 | 4.00 | 1.000 | 14.0% |" in told


def test_each_regression_is_a_line_and_the_exit_code_1(compared: Callable) -> None:
    before = {"stnet": _cost(10.0), "bleep": _cost(30.0), "histogene": _cost(5.0)}
    code, told = compared(before, {"stnet": _cost(10.3), "bleep": _cost(30.0, share=0.9, gib=4.1)})
    assert code == 1
    lines = [line for line in told.splitlines() if line.startswith("worse: ")]
    assert [line.split(": ")[1:3] for line in lines] == [
        ["stnet", "seconds of a batch 0.01 -> 0.0103, worse by 3.0%, of which 2.0% may be noise"],
        ["bleep", "share of the bare loop 0.97 -> 0.9, worse by 7.8%, of which 2.0% may be noise"],
        ["bleep", "GiB at most 4 -> 4.1, worse by 2.5%, of which 1.0% may be noise"],
    ]
    assert "histogene" not in told  # was not measured again
    assert compared({"stnet": _cost(10.0, jitter=0.05)}, {"stnet": _cost(11.5, jitter=0.05)})[0] == 1


def test_memory_that_is_not_known_is_not_compared(compared: Callable) -> None:
    unknown = _cost(10.0) | {"peak_memory_bytes": None}
    code, told = compared({"stnet": unknown}, {"stnet": unknown})
    assert code == 0
    assert "| unknown |" in told


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"device": "NVIDIA A100-SXM4-80GB"}, "another card (NVIDIA H200, now NVIDIA A100-SXM4-80GB)"),
        ({"precision": "tf32"}, "another precision (fp32, now tf32)"),
        ({"torch": "2.16.0", "cuda": "14.0"}, "another torch (2.15.0, now 2.16.0); another CUDA (13.2, now 14.0)"),
        ({"size": {"preset": "quick"}}, "other sections"),
        ({"steps": 8}, "epochs of other lengths (32, now 8)"),
    ],
)
def test_what_was_measured_otherwise_is_not_compared(compared: Callable, other: dict, said: str) -> None:
    with pytest.raises(UserError) as refused:
        compared({"stnet": _cost(10.0)}, {"stnet": _cost(20.0)}, **other)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_other_methods_are_not_compared(compared: Callable) -> None:
    with pytest.raises(UserError, match=r"no method of both \(stnet, now bleep\)"):
        compared({"stnet": _cost(10.0)}, {"bleep": _cost(10.0)})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ('{"device": "NVIDIA H200", ', "Expecting"),
        ("[]", "list indices"),
        ("{}", "it has no 'device'"),
        (json.dumps(EARLIER | {"methods": {}}), "of no method"),
        (json.dumps(EARLIER | {"methods": {"stnet": {"batch_s": 1.0}}}), "it has no 'rounds_s'"),
        (json.dumps(EARLIER | {"methods": {"stnet": _cost(10.0) | {"rounds_s": []}}}), "no median for empty data"),
        (json.dumps(EARLIER | {"methods": {"stnet": _cost(0.0)}}), "took no time"),
        (json.dumps(EARLIER | {"methods": {"stnet": _cost(10.0) | {"share": -1}}}), "not positive"),
        (json.dumps(EARLIER | {"methods": {"stnet": _cost(10.0) | {"batch_s": "10"}}}), "'>' not supported"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "old.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as refused:
        gpu.main(["--compare", str(path)])
    assert said in str(refused.value)
    assert "make one by --out" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_earlier_measurement_is_repeated_as_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "MEASURED_EPOCHS", 2)
    monkeypatch.setattr(comparison, "FLOOR", 1e6)  # nothing of a tiny step's time says anything
    monkeypatch.chdir(tmp_path)
    earlier = tmp_path / "performance.json"
    gpu.main(["--device", "cpu", "--tiny", "--steps", "1", "--methods", "histogene"])
    before = earlier.read_text()
    assert gpu.main(["--device", "cpu", "--compare", str(earlier)]) == 0
    assert earlier.read_text() == before  # nothing is written over it
    assert "| histogene | " in capsys.readouterr().out
    with pytest.raises(UserError, match="another precision"):
        gpu.main(["--device", "cpu", "--compare", str(earlier), "--precision", "bf16"])
    with pytest.raises(UserError, match="leave out --tiny"):
        gpu.main(["--device", "cpu", "--compare", str(earlier), "--tiny"])
    with pytest.raises(UserError, match="name the earlier file by --compare"):
        gpu.main(["--measured", str(earlier)])
    absent = json.loads(before)
    absent["methods"]["stnett"] = absent["methods"].pop("histogene")
    earlier.write_text(json.dumps(absent))
    with pytest.raises(UserError, match="unknown method 'stnett'"):
        gpu.main(["--device", "cpu", "--compare", str(earlier)])
