"""From the names of a published file to those of the network as it is built, by the rules of ``layouts.toml``."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from .table import LAYOUTS, Row


class Join(Row):
    """Entries whose names differ in one word, concatenated in the order of ``parts`` under the word ``whole``."""

    parts: tuple[str, ...]
    whole: str


class Shift(Row):
    """A number in names, the group of ``pattern``, that counts from elsewhere."""

    pattern: str
    by: int


class Layout(Row):
    """The rules by which a file of one layout is read: see the head of ``layouts.toml``."""

    marks: tuple[str, ...]
    drop: tuple[str, ...] = ()
    rename: tuple[tuple[str, str], ...] = ()
    shift: Shift | None = None
    join: Join | None = None
    fold_class_position: bool = False

    def prefix(self, names: Iterable[str]) -> str | None:
        """What stands before the names of a file of this layout; ``None`` where it has another."""
        names = list(names)
        for mark in self.marks:
            before = [name.removesuffix(mark) for name in names if name == mark or name.endswith("." + mark)]
            if before:
                return min(before, key=len)
        return None

    def renamed(self, name: str) -> str | None:
        """The network's name of an entry; ``None`` where it is left out."""
        if any(re.search(pattern, name) for pattern in self.drop):
            return None
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        if self.shift is not None and (found := re.search(self.shift.pattern, name)):
            start, stop = found.span(1)
            name = f"{name[:start]}{int(found[1]) + self.shift.by}{name[stop:]}"
        return name


@cache
def layouts() -> Mapping[str, Layout]:
    """All layouts by name."""
    content = tomllib.loads(LAYOUTS.read_text(encoding="utf-8"))
    return {name: Layout(**fields) for name, fields in content.items()}


def translated(
    state: Mapping[str, Tensor], among: Iterable[str], expected: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """``state`` under the network's names, if it has one of the layouts ``among``; ``None`` if it has none of them.

    ``expected`` is the network's own state, which only shapes are taken from. Raises ``KeyError`` where entries that
    are to be joined are not all there.
    """
    for layout in map(layouts().__getitem__, among):
        prefix = layout.prefix(state)
        if prefix is None:
            continue
        inside = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        named = {new: value for name, value in inside.items() if (new := layout.renamed(name)) is not None}
        if layout.join is not None:
            named = _joined(named, layout.join)
        return _with_class_position_folded(named, expected) if layout.fold_class_position else named
    return None


def with_positions_of(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], name: str = "pos_embed"
) -> dict[str, Tensor]:
    """``state`` with positions for the network's grid: bicubic, without antialiasing, as transformers resamples them.

    The class token's own position stays. What is no square grid is left as it is, to be refused by its shape.
    """
    positions, wanted = state.get(name), expected[name]
    if positions is None or positions.ndim != 3 or positions.shape[1] == wanted.shape[1]:
        return dict(state)
    n_before, side = 1, math.isqrt(positions.shape[1] - 1)
    new_side = math.isqrt(wanted.shape[1] - n_before)
    if side**2 != positions.shape[1] - n_before or new_side**2 != wanted.shape[1] - n_before:
        return dict(state)
    first, grid = positions.float().split([n_before, side**2], dim=1)
    grid = grid.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    grid = interpolate(grid, size=(new_side, new_side), mode="bicubic", align_corners=False)
    return {**state, name: torch.cat([first, grid.permute(0, 2, 3, 1).reshape(1, new_side**2, -1)], dim=1)}


def _joined(state: Mapping[str, Tensor], join: Join) -> dict[str, Tensor]:
    done: dict[str, Tensor] = {}
    first = re.compile(rf"\.{re.escape(join.parts[0])}\.")
    others = tuple(f".{part}." for part in join.parts[1:])
    for name, value in state.items():
        if first.search(name):
            parts = [value, *(state[first.sub(other, name)] for other in others)]
            done[first.sub(f".{join.whole}.", name)] = torch.cat(parts)
        elif not any(other in name for other in others):
            done[name] = value
    return done


def _with_class_position_folded(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Where the file has a position for the class token and the network has none: the two are only ever added."""
    done = dict(state)
    positions, token = state.get("pos_embed"), state.get("cls_token")
    if positions is None or token is None or positions.ndim != 3:
        return done
    if positions.shape[1] == expected["pos_embed"].shape[1] + 1:
        done["cls_token"] = token + positions[:, :1]
        done["pos_embed"] = positions[:, 1:]
    return done
