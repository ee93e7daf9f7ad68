"""``~`` and environment variables stand for a path wherever a user writes one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from stbench.cli.paths import expand_paths
from stbench.errors import UserError
from stbench.system.compressed import existing
from stbench.system.user_paths import expanded, unset_variables


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SECTIONS", str(tmp_path / "sections"))
    monkeypatch.delenv("NOWHERE", raising=False)
    return tmp_path


def test_a_path_is_expanded_unless_it_is_there_as_written(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert expanded("~/a.toml") == home / "a.toml"
    assert expanded("${SECTIONS}/a.toml") == home / "sections/a.toml"
    monkeypatch.chdir(home)
    (home / "$SECTIONS").write_text("a file of that name")
    assert expanded("$SECTIONS") == Path("$SECTIONS")


def test_a_variable_that_is_not_set_is_named(home: Path) -> None:
    assert expanded("$NOWHERE/x") == Path("$NOWHERE/x")
    with pytest.raises(UserError, match=r"the environment variable NOWHERE is not set"):
        existing(expanded("$NOWHERE/x"))
    assert unset_variables("a/b") == ""


def test_the_words_of_a_command_line_are_expanded_where_they_are_paths(home: Path) -> None:
    words = ["--out=~/results", "$SECTIONS/m.toml", "--title", "$5 and ~", "--name", "a~b", "~"]
    assert expand_paths(words) == [
        f"--out={home}/results",
        f"{home}/sections/m.toml",
        "--title",
        "$5 and ~",
        "--name",
        "a~b",
        str(home),
    ]


def test_a_command_finds_what_is_named_so(home: Path, stbench_command: Callable) -> None:
    done = stbench_command("data", "check", "~/none.toml")
    assert done.code == 2
    assert f"no file or folder {home}/none.toml" in done.err
    assert "variable NOWHERE is not set" in stbench_command("data", "check", "$NOWHERE/none.toml").err
