"""The manifest of a cohort as text: slides are added and replaced, and what a person wrote beside them stays."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stbench.errors import UserError

SLIDE = re.compile(r"[ \t]*\[\[[ \t]*(?:slide|\"slide\"|'slide')[ \t]*\]\][ \t]*(?:#.*)?")
HEAD = """\
# A cohort of stbench, written by 'stbench data import'. It may be edited: docs/data.md lists the keys.
name = {name}
title = {title}
patch_px = {patch_px}  # side of the window around a spot, in full-resolution pixels
panel = "all"  # genes common to all slides; or a file of one gene per line; or a list
"""


def new_text(name: str, title: str, patch_px: int) -> str:
    """A manifest without slides."""
    return HEAD.format(name=_toml(name), title=_toml(title), patch_px=patch_px)


def with_slides(text: str, slides: Sequence[Mapping[str, Any]], place: Path) -> str:
    """The manifest ``text`` with ``slides``: those whose id it has take the place of the old ones, others come last.

    Raises ``UserError`` where the text is written in a way that this cannot be done in.
    """
    before = tomllib.loads(text)
    position = {slide["id"]: index for index, slide in enumerate(before.get("slide", []))}
    blocks = _blocks(text)
    result = list(before.get("slide", []))
    for slide in slides:
        values = _plain(slide, place)
        block = "[[slide]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in values.items())
        if values["id"] in position:
            index = position[values["id"]]
            result[index] = values
            if index + 1 < len(blocks):
                blocks[index + 1] = block + _trailing(blocks[index + 1])
        else:
            result.append(values)
            blocks[-1] = blocks[-1].rstrip("\n") + "\n\n" if blocks[-1].strip() else ""
            blocks.append(block)
    written = "".join(blocks)
    try:
        after = tomllib.loads(written)
    except tomllib.TOMLDecodeError:
        after = {}
    if after != before | {"slide": result}:
        raise UserError(
            f"{place} is written in a way that no slide can be added to it here - write each slide as a [[slide]] of "
            "its own, below all other keys"
        )
    return written


def _blocks(text: str) -> list[str]:
    """What stands before the first slide, then each slide with what follows it."""
    blocks = [""]
    for line in text.splitlines(keepends=True):
        if SLIDE.fullmatch(line.rstrip("\r\n")):
            blocks.append("")
        blocks[-1] += line
    if blocks[-1] and not blocks[-1].endswith("\n"):
        blocks[-1] += "\n"
    return blocks


def _trailing(block: str) -> str:
    """Blank lines and comments at the end of a slide's block: they belong to what comes next."""
    lines = block.splitlines(keepends=True)
    last = max(number for number, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#"))
    return "".join(lines[last + 1 :])


def _plain(slide: Mapping[str, Any], manifest: Path) -> dict[str, Any]:
    """An entry as it stands in a manifest: paths below its folder relative to it, all others as they are."""
    home = manifest.parent
    return {
        key: (str(value.relative_to(home)) if value.is_relative_to(home) else str(value))
        if isinstance(value, Path)
        else value
        for key, value in slide.items()
    }


def _toml(value: Any) -> str:
    """A value as TOML. Its texts are written as JSON's, but for the one sign that only TOML has to escape."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return json.dumps(value)
