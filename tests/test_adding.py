"""What docs/adding.md shows works as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

PAGE = (Path(__file__).parents[1] / "docs" / "adding.md").read_text(encoding="utf-8")


def test_the_method_in_one_file_passes_the_battery_and_runs(tmp_path: Path, stbench_command: Callable) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    source = tmp_path / "mine.py"
    source.write_text(example, encoding="utf-8")
    checked = stbench_command("methods", "check", f"{source}:Redness")
    assert checked.code == 0, checked.out
    command = ("run", "--methods", f"{source}:Redness,controls", "--dataset", "demo", "--slices", "P1a,P1b,P2a")
    done = stbench_command(*command, "--preset", "quick", "--no-mlflow", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert "redness" in done.out


def test_every_command_that_it_shows_exists(stbench_command: Callable) -> None:
    commands = set(re.findall(r"stbench ((?:(?:data|methods|new) )?[a-z]+)\b(?!\.)", "\n".join(_shown())))
    assert {"new method", "new dataset", "methods check", "run", "score"} <= commands
    for command in commands:
        assert stbench_command(*command.split(), "--help").code == 0, command


def _shown() -> list[str]:
    return [*re.findall(r"^    (stbench .*)$", PAGE, flags=re.MULTILINE), *re.findall(r"`(stbench .*?)`", PAGE)]
