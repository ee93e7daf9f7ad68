"""Runs the tests that are marked ``gpu``, and keeps what became of each, as far as it has come.

    python benchmarks/gpu_tests.py --out tests.json

Files without such a test are not opened: they may need what a machine with a card has not. On a CPU the same bodies run
that a CPU can run; with ``--tiny`` those alone that take no time.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import command
import machine
import pytest

from stbench.system.files import write_json

ROOT = Path(__file__).parents[1]
MARK, FOLDER = "mark.gpu", "gpu"
QUICK = ("test_gpu_arithmetic.py", "test_gpu_patches.py")  # all that run where --tiny: the suite runs the others


class Kept:
    """A plugin of pytest: after each test the file is written anew."""

    def __init__(self, out: Path, report: dict[str, Any]) -> None:
        self.out, self.report = out, report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.passed:
            return
        name = report.nodeid.rpartition("tests/")[2]
        reason = ""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = str(crash.message if crash else report.longrepr)
        elif report.skipped and isinstance(report.longrepr, tuple):
            reason = str(report.longrepr[2])
        said = " ".join(reason.split())[:300]
        self.report["tests"][name] = {"outcome": report.outcome, "seconds": round(report.duration, 2), "reason": said}
        write_json(self.out, self.report)


def files() -> list[Path]:
    """Those of the tests that have one marked ``gpu``: of the folder of that name all, by its fixture of devices."""
    return [
        path
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path.parent.name == FOLDER or MARK in path.read_text(encoding="utf-8")
    ]


def main(words: Sequence[str] | None = None) -> int:
    options = command.part_options(__doc__, words)
    on_gpu = options.device.startswith("cuda")
    chosen = files() if on_gpu else [path for path in files() if path.parent.name == FOLDER]
    if options.tiny:
        chosen = [path for path in chosen if path.name in QUICK]
    report: dict[str, Any] = {**machine.facts(options.device), "meaningless": not on_gpu, "tests": {}}
    mark = "gpu" if on_gpu else "not gpu and not slow"
    code = pytest.main(
        ["-q", "-m", mark, "-p", "no:cacheprovider", f"--rootdir={ROOT}", *map(str, chosen)],
        plugins=[Kept(options.out, report)],
    )
    write_json(options.out, report)
    return int(code)


if __name__ == "__main__":
    command.end(main)
