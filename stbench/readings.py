"""Three readings of a published method: as it is recommended here, as its released code stands, as its text says.

A reading is a preset: ``published`` is the faithful reading that is recommended, ``released`` the released code's
values, faults included, ``paper`` the text's. The values stand in the method's ``presets``; where each comes from,
which target it belongs to, and what of it cannot be had here stand beside the method, as data, and never inside it: no
word here is part of what a method computes.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .data.target_names import DEFAULT_TARGET

if TYPE_CHECKING:
    from .method import Method

READINGS = ("published", "released", "paper")
TARGET = "target"  # stands among the settings of a comparison, though it is a run's option


@dataclass(frozen=True)
class Source:
    """Where the values of one setting come from; empty where the reading does not differ from ``published``."""

    published: str = ""  # why this value is the recommended one
    released: str = ""  # the place in the released code, or what it does there
    paper: str = ""  # the place in the text


@dataclass(frozen=True)
class Beyond:
    """Something in which the released code or the text differs that no setting here can express."""

    topic: str
    here: str  # what is done instead, under every reading
    released: str = ""
    paper: str = ""


@dataclass(frozen=True)
class Readings:
    """What is known of a method's three readings.

    ``targets`` maps ``released`` or ``paper`` (or one of them on a dataset: ``released/alex10x``) to the scale that it
    learns and is scored on, where that is not the benchmark's default.
    """

    code: str  # the released code, with its commit
    text: str  # the text that ``paper`` follows
    sources: Mapping[str, Source]  # a setting's name, or "target"
    targets: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[Beyond, ...] = ()


@dataclass(frozen=True)
class Compared:
    """One setting under each reading."""

    setting: str
    values: Mapping[str, Any]  # reading to value
    source: Source

    @property
    def differs(self) -> bool:
        first, *others = self.values.values()
        return any(other != first for other in others)


def readings_of(method: type[Method]) -> Readings | None:
    """The readings of a method, from the place that its attribute ``readings`` names (``"package.module:NAME"``).

    ``None`` where it has no such attribute: a control, or a method without published code.
    """
    declared = getattr(method, "readings", "")
    if not declared:
        return None
    if isinstance(declared, str):
        module, _, name = declared.partition(":")
        declared = getattr(importlib.import_module(module), name)
    assert isinstance(declared, Readings)
    return declared


def has_preset(method: type[Method], preset: str) -> bool:
    """Whether ``method`` declares ``preset``; every method has ``published``."""
    return preset == "published" or preset in {name.split("/")[0] for name in method.presets}


def target_of(method: type[Method], preset: str, dataset: str) -> str | None:
    """The target that a method's preset belongs to on a dataset; ``None`` where it has no target of its own."""
    readings = readings_of(method)
    if readings is None or not has_preset(method, preset):
        return None
    own = readings.targets.get(f"{preset}/{dataset}", readings.targets.get(preset))
    return own if own is not None else DEFAULT_TARGET


def compare(method: type[Method], dataset: str = "") -> list[Compared]:
    """Every setting under each reading that the method has, in the order of its ``Config``, the target first."""
    from .method import configure  # here, as all else in this module is wanted by a command line that starts fast

    readings = readings_of(method)
    sources = {} if readings is None else readings.sources
    present = [preset for preset in READINGS if has_preset(method, preset)]
    configs = {preset: configure(method, preset, dataset) for preset in present}
    targets = {preset: target_of(method, preset, dataset) or DEFAULT_TARGET for preset in present}
    rows = [Compared(TARGET, targets, sources.get(TARGET, Source()))]
    for name in method.Config.model_fields:
        values = {preset: getattr(config, name) for preset, config in configs.items()}
        rows.append(Compared(name, values, sources.get(name, Source())))
    return rows
