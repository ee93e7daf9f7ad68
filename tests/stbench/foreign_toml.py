"""TOML files of methods that tests run with this interpreter, or with another one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import upstream

COLOUR_LINE = Path(__file__).with_name("colour_line")


def colour_line(folder: Path, python: str = sys.executable) -> Path:
    """``folder/line.toml``: the line through mean colours as commands."""
    for name in ("colour_line.py", "train.py", "predict.py"):
        shutil.copy(COLOUR_LINE / name, folder / name)
    return upstream.write_text(
        folder / "line.toml",
        f"""name = "colour_line"
title = "Colour line"
train = "python {{here}}/train.py {{task}}"
predict = "python {{here}}/predict.py {{task}}"
files = ["colour_line.py"]

[environment]
python = {json.dumps(python)}

[settings]
penalty = 0.5

[presets.quick]
""",
    )


def scripted(folder: Path, train: str, predict: str = "", more: str = "") -> Path:
    """``folder/mine.toml``: two scripts of a few lines. ``train`` finds ``task``; ``predict`` too."""
    opening = "import os, sys, time\nfrom stbench_exchange import Task\ntask = Task(sys.argv[1])\n"
    for name, text in {"train.py": opening + train, "predict.py": opening + predict}.items():
        upstream.write_text(folder / name, text)
    return upstream.write_text(
        folder / "mine.toml",
        f"""name = "mine"
title = "Mine"
train = "python {{here}}/train.py {{task}}"
predict = "python {{here}}/predict.py {{task}}"
{more}
[environment]
python = {json.dumps(sys.executable)}
""",
    )
