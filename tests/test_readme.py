"""What the README shows works as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from stbench import registry
from stbench.data.prepare import prepare
from stbench.system.locate import cache_root

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return found


def test_the_example_manifest_is_read_as_it_stands(tmp_path: Path, stbench_command: Callable) -> None:
    (tmp_path / "slides.toml").write_text(_block("toml"))
    done = stbench_command("data", "check", tmp_path / "slides.toml")
    assert done.code == 2
    assert "genes.txt" in done.err  # every key is known, and the first file that it names is not there


def test_the_example_predictions_can_be_scored(
    tmp_path: Path, stbench_command: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = prepare(registry.dataset("demo"), "spot-log10-cp10k", cache_root(), ["P1a", "P2a"])
    given = {
        "predictions": {name: slide.target for name, slide in data.slides.items()},
        "spots": {name: slide.spot_ids for name, slide in data.slides.items()},
        "genes": data.genes,
    }
    monkeypatch.chdir(tmp_path)
    exec(_block("py"), given)
    words = ("--dataset", "demo", "--slices", "P1a,P2a", "--name", "truth", "--out", "scored")
    done = stbench_command("score", "P1a.h5ad", "P2a.h5ad", *words)
    assert done.code == 0, done.err
    assert "2 of 2 folds scored" in done.out


def test_every_command_that_it_shows_exists(stbench_command: Callable) -> None:
    shown = "\n".join([*re.findall(r"```\n(.*?)```", README, flags=re.DOTALL), *re.findall(r"`(stbench .*?)`", README)])
    commands = set(re.findall(r"stbench ((?:(?:data|methods|new) )?[a-z]+)\b", shown))
    assert {"run", "report", "data list", "methods check", "new method"} <= commands
    for command in commands:
        assert stbench_command(*command.split(), "--help").code == 0, command


def test_the_pictures_that_it_shows_are_there() -> None:
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]+)\)", README)
    assert pictures
    for path in pictures:
        assert (Path(__file__).parents[1] / path).is_file(), path
