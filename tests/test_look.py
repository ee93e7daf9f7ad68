"""One look at a GPU: its parts are begun, ended, stopped and kept as it promises, and its tables say what was found."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import look
import look_tables

from stbench.errors import UserError

BENCHMARKS = Path(look.__file__).parent
HOST = {"device": "NVIDIA H200", "memory_bytes": 150e9, "driver": "580.1", "torch": "2.15.0", "cuda": "13.2"}
HOST |= {"cores": 16, "date": "2026-11-30T10:00:00+00:00", "meaningless": False}

# Parts ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``parts(name=source, ...)``: scripts with that source, which finds where to write as ``out``."""
    monkeypatch.setattr(look, "HERE", tmp_path / "scripts")
    (tmp_path / "scripts").mkdir()
    head = "import json, pathlib, sys, time\nout = pathlib.Path(sys.argv[sys.argv.index('--out') + 1])\n"

    def make(**sources: str) -> list[list[look.Part]]:
        for name, source in sources.items():
            (tmp_path / "scripts" / f"{name}.py").write_text(head + source)
        return [[look.Part(name, f"{name}.py", 20.0)] for name in sources]

    return make


def test_what_a_part_found_is_kept_when_it_fails_and_when_it_takes_too_long(tmp_path: Path, parts: Any) -> None:
    (sound,), (failing,), (slow,) = parts(
        measured="out.write_text(json.dumps(sys.argv[1:])); print('so far so good')",
        failing="out.write_text('{\"methods\": {\"stnet\": 1}}'); print('oh'); sys.exit(3)",
        slow="out.write_text('{\"half\": true}'); time.sleep(60)",
    )
    never = look.Part("never", "never.py", 5.0)
    groups = [[sound, failing], [replace(slow, limit_s=2.0)]]
    begun = time.monotonic()
    out = tmp_path / "look"
    report = look.look(out, "cpu", True, 0.5, groups)
    assert time.monotonic() - begun < 15
    ended = {name: part["ended"] for name, part in report["parts"].items()}
    assert ended == {
        "measured": "finished",
        "failing": "failed with exit code 3 - see log.txt",
        "slow": "stopped after 2 s - see log.txt",
    }
    assert report["parts"]["failing"]["found"] == {"methods": {"stnet": 1}}
    assert report["parts"]["slow"]["found"] == {"half": True}
    assert report["parts"]["measured"]["found"][2:] == ["--device", "cpu", "--tiny"]
    assert json.loads((out / "look.json").read_text()) == report
    assert json.loads((out / look.MEASURED).read_text()) == report["parts"]["measured"]["found"]
    assert "so far so good" in (out / "log.txt").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "look.json", look.MEASURED]
    with pytest.raises(UserError, match="holds an earlier look"):
        look.look(out, "cpu", True, 0.5, groups)
    left = look.look(tmp_path / "late", "cpu", True, 0.1, [[never]])  # less time than a part is begun with
    assert left["parts"]["never"]["ended"] == "not begun: no time was left"


def test_a_device_that_the_first_part_refuses_is_refused_in_one_line(tmp_path: Path, parts: Any) -> None:
    groups = parts(
        measured="print('error: no such card - buy one', file=sys.stderr); sys.exit(2)",
        later="out.write_text('{}')",
    )
    with pytest.raises(UserError) as refused:
        look.look(tmp_path / "look", "cuda", False, 1.0, groups)
    assert str(refused.value) == "no such card - buy one"
    assert not (tmp_path / "look" / look.LOOK).exists()


def test_what_a_later_part_refuses_ends_that_part_alone(
    tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    groups = parts(
        measured="out.write_text('{}')",
        later="at = sys.argv.index('--measured') + 1; sys.exit(0 if pathlib.Path(sys.argv[at]).exists() else 2)",
        last="sys.exit(2)",
    )
    groups[1][0] = replace(groups[1][0], own=False)
    report = look.look(Path("look"), "cpu", True, 1.0, groups)  # a relative path, from which parts are not started
    assert [part["ended"][:24] for part in report["parts"].values()] == [
        "finished",
        "finished",
        "failed with exit code 2 ",
    ]


def test_parts_are_ended_with_the_look(tmp_path: Path, parts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = parts(slow=f"out.write_text('{{}}'); pathlib.Path({str(tmp_path / 'at_work')!r}).touch(); time.sleep(60)")
    started: list[subprocess.Popen] = []
    wait = subprocess.Popen.wait

    def interrupted(self: subprocess.Popen, timeout: float | None = None) -> int:
        if timeout is None or self in started:
            return wait(self, timeout)
        started.append(self)
        while not (tmp_path / "at_work").exists():
            time.sleep(0.05)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        look.look(tmp_path / "look", "cpu", True, 1.0, groups)
    assert started[0].poll() is not None
    kept = json.loads((tmp_path / "look" / "look.json").read_text())
    assert kept["parts"]["slow"]["ended"] == "interrupted"
    assert kept["parts"]["slow"]["found"] == {}


def test_the_parts_fit_into_ten_minutes_and_are_scripts_of_the_folder() -> None:
    names = [part.name for group in look.PARTS for part in group]
    assert len(set(names)) == len(names)
    assert set(names) == {name for _, name, _ in look_tables.SECTIONS}
    for group in look.PARTS:
        for part in group:
            assert (BENCHMARKS / part.script).is_file()
            assert part.limit_s < 60 * look.MINUTES
    assert look.MINUTES < 10


@pytest.mark.slow
def test_a_tiny_look_runs_from_end_to_end_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, BENCHMARKS / "look.py", "--device", "cpu", "--tiny", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log[-5000:]}"
    text = (tmp_path / "look.md").read_text()
    for title, _, _ in look_tables.SECTIONS:
        assert f"### {title}" in text
    assert "What did not end" not in text
    again = subprocess.run(
        [sys.executable, BENCHMARKS / "look.py", "--again", tmp_path / "look.json"], capture_output=True, text=True
    )
    assert again.stdout == text


# Tables ---------------------------------------------------------------------------------------------------------------

COST = {
    **{"spots_in_batch": 361, "batch_s": 0.006, "bare_batch_s": 0.0058, "share": 0.967, "spots_per_s": 60_166.7},
    **{"flops_per_s": 36e12, "bf16_speedup": 2.5, "peak_memory_bytes": 2 * 2**30},
    **{"rounds_s": [0.006], "bare_rounds_s": [0.0058]},
}
ROW = {
    **{"operations": 312, "flops": 218e9, "bytes": 6.1e9, "peak_bytes": 1.7 * 2**30, "measured_s": 0.006},
    **{"measured_peak_bytes": 2 * 2**30, "host_s": 0.0016, "modelled_s": 0.0057, "fitted_s": 0.0059, "limit_s": 0.0032},
}
FOUND: dict[str, Any] = {
    "measured": HOST
    | {
        "precision": "fp32",
        "size": {"preset": "published", "n_spots": 361, "n_genes": 785, "side": 224, "changes": {}},
        "steps": 32,
        "methods": {"histogene": COST},
        "failed": {"mclstexp": "out of GPU memory (2.00 GiB more were wanted)"},
        "table1_hours": {"histogene": 0.31},
    },
    "counted": {
        "card": "h200",
        "methods": {"histogene": ROW},
        "fit": {"error_before": 0.21, "error": 0.02, "suggestion": "[everyday]\nproducts = 0.71"},
    },
    "published_loop": HOST
    | {"method": "mclstexp", "loader_per_s": [900.0], "published_per_s": [700.0], "harness_per_s": [2900.0]}
    | {"ratio": 4.14},
    "tests": HOST | {"tests": {"gpu/a.py::b": {"outcome": "failed", "seconds": 1.0, "reason": "1 is not 2"}}},
    "profile": HOST
    | {
        "methods": {
            "bleep": {"error": "out of memory"},
            "stnet": {
                **{"busy": 0.93, "kernels": 1500.0, "launches": 1490.0, "batches": 12, "batch_s": 0.01},
                **{"waits_in_epoch": {"cudaStreamSynchronize": 2}, "ms_by_kind": {"convolutions": 5.0, "copies": 0.1}},
            },
        }
    },
    "memory": HOST
    | {
        "methods": {
            "hist2st": [
                {"spots": 4895, "checkpointing": "off", "counted_bytes": 40 * 2**30, "error": "out of GPU memory"},
                {
                    **{"spots": 4895, "checkpointing": "on", "counted_bytes": 14 * 2**30},
                    **{"seconds": 0.5, "taken_bytes": 21 * 2**30},
                },
            ]
        }
    },
    "slots": HOST
    | {
        "methods": {
            "stnet": [
                {"slots": 1, "spots_per_s": 3000.0, "gain": 1.0, "reserved_bytes": 2**32},
                {"slots": 4, "error": "CUDA out of memory"},
            ]
        }
    },
    "compiled": HOST
    | {
        "backend": "inductor",
        "methods": {
            "stnet": {
                **{"eager": {"batch_s": 0.01, "loss": 2.0}, "compiled": {"batch_s": 0.008, "loss": 2.00002}},
                **{"ratio": 1.25, "compile_s": 40.0, "paid_after_steps": 20_000.0},
            },
            "bleep": {"error": "Triton is not there"},
        },
    },
    "precision": HOST
    | {
        "emulated": False,
        "methods": {"stnet": {"exchange": 1.5, "shares": {"fp32": {"of_spread": 0.001, "of_exchange": 0.0007}}}},
    },
}


def looked(**ended: str) -> dict[str, Any]:
    parts = {
        name: {"ended": ended.get(name, "finished"), "seconds": 1.0, "found": found} for name, found in FOUND.items()
    }
    return {"device": "cuda", "meaningless": False, "parts": parts}


def test_the_tables_say_what_was_found() -> None:
    text = look_tables.markdown(looked(precision="stopped after 60 s - see log.txt"))
    for line in (
        "NVIDIA H200 (140 GiB), driver 580.1, torch 2.15.0, CUDA 13.2, 16 cores, 2026-11-30",
        "* at least 0.95 of the bare loop: met (histogene 0.97)",
        "* a step in at most 1.5 times its counted limit: **not met** by histogene (1.88)",
        "* at least 3.5 times the published loop: met (mclstexp 4.14)",
        "| histogene | 361 | 6.00 | 5.80 | 0.967 | 60,167 | 36.0 | 2.50 | 2.0 | 0.31 |",
        "mclstexp was not measured: out of GPU memory (2.00 GiB more were wanted).",
        "| histogene | 312 | 218 | 6.1 | 1.6 | 3.20 | 5.70 | 5.90 | **6.00** | 1.88 | 1.7 / 2.0 |",
        "products = 0.71",
        "1 failed",
        "* failed: `gpu/a.py::b`: 1 is not 2",
        "| bleep | out of memory |  |  |  |  |",
        "| stnet | 93% | 1,500 | 1,490 | 2 in 12 batches | convolutions 5.00, copies 0.10 |",
        "| hist2st | 4,895 | off | 40.0 | out of GPU memory |  |  |",
        "| hist2st | 4,895 | on | 14.0 | 21.0 | 1.50 | 500.0 |",
        "| stnet | 4 | CUDA out of memory |  |  |",
        "| stnet | 10.00 | 8.00 | 1.25 | 40 | 20,000 batches | 1e-05 |",
        "| stnet | 1.5 | 0.001 / 0.0007 |",
        "* precision: stopped after 60 s - see log.txt",
    ):
        assert line in text.split("\n"), f"{line}\n{text}"


def test_tiny_sections_meet_no_goal_and_miss_none() -> None:
    text = look_tables.markdown(looked() | {"meaningless": True})
    assert text.startswith("Tiny sections: these numbers mean nothing.")
    assert "* at least" not in text
    assert "### Measured: training" in text


def test_a_look_that_found_nothing_says_so() -> None:
    report = looked()
    for part in report["parts"].values():
        part |= {"ended": "failed with exit code 2 - see log.txt", "found": None}
    text = look_tables.markdown(report)
    assert "nothing was measured" in text
    assert text.count("not measured") == 3
    assert text.count("failed with exit code 2") == len(FOUND)


def test_a_file_that_is_no_look_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "look.json"
    path.write_text("[]")
    with pytest.raises(UserError, match="is no result of"):
        look.main(["--again", str(path)])
    path.write_text('{"parts": ')
    with pytest.raises(UserError, match="is not valid JSON"):
        look.main(["--again", str(path)])
