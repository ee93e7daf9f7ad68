"""The names of the targets, without numpy: enough to offer them, to complete them and to refuse others."""

from __future__ import annotations

from ..errors import unknown

DEFAULT_TARGET = "spot-log10-cp10k"
TARGET_NAMES = ("spot-log10-cp10k", "gene-log10-cp10k", "lognorm", "spot-ln-cpm", "stnet-logfreq")


def known_target(name: str) -> str:
    """``name``, if a target has it. Raises ``UserError`` with the nearest match otherwise."""
    if name not in TARGET_NAMES:
        raise unknown("target", name, TARGET_NAMES)
    return name
