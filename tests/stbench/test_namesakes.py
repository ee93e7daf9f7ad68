"""Two methods of one name never replace each other; a method that was edited replaces itself, and that is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from plugins import plugin

from stbench.results.summary import superseded

DEMO = ("--dataset", "demo", "--slices", "P1a,P1b", "--preset", "quick", "--no-mlflow")


def _mse(results: Path) -> list[float]:
    return sorted(pd.read_csv(results / "summary.csv")["mse"])


def test_another_file_with_a_method_of_the_same_name_is_refused(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the commands are given, and however the file is spelt: both are called mine.py here."""
    monkeypatch.chdir(tmp_path)
    for folder, factor in (("a", 1.0), ("b", -1.0)):
        plugin(tmp_path / folder / "mine.py", factor=factor)
        monkeypatch.chdir(tmp_path / folder)
        done = stbench_command("run", "--methods", "mine.py:Mine", *DEMO, "--out", tmp_path / "r")
        if folder == "a":
            assert done.code == 0, done.err
            before = (tmp_path / "r" / "summary.csv").read_bytes(), (tmp_path / "r" / "run.json").read_bytes()
    assert done.code == 2
    (line,) = [line for line in done.err.splitlines() if line.startswith("stbench: ")]
    assert f"has trials of 'mine' from {tmp_path / 'a' / 'mine.py'}:Mine" in line
    assert f"{tmp_path / 'b' / 'mine.py'}:Mine calls itself 'mine' too - rename one, or give another --out" in line
    assert ((tmp_path / "r" / "summary.csv").read_bytes(), (tmp_path / "r" / "run.json").read_bytes()) == before
    assert len(list((tmp_path / "r" / "trials").iterdir())) == 2


def test_two_classes_of_one_name_in_one_file_are_refused(tmp_path: Path, stbench_command: Callable) -> None:
    mine = plugin(tmp_path / "mine.py")
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "\n\nclass Other(Mine):\n    pass\n")
    assert stbench_command("run", "--methods", mine, *DEMO, "--out", tmp_path / "r").code == 0
    done = stbench_command("run", "--methods", f"{tmp_path / 'mine.py'}:Other", *DEMO, "--out", tmp_path / "r")
    assert done.code == 2


def test_a_file_that_calls_itself_like_a_registered_method_is_refused(
    tmp_path: Path, stbench_command: Callable
) -> None:
    assert stbench_command("run", "--methods", "training_mean", *DEMO, "--out", tmp_path / "r").code == 0
    namesake = plugin(tmp_path / "mine.py", name="training_mean")
    done = stbench_command("run", "--methods", namesake, *DEMO, "--out", tmp_path / "r")
    assert done.code == 2
    assert "has trials of 'training_mean' from training_mean, and" in done.err


def test_the_same_file_edited_replaces_its_trials_and_says_how_many(tmp_path: Path, stbench_command: Callable) -> None:
    mine = plugin(tmp_path / "mine.py", factor=1.0)
    command = ("run", "--methods", mine, *DEMO, "--out", tmp_path / "r")
    stbench_command(*command)
    first = _mse(tmp_path / "r")
    plugin(tmp_path / "mine.py", factor=-1.0)
    done = stbench_command(*command)
    assert "2 earlier trials no longer count" in done.out
    assert len(superseded(tmp_path / "r")) == 2
    assert _mse(tmp_path / "r") != first
    plugin(tmp_path / "mine.py", factor=1.0)  # as it was: the first trials count again, and the others no longer do
    again = stbench_command(*command)
    assert "0 to run; reused: 2 finished" in again.out
    assert "2 earlier trials no longer count" in again.out
    assert _mse(tmp_path / "r") == first
    assert "no longer count" not in stbench_command(*command).out


def test_the_same_code_in_another_place_is_the_same_method(tmp_path: Path, stbench_command: Callable) -> None:
    for folder in ("a", "b"):
        mine = plugin(tmp_path / folder / "mine.py")
        done = stbench_command("run", "--methods", mine, *DEMO, "--out", tmp_path / "r")
        assert done.code == 0, done.err
