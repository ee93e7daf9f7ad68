"""What a shell is answered when somebody presses Tab."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import upstream

from stbench import registry
from stbench.data.splits import SPLITS
from stbench.data.target_names import TARGET_NAMES

AS_THE_SCRIPT_DOES = """
import sys
from stbench.cli import main
try:
    main()
finally:
    print("loaded:", [name for name in ("torch", "pandas", "scipy", "numpy") if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture
def offered(stbench_command: Callable, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], list[str]]:
    """``offered("run --methods st")``: what bash is told when Tab is pressed at the end of that line."""

    def ask(line: str) -> list[str]:
        words = f"stbench {line}"
        monkeypatch.setenv("_STBENCH_COMPLETE", "complete_bash")
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
        done = stbench_command()
        assert (done.code, done.err) == (0, "")
        return done.out.split()

    return ask


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("le", ["leaderboard"]),
        ("run --meth", ["--methods"]),
        ("run --methods stn", ["stnet"]),
        ("run --methods stnet,ble", ["stnet,bleep"]),
        ("run --methods stnet,stn", []),
        ("run --methods con", ["controls"]),
        ("run --methods mine.py:", []),
        ("run --dataset her", ["her2st"]),
        ("run --dataset=her", ["her2st"]),
        ("run --folds many --dataset her", ["her2st"]),
        ("run --preset re", ["released"]),
        ("run --precision b", ["bf16"]),
        ("ablate mcl", ["mclstexp"]),
        ("audit --split loso,k", ["loso,kfold"]),
        ("score a.h5ad --split k", ["kfold"]),
        ("methods show hist2", ["hist2st"]),
        ("new me", ["method"]),
        ("data check al", ["alex10x"]),
        ("nonsense --meth", []),
    ],
)
def test_commands_options_and_names_are_offered(
    line: str, answer: list[str], offered: Callable[[str], list[str]]
) -> None:
    assert offered(line) == answer


def test_cohorts_of_ones_own_are_offered_like_datasets(
    offered: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "minor"):
        upstream.write_text(tmp_path / "cohorts" / name / "cohort.toml", f'name = "{name}"')
    (tmp_path / "cohorts" / "mint").mkdir()  # no manifest, no cohort
    assert offered(f"run --data {tmp_path} --dataset mi") == ["mine", "minor"]
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path))
    assert offered("data check mi") == ["mine", "minor"]
    assert offered("data import x --as min") == ["mine", "minor"]
    assert offered("run --dataset her") == ["her2st"]
    monkeypatch.setenv("STBENCH_DATA", str(tmp_path / "nowhere"))
    assert offered("run --dataset her") == ["her2st"]


def test_every_name_is_offered_where_nothing_is_typed_yet(offered: Callable[[str], list[str]]) -> None:
    assert offered("run --methods ") == [*registry.method_names(), *registry.GROUPS_OF_METHODS]
    assert offered("run --dataset ") == registry.dataset_names()
    assert offered("run --target ") == list(TARGET_NAMES)
    assert offered("run --split ") == list(SPLITS)
    assert offered("run --preset ") == ["published", "released", "paper", "quick"]


def test_a_broken_package_leaves_nothing_to_offer(
    offered: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(**_: object) -> NoReturn:
        raise ValueError("its metadata cannot be read")

    monkeypatch.setattr("stbench.registry.entry_points", broken)
    assert offered("run --methods st") == []


@pytest.mark.parametrize(
    ("asked", "code", "out"),
    [
        ({"COMP_WORDS": "stbench run --methods stn", "COMP_CWORD": "3"}, 0, "stnet\n"),
        ({}, 1, ""),  # not as a shell asks
    ],
)
def test_a_process_that_a_shell_starts_loads_nothing_heavy_and_prints_no_traceback(
    asked: dict[str, str], code: int, out: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AS_THE_SCRIPT_DOES],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"_STBENCH_COMPLETE": "complete_bash"} | asked,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, out, "loaded: []\n")


def test_the_script_for_a_shell_is_shown(stbench_command: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    done = stbench_command("--show-completion")
    assert done.code == 0
    assert "_STBENCH_COMPLETE=complete_bash" in done.out
    assert "complete -o default -F _stbench_completion stbench" in done.out
