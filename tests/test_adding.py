"""What docs/adding.md shows works as it stands."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stbench import registry
from stbench.method import Run, configure

PAGE = (Path(__file__).parents[1] / "docs" / "adding.md").read_text(encoding="utf-8")


def test_the_method_in_one_file_passes_the_battery_and_runs(tmp_path: Path, stbench_command: Callable) -> None:
    source = tmp_path / "mine.py"
    source.write_text(_example("mine.py"), encoding="utf-8")
    checked = stbench_command("methods", "check", f"{source}:Redness")
    assert checked.code == 0, checked.out
    command = ("run", "--methods", f"{source}:Redness,controls", "--dataset", "demo", "--slices", "P1a,P1b")
    done = stbench_command(*command, "--preset", "quick", "--no-mlflow", "--out", tmp_path / "r")
    assert done.code == 0, done.err
    assert "redness" in done.out


def test_every_command_that_it_shows_exists(stbench_command: Callable) -> None:
    commands = set(re.findall(r"stbench ((?:(?:data|methods|new) )?[a-z]+)\b(?!\.)", "\n".join(_shown())))
    assert {"new method", "new dataset", "methods check", "run", "score"} <= commands
    for command in commands:
        assert stbench_command(*command.split(), "--help").code == 0, command


def test_the_method_in_its_own_environment_predicts(
    tmp_path: Path, make_training_slides: Callable, hide_expression: Callable
) -> None:
    for name in ("train.py", "predict.py"):
        (tmp_path / name).write_text(_example(name), encoding="utf-8")
    text = _example("theirs.toml").replace("~/envs/theirs/bin/python", sys.executable).replace("~/src/theirs", ".")
    (tmp_path / "theirs.toml").write_text(text, encoding="utf-8")
    method = registry.method(str(tmp_path / "theirs.toml"))
    assert configure(method, "quick").model_dump() == {"epochs": 2, "encoder": "densenet121"}
    fitted = method(method.Config())
    slides = make_training_slides(n_slides=3, n_spots=12, n_genes=4, side=8)
    fitted.fit(slides[:2], Run(seed=1))
    assert np.corrcoef(fitted.predict(hide_expression(slides[2]))[:, 0], slides[2].target[:, 0])[0, 1] > 0.5


def _example(name: str) -> str:
    """The example that begins by saying which file it is."""
    examples = re.findall(r"```(?:python|toml)\n(# .*?)```", PAGE, flags=re.DOTALL)
    (example,) = [text for text in examples if re.match(rf"# {re.escape(name)}\s", text)]
    return example


def _shown() -> list[str]:
    return [*re.findall(r"^    (stbench .*)$", PAGE, flags=re.MULTILINE), *re.findall(r"`(stbench .*?)`", PAGE)]
